//! Errors of the admin API: every one is `application/problem+json` (RFC 9457), also those that axum makes.
//!
//! `Kind` is the closed list of what can go wrong. Its names and statuses are part of the contract:
//! programs match on `type`, people read `detail` and `hint`.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::admin::types;
use crate::control::{NotDone, NotDoneKind};
use crate::hint::Problems;
use crate::rules::source::ChangeError;
use crate::supervisor::command::Refused;
use crate::version::NameError;

/// The content type of every error.
pub(crate) const CONTENT_TYPE: &str = "application/problem+json";
/// What every `type` begins with.
const TYPE_PREFIX: &str = "urn:switchman:problem:";
/// The most of axum's own error text that is passed on.
const DETAIL_MAX: usize = 16 * 1024;

/// What can go wrong, as programs see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    BadRequest,
    AmbiguousVersion,
    Unauthorized,
    Forbidden,
    NotFound,
    UnknownService,
    UnknownVersion,
    UnknownAlias,
    MethodNotAllowed,
    Refused,
    RevisionChanged,
    TooLarge,
    UnsupportedMediaType,
    InvalidRules,
    InvalidConfig,
    NotDone,
    NotReady,
    Unavailable,
    Internal,
}

impl Kind {
    /// Its name in `type`, its title and its status.
    fn facts(self) -> (&'static str, &'static str, StatusCode) {
        use StatusCode as S;
        match self {
            Self::BadRequest => ("bad-request", "The request cannot be understood", S::BAD_REQUEST),
            Self::AmbiguousVersion => ("ambiguous-version", "The name fits several versions", S::BAD_REQUEST),
            Self::Unauthorized => ("unauthorized", "This needs the admin token", S::UNAUTHORIZED),
            Self::Forbidden => ("forbidden", "This is not allowed from here", S::FORBIDDEN),
            Self::NotFound => ("not-found", "There is nothing at this path", S::NOT_FOUND),
            Self::UnknownService => ("unknown-service", "There is no such service", S::NOT_FOUND),
            Self::UnknownVersion => ("unknown-version", "There is no such version", S::NOT_FOUND),
            Self::UnknownAlias => ("unknown-alias", "There is no such alias", S::NOT_FOUND),
            Self::MethodNotAllowed => {
                ("method-not-allowed", "This path does not take this method", S::METHOD_NOT_ALLOWED)
            }
            Self::Refused => ("refused", "This would do harm now", S::CONFLICT),
            Self::RevisionChanged => ("revision-changed", "Somebody else was faster", S::PRECONDITION_FAILED),
            Self::TooLarge => ("too-large", "The body is too large", S::PAYLOAD_TOO_LARGE),
            Self::UnsupportedMediaType => {
                ("unsupported-media-type", "The body has another type", S::UNSUPPORTED_MEDIA_TYPE)
            }
            Self::InvalidRules => ("invalid-rules", "The rule document has errors", S::UNPROCESSABLE_ENTITY),
            Self::InvalidConfig => {
                ("invalid-config", "The configuration has errors", S::UNPROCESSABLE_ENTITY)
            }
            Self::NotDone => ("not-done", "It was tried and failed", S::SERVICE_UNAVAILABLE),
            Self::NotReady => ("not-ready", "Not everything is ready", S::SERVICE_UNAVAILABLE),
            Self::Unavailable => {
                ("unavailable", "The rule source cannot be written now", S::SERVICE_UNAVAILABLE)
            }
            Self::Internal => ("internal", "Something went wrong in switchman", S::INTERNAL_SERVER_ERROR),
        }
    }

    /// The kind of an error that axum answered by itself.
    fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::UnsupportedMediaType,
            status if status.is_client_error() => Self::BadRequest,
            _ => Self::Internal,
        }
    }
}

/// An error on its way to the client. Boxed: it is large, and the way without one is the usual one.
#[derive(Debug)]
pub(crate) struct ApiError(Box<types::Problem>);

impl ApiError {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let (name, title, status) = kind.facts();
        Self(Box::new(types::Problem {
            kind: format!("{TYPE_PREFIX}{name}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            hint: None,
            problems: Vec::new(),
        }))
    }

    /// Adds what to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// A rule document with errors.
    pub(crate) fn invalid_rules(problems: Problems) -> Self {
        let errors = problems.0.len();
        let detail = match problems.0.first() {
            Some(first) if errors == 1 => first.message.clone(),
            Some(first) => format!("{} (and {} more)", first.message, errors - 1),
            None => "the rule document has errors".to_owned(),
        };
        let mut error = Self::new(Kind::InvalidRules, detail)
            .hint("what was in force stays in force; mend the document and send it again");
        error.0.problems = problems.0;
        error
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&*self.0)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        match &error {
            NameError::Unknown(_) => Self::new(Kind::UnknownVersion, error.to_string())
                .hint("see what is there: switchman versions"),
            NameError::Ambiguous { .. } => {
                Self::new(Kind::AmbiguousVersion, error.to_string()).hint("write more of its name")
            }
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        Self::new(Kind::Refused, refused.message).hint(refused.hint)
    }
}

impl From<NotDone> for ApiError {
    fn from(not_done: NotDone) -> Self {
        let kind = match not_done.kind {
            NotDoneKind::Invalid => Kind::InvalidConfig,
            NotDoneKind::Refused => Kind::Refused,
            NotDoneKind::Failed => Kind::NotDone,
        };
        let mut error = Self::new(kind, not_done.message).hint(not_done.hint);
        error.0.problems = not_done.problems.0;
        error
    }
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Refused { message, hint } => Self::new(Kind::Refused, message).hint(hint),
            ChangeError::Conflict { .. } => Self::new(Kind::RevisionChanged, error.to_string())
                .hint("read it again (switchman rules get), and send the change again"),
            ChangeError::Invalid(problems) => Self::invalid_rules(problems),
            ChangeError::Unavailable(detail) => Self::new(Kind::Unavailable, detail)
                .hint("nothing was changed, and routing goes on as before; try again"),
        }
    }
}

/// Gives the errors that axum answers by itself (unknown path, wrong method, unreadable body) our form. Its
/// headers stay: `Allow` is one of them.
pub(crate) async fn as_problem(request: Request, next: Next) -> Response {
    let what = format!("{} {}", request.method(), request.uri().path());
    let response = next.run(request).await;
    let status = response.status();
    let is_ours = response.headers().get(header::CONTENT_TYPE).is_some_and(|v| v == CONTENT_TYPE);
    if is_ours || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, DETAIL_MAX).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let kind = Kind::of_status(status);
    let error = match kind {
        Kind::NotFound => ApiError::new(kind, format!("{what} is not part of the admin API"))
            .hint("begin with GET /versions, or type: switchman help"),
        Kind::MethodNotAllowed => {
            let allowed = parts.headers.get(header::ALLOW).and_then(|v| v.to_str().ok());
            let error = ApiError::new(kind, format!("{what} is not possible"));
            match allowed {
                Some(allowed) => error.hint(format!("this path takes {allowed}")),
                None => error,
            }
        }
        _ if text.is_empty() => ApiError::new(kind, format!("{what} was refused with {status}")),
        _ => ApiError::new(kind, text),
    };
    let (ours, body) = error.into_response().into_parts();
    let mut headers = parts.headers;
    headers.remove(header::CONTENT_LENGTH);
    headers.extend(ours.headers);
    let mut response = Response::new(Body::new(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
