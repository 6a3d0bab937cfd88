//! YAML as people wrote it: every node with its line and column, every scalar with its own text.
//!
//! Rule documents and the configuration are read from `Node`s rather than straight into structs for two
//! reasons: a hash like `0123456` or `12345e7` must be taken as it is written, and all problems of a file are
//! reported at once, each with its place. `granit-parser` does the parsing; this keeps what it says.

mod node;
mod reader;

pub use node::{Entry, Node, Place, Scalar, Value, parse, parse_all};
pub use reader::{Collector, Fields, Reader};
