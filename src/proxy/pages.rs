//! What answers of ours look like: `application/problem+json`, a page or plain text, as the client's `Accept` says.
//!
//! Pages may come from folders, one a service and one for all (`errors:`). A folder is read at the start and again
//! when something in it changes, by a task of the control plane, which is the only writer of its snapshot. A page
//! that is not there or cannot be used gives way to the next less exact one, and in the end to ours.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::task::AbortOnDropHandle;

use crate::fs_watch;
use crate::hint::nearest;
use crate::proxy::body::weight;
use crate::proxy::error::{Answer, Cause, Refusal};
use crate::proxy::h1::lines;
use crate::version::ServiceName;

/// The page where nobody has a better one.
const OURS: &str = include_str!("page.html");
/// The largest page, in bytes: each is kept in memory.
const PAGE_MAX: u64 = 1024 * 1024;

/// The pages of one folder by file name without `.html`.
type Folder = BTreeMap<String, String>;

/// The pages of all services, as they are now.
#[derive(Debug, Clone, Default)]
pub struct Pages {
    /// Without a service: for all that have no page of their own.
    folders: Arc<Folders>,
    /// Keep them true to the files, until the last of these pages is dropped.
    _following: Arc<Vec<AbortOnDropHandle<()>>>,
}

type Folders = BTreeMap<Option<ServiceName>, ArcSwap<Folder>>;

impl Pages {
    /// Reads the folders, by the service they are for (none: all services), and follows them until the last clone is
    /// dropped. Must be called within a tokio runtime.
    pub fn follow(paths: BTreeMap<Option<ServiceName>, PathBuf>) -> Self {
        let (mut folders, mut told) = (BTreeMap::new(), Vec::new());
        for (service, path) in &paths {
            let (pages, problems) = read(path);
            tell(&problems);
            folders.insert(service.clone(), ArcSwap::from_pointee(pages));
            told.push(problems);
        }
        let folders = Arc::new(folders);
        let follow = |((service, path), told)| {
            AbortOnDropHandle::new(tokio::spawn(follow_one(folders.clone(), service, path, told)))
        };
        let following = paths.into_iter().zip(told).map(follow).collect();
        Self { folders, _following: Arc::new(following) }
    }

    /// Gives `answer`, which is JSON, the form that the request wishes whose head is `request`.
    pub(crate) fn dress(
        &self,
        answer: &mut Answer,
        refusal: &Refusal,
        service: Option<&ServiceName>,
        request: &[u8],
    ) {
        let form = Form::choose(lines::values(request, "accept"));
        let known = answer.headers.iter().find(|(name, _)| *name == "x-request-id");
        let sent = || lines::values(request, "x-request-id").next();
        let id = known.map(|(_, id)| id.as_ref()).or_else(sent).unwrap_or_default();
        answer.body = match form {
            Form::Json => return,
            Form::Text => text(refusal, id),
            Form::Html => self.with_page(service, refusal.cause, |page| fill(page, refusal, id)),
        };
        if let Some(kind) = answer.headers.iter_mut().find(|(name, _)| *name == "content-type") {
            kind.1 = Cow::Borrowed(form.content_type());
        }
    }

    /// The most exact page: the service's before that of all, the cause's before that of its status.
    fn with_page<R>(&self, service: Option<&ServiceName>, cause: Cause, then: impl FnOnce(&str) -> R) -> R {
        let own = service.and_then(|service| self.folders.get(&Some(service.clone())));
        for folder in [own, self.folders.get(&None)].into_iter().flatten() {
            let folder = folder.load();
            if let Some(page) = names(cause).iter().find_map(|name| folder.get(name)) {
                return then(page);
            }
        }
        then(OURS)
    }
}

/// Reads one folder again whenever something in it changes. `told`: the problems that were.
async fn follow_one(
    folders: Arc<Folders>,
    service: Option<ServiceName>,
    path: PathBuf,
    mut told: Vec<String>,
) {
    let Some(folder) = folders.get(&service) else { return };
    let mut watch = fs_watch::watch(&path);
    loop {
        watch.next().await;
        let path = path.clone();
        let Ok((pages, problems)) = tokio::task::spawn_blocking(move || read(&path)).await else {
            return;
        };
        if problems != told {
            tell(&problems);
            told = problems;
        }
        if **folder.load() != pages {
            folder.store(Arc::new(pages));
        }
    }
}

