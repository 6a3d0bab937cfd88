//! The compiled, immutable form of one rule document, and the decision it makes for a request.

use crate::rules::input::{Input, Reading};
use crate::rules::request::RequestView;
use crate::rules::route::Route;
use crate::yaml::Place;

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

impl Unavailable {
    /// The word that documents, JSON and logs use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Error => "error",
            Self::Wait => "wait",
        }
    }
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

/// The compiled form of one rule document: its routes in order, and what they share.
#[derive(Debug)]
pub struct RuleTable {
    /// The distinct inputs that conditions and percentages look at.
    pub(crate) inputs: Box<[Input]>,
    /// Distinct names of versions and aliases.
    pub(crate) targets: Vec<String>,
    /// Where each target first stands in the document.
    pub(crate) places: Vec<Option<Place>>,
    pub(crate) routes: Box<[Route]>,
    pub(crate) default: TargetId,
}

impl RuleTable {
    /// The table of a service without a document: everything goes to `current`.
    pub fn empty() -> Self {
        Self {
            inputs: Box::default(),
            targets: vec![crate::version::CURRENT.to_owned()],
            places: vec![None],
            routes: Box::default(),
            default: TargetId(0),
        }
    }

    /// The distinct versions and aliases that the document names, as written; [`TargetId`] indexes it.
    pub fn targets(&self) -> &[String] {
        &self.targets
    }

    /// Line and column (from 1) where a target first stands in the document; none for the implied `current` and
    /// for what only routes beside the document name.
    pub fn target_place(&self, target: TargetId) -> Option<(usize, usize)> {
        let place = (*self.places.get(target.0 as usize)?)?;
        Some((place.line, place.column))
    }

    /// Where requests go that no route takes.
    pub fn default(&self) -> TargetId {
        self.default
    }

    /// Each route's name with the targets that it may choose, in order: for "who sends traffic to this version".
    pub fn routes(&self) -> impl Iterator<Item = (&str, &[TargetId])> {
        self.routes.iter().map(|route| (route.name.as_ref(), route.targets.as_ref()))
    }

    /// Chooses for one request: the first route in order that takes it, else the default. Pure and lock-free; for a
    /// routes document it allocates only where a query value that is asked for is encoded or the host is not lower-case.
    pub fn decide<'t: 'r, 'r, R: RequestView>(&'t self, request: &'r R) -> Decision<'t, 'r> {
        let reading = Reading::new(&self.inputs, request);
        let mut assign = None;
        for route in &self.routes {
            if !route.when.holds(&reading) {
                continue;
            }
            let choice = route.goes.choose(&reading);
            assign = assign.or(choice.assign);
            if let Some(to) = choice.to {
                return Decision {
                    to,
                    route: Some(&route.name),
                    unavailable: route.unavailable,
                    bucket: choice.bucket,
                    assign,
                };
            }
        }
        Decision {
            to: To::Target(self.default),
            route: None,
            unavailable: Unavailable::Current,
            bucket: None,
            assign,
        }
    }
}
