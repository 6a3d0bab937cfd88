//! Why a request goes where it goes: every route of a table with what it makes of the request.
//!
//! It asks the same functions as [`RuleTable::decide`], so that the two cannot tell different stories. For people,
//! not for the data plane: it allocates.

use std::borrow::Cow;

use crate::rules::condition::Failure;
use crate::rules::input::Reading;
use crate::rules::request::RequestView;
use crate::rules::route::{Goes, Route};
use crate::rules::table::{RuleTable, TargetId, To, Unavailable};

/// Every route in order, and the decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// Every route in order, also those after the one that decides.
    pub routes: Vec<RouteExplanation>,
    /// The version or alias that was chosen, as the document or the request names it.
    pub to: String,
    /// The route that decided; none for the default.
    pub route: Option<String>,
    /// What happens while that version is not ready.
    pub unavailable: Unavailable,
    /// The bucket (0..10000) where a percentage decided.
    pub bucket: Option<u16>,
    /// The cookie that would be set, because the request has no id.
    pub assign: Option<String>,
}

/// What one route makes of the request.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteExplanation {
    /// The route.
    pub route: String,
    /// Whether it would take the request, if no route before it did.
    pub matched: bool,
    /// Whether it is the one that decides.
    pub decides: bool,
    /// Where it would send the request.
    pub to: Option<String>,
    /// The first condition that did not hold.
    pub failed: Option<Failure>,
    /// What its percentages say; none without percentages or where a condition failed.
    pub split: Option<SplitExplanation>,
}

/// What a split makes of the request.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitExplanation {
    /// The input that holds the id.
    pub by: String,
    /// The id; none: the request has none.
    pub id: Option<String>,
    /// The id's bucket, 0..10000.
    pub bucket: Option<u16>,
    /// The arms in order, but for those without a bucket.
    pub arms: Vec<ArmExplanation>,
}

/// One arm of a split.
#[derive(Debug, Clone, PartialEq)]
pub struct ArmExplanation {
    /// The version or alias.
    pub to: String,
    /// Its first bucket.
    pub from: u16,
    /// The bucket after its last.
    pub until: u16,
}

impl RuleTable {
    /// Tells what every route makes of a request, and which decides.
    pub fn explain<R: RequestView>(&self, request: &R) -> Explanation {
        let reading = Reading::new(&self.inputs, request);
        let decision = self.decide(request);
        let routes =
            self.routes.iter().map(|route| self.explain_route(route, &reading, decision.route)).collect();
        Explanation {
            routes,
            to: self.name(decision.to),
            route: decision.route.map(str::to_owned),
            unavailable: decision.unavailable,
            bucket: decision.bucket,
            assign: decision.assign.map(str::to_owned),
        }
    }

    fn explain_route<'t: 'r, 'r, R: RequestView>(
        &'t self,
        route: &'t Route,
        reading: &Reading<'t, 'r, R>,
        decides: Option<&str>,
    ) -> RouteExplanation {
        let failed = route.when.failure(reading);
        let to = match failed {
            Some(_) => None,
            None => route.goes.choose(reading).to,
        };
        RouteExplanation {
            route: route.name.to_string(),
            matched: to.is_some(),
            decides: decides == Some(&route.name),
            to: to.map(|to| self.name(to)),
            split: if failed.is_none() { self.explain_split(&route.goes, reading) } else { None },
            failed: failed.or_else(|| match route.goes {
                Goes::Named(input) if to.is_none() => {
                    Some(Failure { condition: format!("{} exists", reading.input(input)), seen: None })
                }
                _ => None,
            }),
        }
    }

    fn explain_split<'t: 'r, 'r, R: RequestView>(
        &'t self,
        goes: &'t Goes,
        reading: &Reading<'t, 'r, R>,
    ) -> Option<SplitExplanation> {
        let (by, ends): (_, Vec<(TargetId, u16)>) = match goes {
            Goes::Split(split) => (split.by, split.arms.to_vec()),
            Goes::Percent(bands) => (bands.input, bands.ends().collect()),
            Goes::To(_) | Goes::Named(_) => return None,
        };
        let mut from = 0;
        let arms = ends
            .into_iter()
            .map(|(target, until)| {
                let arm = ArmExplanation { to: self.name(To::Target(target)), from, until };
                from = until;
                arm
            })
            .filter(|arm| arm.from < arm.until)
            .collect();
        Some(SplitExplanation {
            by: reading.input(by).to_string(),
            id: reading.text(by).map(Cow::into_owned),
            bucket: goes.choose(reading).bucket,
            arms,
        })
    }

    fn name(&self, to: To<'_>) -> String {
        match to {
            To::Target(target) => self.targets.get(target.0 as usize).cloned().unwrap_or_default(),
            To::Named(name) => name.to_owned(),
        }
    }
}
