//! One compiled route: its condition, and where it sends the requests that meet it.

use crate::rules::bucket::bucket;
use crate::rules::condition::Condition;
use crate::rules::flipr::PercentBands;
use crate::rules::input::{InputId, Reading};
use crate::rules::request::RequestView;
use crate::rules::table::{TargetId, To, Unavailable};

/// One route of a rule table.
#[derive(Debug)]
pub(crate) struct Route {
    /// Its name, unique in the table and printable.
    pub(crate) name: Box<str>,
    /// Which requests it is meant for.
    pub(crate) when: Condition,
    /// Where it sends them.
    pub(crate) goes: Goes,
    /// What happens while that version is not ready.
    pub(crate) unavailable: Unavailable,
    /// The targets that `goes` may choose.
    pub(crate) targets: Box<[TargetId]>,
}

/// Where a route sends requests.
#[derive(Debug)]
pub(crate) enum Goes {
    /// All to one version or alias.
    To(TargetId),
    /// To the version that the request names.
    Named(InputId),
    /// Some of them by the bucket of an id; the others go on to the next route.
    Split(Split),
    /// The same with flipr's hash and order.
    Percent(PercentBands),
}

/// The division of requests by the bucket of an id.
#[derive(Debug)]
pub(crate) struct Split {
    /// The id.
    pub(crate) by: InputId,
    /// Hashed before the id, so that different splits choose different people.
    pub(crate) salt: Box<str>,
    /// The arms in order, each with the bucket that it ends before.
    pub(crate) arms: Box<[(TargetId, u16)]>,
    /// The cookie that is set for a request without an id; without it such a request takes no part.
    pub(crate) assign: Option<Box<str>>,
}

/// What a route makes of a request that meets its condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Choice<'t, 'r> {
    /// Where it goes; none: on to the next route.
    pub(crate) to: Option<To<'r>>,
    /// The bucket, where a percentage had to decide.
    pub(crate) bucket: Option<u16>,
    /// The cookie to set, also where the request goes on: the next request must fall into the same bucket.
    pub(crate) assign: Option<&'t str>,
}

impl Goes {
    /// Chooses for a request that meets the route's condition.
    pub(crate) fn choose<'t: 'r, 'r, R: RequestView>(
        &'t self,
        reading: &Reading<'t, 'r, R>,
    ) -> Choice<'t, 'r> {
        let certain = |to| Choice { to, bucket: None, assign: None };
        match self {
            Self::To(target) => certain(Some(To::Target(*target))),
            Self::Named(input) => certain(reading.input(*input).raw(reading.request()).map(To::Named)),
            Self::Split(split) => split.choose(reading),
            Self::Percent(bands) => match reading.text(bands.input) {
                None => certain(None),
                Some(id) => {
                    let (target, bucket) = bands.choose(&id);
                    Choice { to: target.map(To::Target), bucket: Some(bucket), assign: None }
                }
            },
        }
    }
}

impl Split {
    /// The targets of the arms that have a share.
    pub(crate) fn targets(&self) -> impl Iterator<Item = TargetId> {
        let starts = [0].into_iter().chain(self.arms.iter().map(|(_, end)| *end));
        self.arms.iter().zip(starts).filter(|((_, end), start)| end > start).map(|((target, _), _)| *target)
    }

    fn choose<'t: 'r, 'r, R: RequestView>(&'t self, reading: &Reading<'t, 'r, R>) -> Choice<'t, 'r> {
        // An empty id is none: everybody who has it would share one bucket.
        let known = reading.text(self.by).filter(|id| !id.is_empty());
        let (bucket, assign) = match (known, self.assign.as_deref()) {
            (Some(id), _) => (bucket(&self.salt, &id), None),
            (None, Some(cookie)) => (bucket(&self.salt, reading.request().new_id()), Some(cookie)),
            (None, None) => return Choice { to: None, bucket: None, assign: None },
        };
        let arm = self.arms.iter().find(|(_, end)| bucket < *end);
        Choice { to: arm.map(|(target, _)| To::Target(*target)), bucket: Some(bucket), assign }
    }
}
