//! `when`: inputs and their tests, joined by `all`, `any` and `not`.

use std::net::IpAddr;

use ipnet::IpNet;
use regex::{Regex, RegexBuilder};

use crate::hint::{self, Problem};
use crate::rules::builder::{Builder, join};
use crate::rules::condition::{Condition, Test, Words};
use crate::rules::input::{Input, InputId};
use crate::yaml::{Entry, Node, Place};

const WHEN_HINT: &str = "when: {header.x-qa: \"yes\"}";
const TESTS: [&str; 8] = ["equal", "in", "prefix", "suffix", "contains", "regex", "exists", "cidr"];
/// The memory that one compiled regex may take, in bytes.
const REGEX_SIZE_MAX: usize = 1 << 20;

/// Reads a map of conditions, all of which must hold.
pub(super) fn conditions(b: &mut Builder, node: &Node, key: &str) -> Option<Condition> {
    let entries = b.map(node, key, WHEN_HINT)?;
    if entries.is_empty() {
        let problem = Problem::error(key, "has no condition").hint("leave `when` out to take every request");
        b.report(node.place, problem);
        return None;
    }
    let read: Vec<Option<Condition>> = entries.iter().map(|entry| condition(b, entry, key)).collect();
    all(read)
}

/// One condition stands for itself; several must all hold; a missing one has been reported.
fn all(conditions: Vec<Option<Condition>>) -> Option<Condition> {
    let mut conditions = conditions.into_iter().collect::<Option<Vec<_>>>()?;
    match conditions.len() {
        1 => conditions.pop(),
        _ => Some(Condition::All(conditions.into_boxed_slice())),
    }
}

fn condition(b: &mut Builder, entry: &Entry, key: &str) -> Option<Condition> {
    let key = join(key, &entry.key);
    match entry.key.as_str() {
        "all" => Some(Condition::All(several(b, &entry.value, &key)?)),
        "any" => Some(Condition::Any(several(b, &entry.value, &key)?)),
        "not" => Some(Condition::Not(Box::new(conditions(b, &entry.value, &key)?))),
        name => {
            let input = match Input::parse(name) {
                Err(none) if !name.contains('.') => {
                    let near = hint::nearest(name, ["all", "any", "not"].into_iter().chain(TESTS));
                    let hint = match near {
                        Some(near) if TESTS.contains(&near) => {
                            format!("name what is tested: path: {{{near}: ...}}")
                        }
                        Some(near) if none.hint.starts_with("write") => format!("did you mean {near}?"),
                        _ => none.hint,
                    };
                    b.report(entry.place, Problem::error(key, none.message).hint(hint));
                    return None;
                }
                _ => b.input(name, entry.place, &key)?,
            };
            tests(b, input, &entry.value, &key)
        }
    }
}

/// The list below `all` or `any`.
fn several(b: &mut Builder, node: &Node, key: &str) -> Option<Box<[Condition]>> {
    let items = b.list(node, key, "write a list: [{path: /a}, {path: /b}]")?;
    if items.is_empty() {
        b.report(
            node.place,
            Problem::error(key, "an empty list").hint("write a list: [{path: /a}, {path: /b}]"),
        );
        return None;
    }
    let read: Vec<Option<Condition>> = items
        .iter()
        .enumerate()
        .map(|(index, item)| conditions(b, item, &format!("{key}[{index}]")))
        .collect();
    read.into_iter().collect()
}

/// What is asked of one input: a text, a list of texts, or a map of tests that all must hold.
fn tests(b: &mut Builder, input: InputId, node: &Node, key: &str) -> Option<Condition> {
    let test = |test| Condition::Test { input, test };
    if node.list().is_some() {
        return words(b, input, node, key).map(|words| test(Test::In(words)));
    }
    let Some(entries) = node.map() else {
        let text = b.text(node, key, "write a value, or {exists: true}")?;
        return word(b, input, text, node.place, key).map(|word| test(Test::Equal(word.into())));
    };
    b.unknown_keys(entries, &TESTS, key);
    if entries.is_empty() {
        b.report(
            node.place,
            Problem::error(key, "has no test").hint(format!("write one of {}", TESTS.join(", "))),
        );
    }
    let read = entries.iter().filter(|e| TESTS.contains(&e.key.as_str())).map(|entry| {
        let key = join(key, &entry.key);
        one_test(b, input, entry, &key).map(test)
    });
    let read: Vec<Option<Condition>> = read.collect();
    if read.is_empty() {
        return None;
    }
    all(read)
}

fn one_test(b: &mut Builder, input: InputId, entry: &Entry, key: &str) -> Option<Test> {
    let node = &entry.value;
    match entry.key.as_str() {
        "in" => return words(b, input, node, key).map(Test::In),
        "cidr" => return networks(b, input, node, key).map(|networks| Test::Cidr(networks.into())),
        "exists" => {
            let wanted = node.scalar().and_then(|s| s.as_bool());
            if wanted.is_none() {
                let message = format!("{} is neither true nor false", node.describe());
                b.report(node.place, Problem::error(key, message).hint("exists: true"));
            }
            return wanted.map(Test::Exists);
        }
        _ => {}
    }
    let text = b.text(node, key, "write a text")?;
    if entry.key == "regex" {
        return regex(b, input, text, node.place, key).map(Test::Regex);
    }
    if entry.key == "equal" {
        return word(b, input, text, node.place, key).map(|word| Test::Equal(word.into()));
    }
    let part = match b.known_input(input) {
        Some(Input::Host) => text.to_ascii_lowercase(),
        _ => text.to_owned(),
    };
    if part.is_empty() {
        b.report(node.place, Problem::error(key, "an empty text is in every value").hint("exists: true"));
        return None;
    }
    match entry.key.as_str() {
        "prefix" => {
            warn_about_path(b, input, &part, node.place, key);
            Some(Test::Prefix(part.into()))
        }
        "suffix" => Some(Test::Suffix(part.into())),
        _ => Some(Test::Contains(part.into())),
    }
}

