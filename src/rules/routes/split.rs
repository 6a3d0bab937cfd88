//! `split: {4f2a91c: 5%, beta: 10%}` with `by`, `salt` and `assign`.

use super::{Key, Settings};
use crate::hint::Problem;
use crate::rules::bucket::{BUCKETS, Percentage};
use crate::rules::builder::{Builder, join};
use crate::rules::input::{Input, InputId};
use crate::rules::route::Split;
use crate::rules::table::TargetId;
use crate::yaml::Node;

const SPLIT_HINT: &str = "split: {4f2a91c: 5%}";

/// Reads the split of a route; `route` is the whole route.
pub(super) fn split(
    b: &mut Builder,
    route: &Node,
    split: &Node,
    key: &str,
    settings: &Settings,
) -> Option<Split> {
    let by = by(b, route, split, key, settings);
    let assign = assign(b, route, by, key);
    let salt = match route.get("salt") {
        Some(node) => b.text(node, &join(key, "salt"), "salt: app-2026"),
        None => Some(settings.salt.as_ref()),
    };
    let arms = arms(b, split, &join(key, "split"));
    Some(Split { by: by?, assign: assign?, salt: salt?.into(), arms: arms? })
}

fn by(b: &mut Builder, route: &Node, split: &Node, key: &str, settings: &Settings) -> Option<InputId> {
    let key = join(key, "by");
    match (route.get("by"), settings.key) {
        (Some(node), _) => {
            let text = b.text(node, &key, "by: cookie.uid")?;
            b.input(text, node.place, &key)
        }
        (None, Key::Input(input)) => Some(input),
        (None, Key::Wrong) => None,
        (None, Key::Missing) => {
            let problem = Problem::error(key, "nothing says which id the percentages go by")
                .hint("add `by: cookie.uid` to the route, or `key: cookie.uid` to the document");
            b.report(split.place, problem);
            None
        }
    }
}

/// The cookie to assign, if any; `None` is a problem that has been reported.
fn assign(b: &mut Builder, route: &Node, by: Option<InputId>, key: &str) -> Option<Option<Box<str>>> {
    let Some(node) = route.get("assign") else { return Some(None) };
    let key = join(key, "assign");
    let Some(wanted) = node.scalar().and_then(|s| s.as_bool()) else {
        let message = format!("{} is neither true nor false", node.describe());
        b.report(node.place, Problem::error(key, message).hint("assign: true"));
        return None;
    };
    if !wanted {
        return Some(None);
    }
    match b.known_input(by?).cloned() {
        Some(Input::Cookie(name)) => {
            b.assign(&name, node.place, &key);
            Some(Some(name.into()))
        }
        Some(other) => {
            let problem = Problem::error(key, format!("an id can be assigned in a cookie, not in {other}"))
                .hint("by: cookie.uid");
            b.report(node.place, problem);
            None
        }
        None => None,
    }
}

fn arms(b: &mut Builder, split: &Node, key: &str) -> Option<Box<[(TargetId, u16)]>> {
    let entries = b.map(split, key, SPLIT_HINT)?;
    if entries.is_empty() {
        b.report(split.place, Problem::error(key, "an empty split sends nobody").hint(SPLIT_HINT));
    }
    let mut arms = Vec::new();
    let mut sum = 0_u32;
    for entry in entries {
        let key = join(key, &entry.key);
        let target = b.target(&entry.key, entry.place, &key);
        let Some(text) = b.text(&entry.value, &key, SPLIT_HINT) else { continue };
        match Percentage::parse(text) {
            Ok(percentage) => {
                sum += u32::from(percentage.0);
                if let (Some(target), Ok(end)) = (target, u16::try_from(sum)) {
                    arms.push((target, end));
                }
            }
            Err(none) => {
                b.report(entry.value.place, Problem::error(key, none.message).hint(none.hint));
            }
        }
    }
    if sum > u32::from(BUCKETS) {
        let message = format!("the percentages add up to {}.{:02} %, over 100 %", sum / 100, sum % 100);
        b.report(
            split.place,
            Problem::error(key, message).hint("lower them; what is left over goes on to the next route"),
        );
        return None;
    }
    (arms.len() == entries.len() && !arms.is_empty()).then(|| arms.into_boxed_slice())
}
