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