fn words(b: &mut Builder, input: InputId, node: &Node, key: &str) -> Option<Words> {
    let items = b.list(node, key, "write a list: [a, b]")?;
    if items.is_empty() {
        b.report(
            node.place,
            Problem::error(key, "an empty list holds no value").hint("write a list: [a, b]"),
        );
        return None;
    }
    let read: Vec<Option<String>> = items
        .iter()
        .enumerate()
        .map(|(index, item)| {
            let key = format!("{key}[{index}]");
            let text = b.text(item, &key, "write a text")?;
            word(b, input, text, item.place, &key)
        })
        .collect();
    read.into_iter().collect()
}

/// A whole value to compare with, in the form that the input is read in.
fn word(b: &mut Builder, input: InputId, text: &str, place: Place, key: &str) -> Option<String> {
    match b.known_input(input) {
        Some(Input::Host) => {
            if let Some((host, _)) =
                text.split_once(':').filter(|(_, port)| port.bytes().all(|c| c.is_ascii_digit()))
            {
                let message = format!("`{text}` is never a host: hosts are compared without their port");
                b.report(place, Problem::warning(key, message).hint(host));
            }
            Some(text.to_ascii_lowercase())
        }
        Some(Input::ClientIp) => match text.parse::<IpAddr>() {
            Ok(ip) => Some(ip.to_canonical().to_string()),
            Err(_) => {
                let problem = Problem::error(key, format!("`{text}` is no IP address"));
                b.report(place, problem.hint("write 10.1.2.3, or {cidr: 10.0.0.0/8} for a network"));
                None
            }
        },
        Some(Input::Method) => {
            if text.bytes().any(|c| c.is_ascii_lowercase()) {
                let message = format!("`{text}` is never a method: methods are upper-case");
                b.report(place, Problem::warning(key, message).hint(text.to_ascii_uppercase()));
            }
            Some(text.to_owned())
        }
        _ => {
            warn_about_path(b, input, text, place, key);
            Some(text.to_owned())
        }
    }
}

fn warn_about_path(b: &mut Builder, input: InputId, text: &str, place: Place, key: &str) {
    if b.known_input(input) == Some(&Input::Path) && !text.starts_with(['/', '*']) {
        let message = format!("`{text}` never begins a path: paths begin with `/`");
        b.report(place, Problem::warning(key, message).hint(format!("/{text}")));
    }
}

fn regex(b: &mut Builder, input: InputId, text: &str, place: Place, key: &str) -> Option<Regex> {
    let built = RegexBuilder::new(text)
        .size_limit(REGEX_SIZE_MAX)
        .dfa_size_limit(REGEX_SIZE_MAX)
        .case_insensitive(b.known_input(input) == Some(&Input::Host))
        .build();
    match built {
        Ok(regex) => Some(regex),
        Err(regex::Error::CompiledTooBig(limit)) => {
            let message = format!("the regex `{text}` needs more than {limit} bytes");
            b.report(place, Problem::error(key, message).hint("use fewer or smaller repetitions"));
            None
        }
        Err(error) => {
            // The crate draws the regex with a mark below; its last line says what is wrong.
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default().trim().trim_start_matches("error: ");
            let hint = match reason.contains("look-around") || reason.contains("backreferences") {
                true => "leave it out: combine conditions with all, any and not instead",
                false => "escape special characters with a backslash, and write the regex in single quotes",
            };
            b.report(place, Problem::error(key, format!("the regex `{text}` is wrong: {reason}")).hint(hint));
            None
        }
    }
}

fn networks(b: &mut Builder, input: InputId, node: &Node, key: &str) -> Option<Vec<IpNet>> {
    if b.known_input(input) != Some(&Input::ClientIp) {
        let name = b.known_input(input).map(Input::to_string).unwrap_or_default();
        let problem = Problem::error(key, format!("`{name}` is no address"));
        b.report(node.place, problem.hint("client.ip: {cidr: 10.0.0.0/8}"));
        return None;
    }
    let one = std::slice::from_ref(node);
    let items = node.list().unwrap_or(one);
    if items.is_empty() {
        b.report(node.place, Problem::error(key, "an empty list holds no network").hint("cidr: 10.0.0.0/8"));
        return None;
    }
    let read: Vec<Option<IpNet>> = items
        .iter()
        .map(|item| {
            let text = b.text(item, key, "cidr: 10.0.0.0/8")?;
            let network = network(text);
            if network.is_none() {
                let message = format!("`{text}` is no network; {ALL_NETWORKS}");
                b.report(item.place, Problem::error(key, message).hint("cidr: 10.0.0.0/8"));
            }
            network
        })
        .collect();
    read.into_iter().collect()
}

const ALL_NETWORKS: &str = "a network is an address, a slash and the number of its leading bits";

/// An address with a prefix length, or one address alone. An IPv4-mapped network is that of IPv4.
fn network(text: &str) -> Option<IpNet> {
    /// The bits before the IPv4 address in an IPv4-mapped one.
    const MAPPED: u8 = 96;
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    match (network.addr().to_canonical(), network.prefix_len().checked_sub(MAPPED)) {
        (IpAddr::V4(ip), Some(len)) if network.addr().is_ipv6() => IpNet::new(IpAddr::V4(ip), len).ok(),
        _ => Some(network),
    }
}
