//! The source that needs nothing but files: the rule document where the operator keeps it, aliases and history
//! under `state`.

pub(crate) mod aliases;
pub(crate) mod document;
