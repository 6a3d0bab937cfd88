//! The rule document: read it, replace it, ask what is wrong with one, ask what it does with a request.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::explain::explanation;
use super::{ByWhom, Flags, apply, find, json};
use crate::admin::problem::{ApiError, Kind};
use crate::admin::{AdminState, types, view};
use crate::hint::Problem;
use crate::routing::ServiceRouting;
use crate::rules::source::Change;
use crate::rules::{self, Context};

/// The document in force: as JSON with what is known of it, or alone for `Accept: text/yaml`.
pub(super) async fn get(
    State(state): State<AdminState>,
    Path(service): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let routing = state.live.load();
    let service = find(&routing, &service)?;
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut response = if accept.contains("yaml") || accept.starts_with("text/plain") {
        ([(header::CONTENT_TYPE, "text/yaml; charset=utf-8")], service.rules.document.to_string())
            .into_response()
    } else {
        Json(view::rules(service)).into_response()
    };
    tag(&mut response, service.rules.revision);
    Ok(response)
}

/// Replaces the document, if it compiles and (with `If-Match`) if nobody changed it meanwhile.
pub(super) async fn put(
    State(state): State<AdminState>,
    Path(service): Path<String>,
    ByWhom(who): ByWhom,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let text: std::sync::Arc<str> = document(&body)?.into();
    let if_revision = if_match(&headers)?;
    let routing = state.live.load();
    let service = find(&routing, &service)?;
    let change = Change::Document { text: text.clone(), if_revision };
    apply(&state, service, change, who, |s, _| s.rules.document == text).await?;
    let routing = state.live.load();
    let service = find(&routing, service.name.as_str())?;
    let mut response = Json(view::rules(service)).into_response();
    tag(&mut response, service.rules.revision);
    Ok(response)
}

/// What is wrong with a document, without taking it. `?name=` is what its problems call it.
pub(super) async fn check(
    State(state): State<AdminState>,
    Path(service): Path<String>,
    Query(flags): Query<Flags>,
    body: Bytes,
) -> Result<Json<types::Checked>, ApiError> {
    let text = document(&body)?;
    let routing = state.live.load();
    let service = find(&routing, &service)?;
    Ok(Json(checked(service, flags.name.as_deref().unwrap_or("document"), &text)))
}

/// What each route in force makes of a request, and where it goes.
pub(super) async fn explain(
    State(state): State<AdminState>,
    Path(service): Path<String>,
    body: Bytes,
) -> Result<Json<types::Explanation>, ApiError> {
    let asked: types::Explain = json(
        &body,
        r#"{"method": "GET", "path": "/cart", "host": "app.example.com", "headers": {"x-qa": "yes"}, "cookies": {"uid": "77"}, "client_ip": "10.1.2.3"}"#,
    )?;
    let routing = state.live.load();
    Ok(Json(explanation(find(&routing, &service)?, asked)))
}

fn checked(service: &ServiceRouting, name: &str, text: &str) -> types::Checked {
    let context = Context { file: name, service: service.name.as_str(), extra_routes: &[] };
    match rules::compile(text, &context) {
        Err(problems) => types::Checked { ok: false, problems: problems.0 },
        Ok(compiled) => {
            let mut problems: Vec<Problem> = compiled.warnings.0;
            let mut unknown = view::unknown_names(service, &compiled.table);
            unknown.locate(name, text);
            problems.extend(unknown.0);
            types::Checked { ok: true, problems }
        }
    }
}

/// The document in a body: the text itself, or `{"document": TEXT}`. A document may be JSON itself; it never has
/// the one key `document`.
fn document(body: &Bytes) -> Result<String, ApiError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wrapped {
        document: String,
    }
    if let Ok(wrapped) = serde_json::from_slice::<Wrapped>(body) {
        return Ok(wrapped.document);
    }
    String::from_utf8(body.to_vec()).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        ApiError::new(Kind::BadRequest, format!("the document is not UTF-8 text: byte {at} is not"))
    })
}

/// The revision in `If-Match`; none without one, or for `*`.
fn if_match(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let revision = text.strip_prefix("W/").unwrap_or(text).trim_matches('"').parse();
    revision.map(Some).map_err(|_| {
        ApiError::new(Kind::BadRequest, format!("If-Match `{text}` is no revision"))
            .hint("send the ETag of GET rules as it is")
    })
}

fn tag(response: &mut Response, revision: u64) {
    if let Ok(value) = HeaderValue::from_str(&format!("\"{revision}\"")) {
        response.headers_mut().insert(header::ETAG, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_the_body_or_wrapped_in_json() {
        let read = |body: &str| document(&Bytes::copy_from_slice(body.as_bytes())).unwrap();
        assert_eq!(read("default: current\n"), "default: current\n");
        assert_eq!(read(r#"{"document": "default: beta"}"#), "default: beta");
        let flipr = r#"{"version": {"value": "4f2a91c"}}"#;
        assert_eq!(read(flipr), flipr, "a document may be JSON itself");
        assert!(document(&Bytes::from_static(b"a: \xff")).is_err());
    }

    #[test]
    fn if_match_takes_an_etag() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_MATCH, value.parse().unwrap());
            if_match(&headers).map_err(|_| ())
        };
        assert_eq!(read("\"42\""), Ok(Some(42)));
        assert_eq!(read("W/\"42\""), Ok(Some(42)));
        assert_eq!(read("*"), Ok(None));
        assert_eq!(read("\"abc\""), Err(()));
    }
}
