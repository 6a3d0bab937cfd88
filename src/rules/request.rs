//! A request as rules see it, whatever carries it: the data plane's parsed head, an explain call, a test.

use std::net::IpAddr;

/// What rules may ask of a request. Nothing here allocates on the data plane.
pub trait RequestView {
    /// The method, as sent.
    fn method(&self) -> &str;
    /// The path without the query, as sent (not decoded).
    fn path(&self) -> &str;
    /// What follows the first `?`, if there is one.
    fn query(&self) -> Option<&str>;
    /// The host without the port, as sent.
    fn host(&self) -> &str;
    /// The client's address (that of the connection, or what a trusted proxy said).
    fn client_ip(&self) -> Option<IpAddr>;
    /// All values of a header, in order; `name` is lower-case. Values that are not UTF-8 are left out.
    fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str>;
    /// An id for a client that has none (`assign: true`): made at the first call, the same for this request.
    fn new_id(&self) -> &str;

    /// The first value of a header; `name` is lower-case.
    fn header<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.headers(name).next()
    }

    /// The first cookie of that name; its value without surrounding quotes.
    fn cookie<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.headers("cookie").flat_map(|line| line.split(';')).find_map(|pair| {
            let (key, value) = pair.trim().split_once('=')?;
            (key == name).then(|| value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value))
        })
    }
}

/// A request written down: for `explain` and for tests. Nothing is parsed; the host is without its port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlainRequest {
    /// The method.
    pub method: String,
    /// The path without the query.
    pub path: String,
    /// What follows the `?`.
    pub query: Option<String>,
    /// The host without the port.
    pub host: String,
    /// The client's address.
    pub client_ip: Option<IpAddr>,
    /// Names (in any case) and values, in order.
    pub headers: Vec<(String, String)>,
}

impl PlainRequest {
    /// What [`RequestView::new_id`] gives: nothing is assigned to a request that is only written down.
    pub const NEW_ID: &str = "new-id";

    /// `GET` of a path that may carry a query.
    pub fn get(path_and_query: &str) -> Self {
        let (path, query) = match path_and_query.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (path_and_query, None),
        };
        Self { method: "GET".to_owned(), path: path.to_owned(), query, ..Self::default() }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl RequestView for PlainRequest {
    fn method(&self) -> &str {
        &self.method
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    fn host(&self) -> &str {
        &self.host
    }

    fn client_ip(&self) -> Option<IpAddr> {
        self.client_ip
    }

    fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    fn new_id(&self) -> &str {
        Self::NEW_ID
    }
}
