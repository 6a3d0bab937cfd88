//! A strict reader of requests, made for the tests on `httparse`: what it cannot read in one way is an error.

/// One request: method, target, body; and the head that it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) body: String,
    pub(super) head: String,
}

/// The first request of `bytes` and how many bytes it takes; none while it is not whole.
pub(super) fn first(bytes: &[u8]) -> Result<Option<(Read, usize)>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(bytes).map_err(|e| e.to_string())? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(head) => head,
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    if text.replace("\r\n", "").contains(['\r', '\n']) || text.starts_with("\r\n") {
        return Err(format!("a line end that is none: {text:?}"));
    }
    if request.version != Some(1) {
        return Err(format!("not HTTP/1.1: {text:?}"));
    }
    let all = |name: &str| {
        let named = request.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| String::from_utf8_lossy(header.value).into_owned()).collect::<Vec<_>>()
    };
    if all("host").len() != 1 {
        return Err(format!("not one Host: {text:?}"));
    }
    let body = match (all("content-length").as_slice(), all("transfer-encoding").as_slice()) {
        ([], []) => Some((String::new(), 0)),
        ([length], []) => {
            let length: usize = length.parse().map_err(|_| format!("no length: {text:?}"))?;
            let body = bytes.get(head..head + length);
            body.map(|body| (String::from_utf8_lossy(body).into_owned(), length))
        }
        ([], [coding]) if coding == "chunked" => chunks(&bytes[head..])?,
        _ => return Err(format!("a body of two lengths: {text:?}")),
    };
    Ok(body.map(|(body, length)| {
        let method = request.method.unwrap().to_owned();
        (Read { method, target: request.path.unwrap().to_owned(), body, head: text }, head + length)
    }))
}

/// A chunked body and the bytes it takes; none while it is not whole.
fn chunks(bytes: &[u8]) -> Result<Option<(String, usize)>, String> {
    let (mut at, mut body) = (0, Vec::new());
    loop {
        let (from, size) = match httparse::parse_chunk_size(&bytes[at..]).map_err(|e| format!("{e:?}"))? {
            httparse::Status::Partial => return Ok(None),
            httparse::Status::Complete(found) => found,
        };
        at += from;
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).unwrap();
        let Some(chunk) = bytes.get(at..at + size + 2) else { return Ok(None) };
        let (data, end) = chunk.split_at(size);
        if end != b"\r\n" {
            return Err("a chunk without its end".to_owned());
        }
        body.extend_from_slice(data);
        at += size + 2;
    }
    let mut trailers = [httparse::EMPTY_HEADER; 16];
    match httparse::parse_headers(&bytes[at..], &mut trailers).map_err(|e| e.to_string())? {
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete((length, _)) => {
            Ok(Some((String::from_utf8_lossy(&body).into_owned(), at + length)))
        }
    }
}
