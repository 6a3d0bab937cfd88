//! Users and groups, by name or number, as the system's user database knows them.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use super::{Account, Person, wrong};
use crate::hint::Problem;
use crate::yaml::Fields;

/// As whom the service's workers run. `is_root`: whether switchman may start them as somebody else.
pub(super) fn account(fields: &Fields<'_>, is_root: bool) -> Option<Account> {
    let (user, group) = (fields.get("user"), fields.get("group"));
    let at = user.as_ref().or(group.as_ref())?;
    if !is_root {
        let hint = "start switchman as root, or remove it: workers then run as switchman does";
        at.error("only root may start workers as somebody else", hint);
        return None;
    }
    let group = match group {
        Some(reader) => Some(reader.value(group_named)?),
        None => None,
    };
    let Some(reader) = user else {
        // Another group alone: the user stays.
        let gid = group?;
        return Some(Account { uid: Uid::effective().as_raw(), gid, groups: vec![gid], person: None });
    };
    reader.value(|text| user_named(text, group))
}

/// The account of a user, by name or number; `group` in place of its own one.
fn user_named(text: &str, group: Option<u32>) -> Result<Account, Box<Problem>> {
    let (found, number) = match text.parse::<u32>() {
        Ok(number) => (User::from_uid(Uid::from_raw(number)), Some(number)),
        Err(_) => (User::from_name(text), None),
    };
    let unread = |error| wrong(format!("the user `{text}` cannot be looked up: {error}"), "getent passwd");
    match (found.map_err(unread)?, number, group) {
        (Some(user), ..) => {
            let gid = group.unwrap_or(user.gid.as_raw());
            let groups = CString::new(user.name.as_str())
                .ok()
                .and_then(|name| getgrouplist(&name, Gid::from_raw(gid)).ok())
                .map_or_else(|| vec![gid], |groups| groups.into_iter().map(Gid::as_raw).collect());
            let person = Person { name: user.name, home: user.dir, shell: user.shell };
            Ok(Account { uid: user.uid.as_raw(), gid, groups, person: Some(person) })
        }
        // A number needs no name: images of containers have many that nobody gave one.
        (None, Some(uid), Some(gid)) => Ok(Account { uid, gid, groups: vec![gid], person: None }),
        (None, Some(_), None) => {
            let message = format!("no user has the number {text}, so its group is not known");
            Err(wrong(message, format!("say the group too, as in `group: {text}`")))
        }
        (None, None, _) => {
            let hint =
                format!("make it: useradd --system --user-group {text}; see who there is: getent passwd");
            Err(wrong(format!("there is no user `{text}` on this machine"), hint))
        }
    }
}

fn group_named(text: &str) -> Result<u32, Box<Problem>> {
    if let Ok(number) = text.parse::<u32>() {
        return Ok(number);
    }
    match Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => {
            let hint = format!("make it: groupadd --system {text}; see which there are: getent group");
            Err(wrong(format!("there is no group `{text}` on this machine"), hint))
        }
        Err(error) => Err(wrong(format!("the group `{text}` cannot be looked up: {error}"), "getent group")),
    }
}