/// What a page for `cause` may be called, the most exact name first.
fn names(cause: Cause) -> [String; 4] {
    let status = cause.status();
    [cause.as_str().to_owned(), status.to_string(), format!("{}xx", status / 100), "error".to_owned()]
}

fn tell(problems: &[String]) {
    for problem in problems {
        tracing::warn!("{problem}");
    }
}

/// The pages in a folder, and why the rest of it is not used.
fn read(folder: &Path) -> (Folder, Vec<String>) {
    let (mut pages, mut problems) = (Folder::new(), Vec::new());
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            problems.push(format!("cannot read the folder of error pages {}: {error}", folder.display()));
            return (pages, problems);
        }
    };
    let known: Vec<String> = Cause::ALL.iter().flat_map(|cause| names(*cause)).collect();
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let name =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".html"));
        let Some(name) = name else { continue };
        let page = if known.iter().any(|known| known == name) {
            read_page(&path)
        } else {
            let known = nearest(name, known.iter().map(String::as_str)).unwrap_or("503");
            Err(format!("no answer has this name; did you mean `{known}.html`?"))
        };
        match page {
            Ok(page) => drop(pages.insert(name.to_owned(), page)),
            Err(why) => problems.push(format!("the error page {} is not used: {why}", path.display())),
        }
    }
    (pages, problems)
}

fn read_page(path: &Path) -> Result<String, String> {
    let mut page = String::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(PAGE_MAX + 1).read_to_string(&mut page).map_err(|error| error.to_string())?;
    if page.len() as u64 > PAGE_MAX {
        return Err("it is larger than 1 MiB".to_owned());
    }
    Ok(page)
}

/// The forms of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// For programs, and for whoever does not say.
    Json,
    Html,
    Text,
}

impl Form {
    /// Of equals, the last one wins: JSON.
    const ALL: [Self; 3] = [Self::Text, Self::Html, Self::Json];

    /// What the client would rather have; JSON where it would have none of ours.
    fn choose<'a>(accept: impl Iterator<Item = &'a str>) -> Self {
        let wishes: Vec<_> = accept.flat_map(weight::items).collect();
        // How exactly a wish names a form, and how much it is wanted: the most exact wish speaks for the form.
        let wanted = |form: Self| {
            let matching = wishes.iter().filter_map(|(range, weight)| Some((form.matched(range)?, *weight)));
            matching.max_by_key(|(exactness, _)| *exactness).map_or((0, 0), |(exact, weight)| (weight, exact))
        };
        Self::ALL
            .into_iter()
            .max_by_key(|form| wanted(*form))
            .filter(|form| wanted(*form).0 > 0)
            .unwrap_or(Self::Json)
    }

    /// How exactly a range of media types names this form.
    fn matched(self, range: &str) -> Option<u8> {
        let is = |name: &str| range.eq_ignore_ascii_case(name);
        let (exact, family) = match self {
            Self::Json => (is("application/problem+json") || is("application/json"), is("application/*")),
            Self::Html => (is("text/html"), is("text/*")),
            Self::Text => (is("text/plain"), is("text/*")),
        };
        match (exact, family, is("*/*")) {
            (true, ..) => Some(3),
            (_, true, _) => Some(2),
            (_, _, true) => Some(1),
            _ => None,
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/problem+json",
            Self::Html => "text/html; charset=utf-8",
            Self::Text => "text/plain; charset=utf-8",
        }
    }
}

fn text(refusal: &Refusal, id: &str) -> String {
    let Refusal { cause, detail, .. } = refusal;
    let id = if id.is_empty() { String::new() } else { format!("request: {id}\n") };
    format!(
        "{} {} ({})\n{detail}\nhint: {}\n{id}",
        cause.status(),
        cause.title(),
        cause.as_str(),
        cause.hint()
    )
}

