//! Rule documents: what operators write, compiled to what each request is decided by.
//!
//! ```text
//! text --yaml--> Node --routes | flipr--> RuleTable --decide(request)--> Decision{to, route, ...}
//!        source::{file, etcd} -> publisher (keeps the last good) -> Published
//! ```
//!
//! Reading order: the request as rules see it, what a decision says, the table.

pub mod last_good;
pub mod publisher;
pub mod request;
pub mod source;
pub mod table;
