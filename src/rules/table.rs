//! The compiled, immutable form of one rule document, and the decision it makes for a request.

use crate::rules::request::RequestView;

/// Index into [`RuleTable::targets`]. Distinct names only: a thousand routes to one version share one target,
/// which `routing` resolves to a version once a snapshot instead of once a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TargetId(pub u32);

/// What happens to a request whose version is not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unavailable {
    /// It goes to `current`.
    #[default]
    Current,
    /// It is answered with 503.
    Error,
    /// It waits for the version, within a bound.
    Wait,
}

/// Where a decision sends a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To<'r> {
    /// A version or alias that the document names.
    Target(TargetId),
    /// A version or alias that the request itself names (`to: "{header.x-version}"`).
    Named(&'r str),
}

/// Which version answers a request, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision<'t, 'r> {
    /// Where it goes.
    pub to: To<'r>,
    /// The route that matched; none for the document's default.
    pub route: Option<&'t str>,
    /// What to do when that version is not ready.
    pub unavailable: Unavailable,
    /// The bucket (0..10000) where a percentage decided.
    pub bucket: Option<u16>,
    /// The cookie to set to [`RequestView::new_id`], where an id was assigned.
    pub assign: Option<&'t str>,
}

/// The compiled form of one rule document.
#[derive(Debug)]
pub struct RuleTable {
    targets: Vec<String>,
    default: TargetId,
}

impl RuleTable {
    /// The table of a service without a document: everything goes to `current`.
    pub fn empty() -> Self {
        Self { targets: vec![crate::version::CURRENT.to_owned()], default: TargetId(0) }
    }

    /// The distinct versions and aliases that the document names, as written; [`TargetId`] indexes it.
    pub fn targets(&self) -> &[String] {
        &self.targets
    }

    /// Where requests go that no route takes.
    pub fn default(&self) -> TargetId {
        self.default
    }

    /// Each route's name with the targets that it may choose, in order: for "who sends traffic to this version".
    pub fn routes(&self) -> impl Iterator<Item = (&str, &[TargetId])> {
        std::iter::empty()
    }

    /// Chooses for one request. Pure, lock-free, without allocation.
    pub fn decide<'t, 'r, R: RequestView>(&'t self, _request: &'r R) -> Decision<'t, 'r> {
        Decision {
            to: To::Target(self.default),
            route: None,
            unavailable: Unavailable::Current,
            bucket: None,
            assign: None,
        }
    }
}