/// `page` with its placeholders replaced; what is none stays, so that style sheets need no escape.
fn fill(page: &str, refusal: &Refusal, id: &str) -> String {
    let cause = refusal.cause;
    let status = cause.status().to_string();
    let value = |name: &str| {
        Some(match name {
            "status" => status.as_str(),
            "cause" => cause.as_str(),
            "title" => cause.title(),
            "detail" => refusal.detail.as_ref(),
            "hint" => cause.hint(),
            "request_id" => id,
            _ => return None,
        })
    };
    let mut out = String::with_capacity(page.len() + 256);
    let mut rest = page;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let found = after.split_once('}').and_then(|(name, behind)| Some((value(name)?, behind)));
        rest = match found {
            Some((value, behind)) => {
                escape(value, &mut out);
                behind
            }
            None => {
                out.push('{');
                after
            }
        };
    }
    out.push_str(rest);
    out
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_chooses_the_form() {
        for (accept, form) in [
            (&["text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"][..], Form::Html),
            (&["*/*"], Form::Json),
            (&[], Form::Json),
            (&[""], Form::Json),
            (&["text/plain"], Form::Text),
            (&["TEXT/Plain;charset=utf-8"], Form::Text),
            (&["text/*"], Form::Html),
            (&["text/*;q=0.5, text/html;q=0"], Form::Text),
            (&["application/json, text/plain, */*"], Form::Json),
            (&["text/html;q=0.8, application/json;q=0.9"], Form::Json),
            (&["text/html", "application/problem+json;q=0.9"], Form::Html),
            (&["*/*;q=0.1, text/html;q=0.2"], Form::Html),
            (&["text/html;q=0"], Form::Json),
            (&["image/png"], Form::Json),
        ] {
            assert_eq!(Form::choose(accept.iter().copied()), form, "{accept:?}");
        }
    }

    #[test]
    fn placeholders_are_filled_and_escaped_and_the_rest_stays() {
        let refusal = Refusal::new(Cause::UnknownHost, "no `<b>\"&'`");
        let page = "a{b:c}{ {status} {title}|{cause}|{detail}|{request_id}|{nothing}{";
        assert_eq!(
            fill(page, &refusal, "<7>"),
            "a{b:c}{ 421 Misdirected Request|unknown-host|no `&lt;b&gt;&quot;&amp;&#39;`|&lt;7&gt;|{nothing}{"
        );
        let ours = fill(OURS, &refusal, "");
        assert!(ours.contains("<h1>421 Misdirected Request</h1>") && !ours.contains("{status}"), "{ours}");
        assert!(!ours.contains("http"), "it needs no other host");
    }

    #[test]
    fn the_most_exact_page_wins() {
        let folder = |names: &[&str]| {
            let page = |name: &&str| ((*name).to_owned(), (*name).to_owned());
            ArcSwap::from_pointee(names.iter().map(page).collect::<Folder>())
        };
        let app = ServiceName::from("app");
        let own = folder(&["no-current", "503", "5xx"]);
        let all = folder(&["502", "4xx", "error"]);
        let pages = Pages {
            folders: Arc::new(BTreeMap::from([(Some(app.clone()), own), (None, all)])),
            ..Pages::default()
        };
        for (service, cause, expected) in [
            (Some(&app), Cause::NoCurrent, "no-current"),
            (Some(&app), Cause::NotReady, "503"),
            (Some(&app), Cause::ConnectFailed, "5xx"),
            (Some(&app), Cause::UnknownHost, "4xx"),
            (None, Cause::NoCurrent, "error"),
            (None, Cause::ConnectFailed, "502"),
            (Some(&ServiceName::from("other")), Cause::BadRequest, "4xx"),
        ] {
            assert_eq!(pages.with_page(service, cause, str::to_owned), expected, "{cause:?}");
        }
        assert_eq!(Pages::default().with_page(None, Cause::NoCurrent, str::len), OURS.len());
    }

    #[test]
    fn what_is_no_page_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| fs::write(folder.path().join(name), text).unwrap();
        write("503.html", b"good");
        write("5xx.html", &[b'x'; PAGE_MAX as usize + 1]);
        write("4xx.html", b"\xff");
        write("nocurrent.html", b"a slip");
        write("style.css", b"");
        fs::create_dir(folder.path().join("error.html")).unwrap();
        let (pages, problems) = read(folder.path());
        assert_eq!(pages, Folder::from([("503".to_owned(), "good".to_owned())]));
        for part in
            ["4xx.html is not used", "5xx.html is not used: it is larger", "`no-current.html`?", "error.html"]
        {
            assert!(problems.iter().any(|problem| problem.contains(part)), "{part}: {problems:?}");
        }
        assert_eq!(problems.len(), 4, "a style sheet is nobody's business");
        assert!(read(&folder.path().join("none")).1[0].starts_with("cannot read the folder"));
    }
}
