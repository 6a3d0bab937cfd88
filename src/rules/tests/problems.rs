//! What is said about documents that cannot be meant so: place, key, value, and what to write.

use super::*;

/// Each problem as `line:column key: message | hint`.
fn problems(text: &str) -> Vec<String> {
    let problems = match compile(text, &CONTEXT) {
        Ok(compiled) => compiled.warnings,
        Err(problems) => problems,
    };
    let show = |p: &crate::hint::Problem| {
        assert_eq!(p.file.as_deref(), Some("rules.yaml"));
        let place = format!("{}:{}", p.line.unwrap_or(0), p.column.unwrap_or(0));
        format!("{place} {}: {} | {}", p.key, p.message, p.hint.as_deref().unwrap_or_default())
    };
    problems.0.iter().map(show).collect()
}

#[test]
fn every_slip_is_answered_with_its_place_and_a_hint() {
    let route = |route: &str| format!("routes: [{{{route}}}]");
    let when = |when: &str| route(&format!("to: v1, when: {when}"));
    let split = |split: &str| route(&format!("by: path, split: {split}"));
    let mut wrong = Vec::new();
    for (text, expected) in [
        ("42".to_owned(), "1:1 : `42` stands where the document must be | begin with `default: current` or `routes:`; docs/rules.md has examples"),
        ("- a".to_owned(), "1:1 : a list stands where the document must be | begin with `default: current` or `routes:`; docs/rules.md has examples"),
        ("defualt: v1".to_owned(), "1:1 defualt: `defualt` is not known here; known are default, key, salt, routes | did you mean default?"),
        ("tests: []".to_owned(), "1:1 tests: `tests` is not known here; known are default, key, salt, routes | remove it"),
        ("default: [a]".to_owned(), "1:10 default: a list stands where a text must be | default: current"),
        ("default: a b".to_owned(), "1:10 default: `a b` cannot be a version or an alias | write a version (4f2a91c) or an alias (current)"),
        ("key: uid".to_owned(), "1:6 key: `uid` is nothing that a request has | write one of header.NAME, cookie.NAME, query.NAME, path, host, method, client.ip"),
        ("routes: {a: b}".to_owned(), "1:9 routes: a map stands where a list must be | begin each route with `- `"),
        ("routes: [to]".to_owned(), "1:10 routes[0]: `to` stands where a map must be | write `{when: {header.x-qa: \"yes\"}, to: 4f2a91c}`"),
        (route("redirect: /x, to: v1"), "1:11 routes[0].redirect: `redirect` is not known here; known are name, when, to, split, by, salt, assign, unavailable | remove it"),
        (route("when: {path: /}"), "1:10 routes[0]: says nowhere to go | add `to: 4f2a91c`, or `split: {4f2a91c: 5%}`"),
        (route("to: v1, split: {a: 1%}, by: path"), "1:26 routes[0]: has both `to` and `split` | keep one of them"),
        (route("to: v1, assign: true"), "1:19 routes[0].assign: `assign` belongs to a `split`, and this route has none | remove it"),
        (route("to:"), "1:13 routes[0].to: nothing stands where a text must be | to: 4f2a91c"),
        (route("to: {header.x-version}"), "1:15 routes[0].to: a map stands where a version must be | quote an input: to: \"{header.x-version}\""),
        (route("to: 'v-{header.x}'"), "1:15 routes[0].to: `v-{header.x}` mixes an input with other text | the input must be the whole value: to: \"{header.x-version}\""),
        (route("to: '{header.x'"), "1:15 routes[0].to: `{header.x` mixes an input with other text | the input must be the whole value: to: \"{header.x-version}\""),
        (route("to: '{path}'"), "1:15 routes[0].to: `path` cannot name a version | a header, a cookie or a query parameter can: to: \"{header.x-version}\""),
        (route("to: '{headers.v}'"), "1:15 routes[0].to: `headers.v` is nothing that a request has | did you mean header.v?"),
        (route("to: v1, unavailable: never"), "1:32 routes[0].unavailable: `never` is no way to meet a version that is not ready | write current, error or wait"),
        (route("name: \"a\\nb\", to: v1"), "1:17 routes[0].name: \"a\\nb\" cannot be the name of a route | use up to 200 printable ASCII characters: it goes into headers and logs"),
        (route("name: x, to: v1, when: {path: /}}, {name: x, to: v1"), "1:53 routes[1].name: the name `x` is already that of another route | name one of them differently, as in x-2"),
        (route("to: v1}, {to: v2"), "1:20 routes[1]: is never reached: the route `route-1` before it takes every request | put it before `route-1`, or give `route-1` a `when`"),
        // Conditions.
        (when("yes"), "1:25 routes[0].when: `yes` stands where a map must be | when: {header.x-qa: \"yes\"}"),
        (when("{}"), "1:25 routes[0].when: has no condition | leave `when` out to take every request"),
        (when("{headers.x-qa: 1}"), "1:26 routes[0].when.headers.x-qa: `headers.x-qa` is nothing that a request has | did you mean header.x-qa?"),
        (when("{an: []}"), "1:26 routes[0].when.an: `an` is nothing that a request has | did you mean any?"),
        (when("{prefix: /a}"), "1:26 routes[0].when.prefix: `prefix` is nothing that a request has | name what is tested: path: {prefix: ...}"),
        (when("{time: now}"), "1:26 routes[0].when.time: `time` is nothing that a request has | write one of header.NAME, cookie.NAME, query.NAME, path, host, method, client.ip"),
        (when("{header.a b: 1}"), "1:26 routes[0].when.header.a b: `a b` cannot be the name of a header | write the header's name after the dot, as in header.uid"),
        (when("{header.x: }"), "1:34 routes[0].when.header.x: nothing stands where a text must be | write a value, or {exists: true}"),
        (when("{header.x: []}"), "1:36 routes[0].when.header.x: an empty list holds no value | write a list: [a, b]"),
        (when("{header.x: [[a]]}"), "1:37 routes[0].when.header.x[0]: a list stands where a text must be | write a text"),
        (when("{header.x: {}}"), "1:36 routes[0].when.header.x: has no test | write one of equal, in, prefix, suffix, contains, regex, exists, cidr"),
        (when("{header.x: {prefx: a}}"), "1:37 routes[0].when.header.x.prefx: `prefx` is not known here; known are equal, in, prefix, suffix, contains, regex, exists, cidr | did you mean prefix?"),
        (when("{header.x: {prefix: ''}}"), "1:45 routes[0].when.header.x.prefix: an empty text is in every value | exists: true"),
        (when("{header.x: {exists: yes}}"), "1:45 routes[0].when.header.x.exists: `yes` is neither true nor false | exists: true"),
        (when("{header.x: {regex: '(a'}}"), "1:44 routes[0].when.header.x.regex: the regex `(a` is wrong: unclosed group | escape special characters with a backslash, and write the regex in single quotes"),
        (when("{header.x: {regex: '(?=a)'}}"), "1:44 routes[0].when.header.x.regex: the regex `(?=a)` is wrong: look-around, including look-ahead and look-behind, is not supported | leave it out: combine conditions with all, any and not instead"),
        (when("{header.x: {regex: '\\w{999}{99}'}}"), "1:44 routes[0].when.header.x.regex: the regex `\\w{999}{99}` needs more than 1048576 bytes | use fewer or smaller repetitions"),
        (when("{header.x: {cidr: 10.0.0.0/8}}"), "1:43 routes[0].when.header.x.cidr: `header.x` is no address | client.ip: {cidr: 10.0.0.0/8}"),
        (when("{client.ip: {cidr: 10.0.0.0/33}}"), "1:44 routes[0].when.client.ip.cidr: `10.0.0.0/33` is no network; a network is an address, a slash and the number of its leading bits | cidr: 10.0.0.0/8"),
        (when("{client.ip: 10.0.0.0/8}"), "1:37 routes[0].when.client.ip: `10.0.0.0/8` is no IP address | write 10.1.2.3, or {cidr: 10.0.0.0/8} for a network"),
        (when("{any: {path: /a}}"), "1:31 routes[0].when.any: a map stands where a list must be | write a list: [{path: /a}, {path: /b}]"),
        (when("{all: []}"), "1:31 routes[0].when.all: an empty list | write a list: [{path: /a}, {path: /b}]"),
        (when("{not: [{path: /a}]}"), "1:31 routes[0].when.not: a list stands where a map must be | when: {header.x-qa: \"yes\"}"),
        // Warnings: they can be used, and are likely not meant.
        (when("{path: cart}"), "1:32 routes[0].when.path: `cart` never begins a path: paths begin with `/` | /cart"),
        (when("{method: get}"), "1:34 routes[0].when.method: `get` is never a method: methods are upper-case | GET"),
        (when("{host: 'a.com:80'}"), "1:32 routes[0].when.host: `a.com:80` is never a host: hosts are compared without their port | a.com"),
        // Percentages.
        (split("{a: 5}"), "1:32 routes[0].split.a: `5` has no percent sign | 5%"),
        (split("{a: 5 %}"), "1:32 routes[0].split.a: `5 %` has a space in it | 5%"),
        (split("{a: 0.005%}"), "1:32 routes[0].split.a: `0.005%` is finer than 0.01 % | percentages are exact to two digits after the point, as in 0.01%"),
        (split("{a: -1%}"), "1:32 routes[0].split.a: `-1%` is below 0 % | 0% sends nobody; 100% sends everybody"),
        (split("{a: 101%}"), "1:32 routes[0].split.a: `101%` is over 100 % | 100% sends everybody"),
        (split("{a: 60%, b: 40.01%}"), "1:28 routes[0].split: the percentages add up to 100.01 %, over 100 % | lower them; what is left over goes on to the next route"),
        (split("{}"), "1:28 routes[0].split: an empty split sends nobody | split: {4f2a91c: 5%}"),
        (split("5%"), "1:28 routes[0].split: `5%` stands where a map must be | split: {4f2a91c: 5%}"),
        (split("{a: 1%, a: 2%}"), "1:36 a: the key `a` stands twice, first in line 1 | remove one of the two"),
        (route("split: {a: 5%}"), "1:18 routes[0].by: nothing says which id the percentages go by | add `by: cookie.uid` to the route, or `key: cookie.uid` to the document"),
        (route("split: {a: 5%}, by: header.id, assign: true"), "1:50 routes[0].assign: an id can be assigned in a cookie, not in header.id | by: cookie.uid"),
        (route("split: {a: 5%}, by: cookie.id, assign: yes"), "1:50 routes[0].assign: `yes` is neither true nor false | assign: true"),
        (route("split: {a: 5%}, by: cookie.id, assign: true}, {split: {a: 5%}, by: cookie.x, assign: true"), "1:96 routes[1].assign: assigns cookie.x, and a route before it assigns cookie.id | assign one cookie everywhere: by: cookie.id"),
        // flipr documents.
        ("rules: []".to_owned(), "1:1 : the flipr configuration is no map with items in it | add `version: {value: current}`"),
        ("version: {value: }".to_owned(), "1:16 version.value: nothing stands where a text must be | write a version (4f2a91c) or an alias (current)"),
        ("rules: []\nversion: {owner: me}".to_owned(), "2:10 version: the item has neither `value` nor `values` | add `value: current`"),
        ("rules: []\nversion: {values: [~]}".to_owned(), "2:20 version.values[0]: nothing stands where an entry must be | write {value: 4f2a91c, users: [1234]}"),
        ("rules: [{type: equal, input: uid, property: u}]\nversion: {value: a}".to_owned(), "1:30 rules[0].input: `uid` is nothing that a request has | write one of header.NAME, cookie.NAME, query.NAME, path, host, method, client.ip"),
        ("rules: [{type: equals, input: path, property: u}]\nversion: {value: a}".to_owned(), "1:16 rules[0].type: `equals` is no type of a flipr rule | did you mean equal?"),
        ("rules: [{type: pathEqual, input: path, property: u}]\nversion: {values: [{value: a, u: ~}]}".to_owned(), "2:34 version.values[0].u: nothing stands where a map with one path must be | write {the.path: value}"),
        ("rules: [{type: includesListAny, input: path, property: u}]\nversion: {values: [{value: a, u: b}]}".to_owned(), "2:34 version.values[0].u: `b` never matches: includesListAny takes no notice of it | write a list"),
        ("rules: [{type: percent, input: cookie.u}]\nversion: {values: [{value: a, percent: 60}, {value: b, percent: 50}]}".to_owned(), "2:19 version.values: the percentages `percent` add up to 110, not to 100 | make them add up to 100, or say where the rest goes in an entry with only a value"),
    ] {
        let found = problems(&text);
        if found != [expected] {
            wrong.push(format!("{text}\n  said:     {}\n  expected: {expected}", found.join("\n            ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_problems_come_at_once_each_with_its_own_file_and_line() {
    let extra = [
        ("good".to_owned(), "{when: {path: /}, to: v1}".to_owned()),
        ("bad".to_owned(), "when: {pat: /}\nto: a b\nname: other".to_owned()),
        ("worse".to_owned(), "{".to_owned()),
        ("empty".to_owned(), String::new()),
    ];
    let text = "default: x y\nroutes:\n  - {to: v1, name: good}\n  - {split: {a: 5}}\n";
    let problems = compile(text, &Context { extra_routes: &extra, ..CONTEXT }).unwrap_err();
    let shown: Vec<String> = problems
        .0
        .iter()
        .map(|p| {
            format!("{} {} `{}`", p.file.as_deref().unwrap(), p.key, p.source.as_deref().unwrap_or_default())
        })
        .collect();
    assert_eq!(
        shown,
        [
            "routes/bad name `name: other`",
            "routes/bad when.pat `when: {pat: /}`",
            "routes/bad to `to: a b`",
            "routes/worse  `{`",
            "routes/empty  ``",
            "rules.yaml default `default: x y`",
            "rules.yaml routes[0].name `  - {to: v1, name: good}`",
            "rules.yaml routes[1].by `  - {split: {a: 5}}`",
            "rules.yaml routes[1].split.a `  - {split: {a: 5}}`",
        ]
    );
}

#[test]
fn one_wrong_key_is_told_once() {
    let text = "key: cookies.uid\nroutes:\n  - {split: {a: 5%}}\n  - {split: {b: 5%}}\n";
    assert_eq!(
        problems(text),
        ["1:6 key: `cookies.uid` is nothing that a request has | did you mean cookie.uid?"]
    );
}

#[test]
fn a_warning_leaves_the_document_usable() {
    let compiled = compile("routes: [{when: {method: get}, to: v1}]", &CONTEXT).unwrap();
    assert_eq!(compiled.warnings.0.len(), 1);
    assert!(!compiled.warnings.has_errors());
    assert_eq!(compiled.table.routes().count(), 1);
}
