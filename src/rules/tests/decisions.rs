//! Which route takes which request.

use super::*;
use crate::rules::table::{Decision, TargetId, Unavailable};

/// Whether a route with that `when` takes a request.
fn takes(when: &str, request: &PlainRequest) -> bool {
    to(&table(&format!("routes: [{{when: {when}, to: yes-sir}}]")), request) == "yes-sir"
}

#[test]
fn every_kind_of_condition_takes_what_it_says_and_nothing_else() {
    let qa = |value: &str| get("/").header("X-QA", value);
    let cookie = |value: &str| get("/").header("cookie", value);
    let host = |host: &str| PlainRequest { host: host.to_owned(), ..get("/") };
    let ip = |ip: &str| PlainRequest { client_ip: ip.parse().ok(), ..get("/") };
    let post = || PlainRequest { method: "POST".to_owned(), ..get("/") };
    for (when, yes, no) in [
        // A scalar is equal, as it is written, with case.
        ("{header.x-qa: yes}", vec![qa("yes")], vec![qa("Yes"), qa("yes "), qa(""), get("/")]),
        ("{header.X-Qa: 0123}", vec![qa("0123")], vec![qa("123"), qa("83")]),
        ("{header.x-qa: {equal: 1e3}}", vec![qa("1e3")], vec![qa("1000")]),
        ("{header.x-qa: ''}", vec![qa("")], vec![get("/")]),
        // The first value of a header, the first cookie of a name.
        ("{header.x-qa: a}", vec![qa("a").header("x-qa", "b")], vec![qa("b").header("x-qa", "a")]),
        ("{cookie.u: '77'}", vec![cookie("u=77"), cookie("a=b; u=77")], vec![cookie("U=77"), cookie("u=7")]),
        // A list is any of.
        (
            "{cookie.u: [1234, 5678]}",
            vec![cookie("u=1234"), cookie("u=5678")],
            vec![cookie("u=12"), get("/")],
        ),
        ("{cookie.u: {in: [b, a]}}", vec![cookie("u=a"), cookie("u=b")], vec![cookie("u=c")]),
        ("{path: {prefix: /api/}}", vec![get("/api/x"), get("/api/")], vec![get("/api"), get("/x/api/")]),
        ("{path: {suffix: .js}}", vec![get("/a.js"), get("/a.js?v=1")], vec![get("/a.css")]),
        ("{path: {contains: cart}}", vec![get("/a/cart/b")], vec![get("/Cart")]),
        ("{path: /cart}", vec![get("/cart"), get("/cart?x")], vec![get("/cart/")]),
        ("{header.x-qa: {regex: '^[0-9a-f]{7}$'}}", vec![qa("4f2a91c")], vec![qa("4f2a91cd"), get("/")]),
        ("{query.q: a b}", vec![get("/?q=a%20b"), get("/?x=1&q=a+b")], vec![get("/?q=ab"), get("/?Q=a+b")]),
        ("{query.debug: {exists: true}}", vec![get("/?debug"), get("/?debug=0")], vec![get("/"), get("/?d")]),
        ("{query.debug: {exists: false}}", vec![get("/"), get("/?d")], vec![get("/?debug")]),
        ("{method: [GET, HEAD]}", vec![get("/")], vec![post()]),
        // Hosts are compared without case.
        (
            "{host: App.example.com}",
            vec![host("app.example.com"), host("APP.Example.com")],
            vec![host("b.com")],
        ),
        ("{host: {suffix: .Example.com}}", vec![host("a.EXAMPLE.com")], vec![host("example.com")]),
        ("{host: {regex: '^PR-\\d+\\.'}}", vec![host("pr-12.x"), host("Pr-1.x")], vec![host("pr-.x")]),
        // Addresses.
        (
            "{client.ip: 10.1.2.3}",
            vec![ip("10.1.2.3"), ip("::ffff:10.1.2.3")],
            vec![ip("10.1.2.4"), get("/")],
        ),
        ("{client.ip: '2001:DB8:0::1'}", vec![ip("2001:db8::1")], vec![ip("2001:db8::2")]),
        (
            "{client.ip: {cidr: 10.0.0.0/8}}",
            vec![ip("10.9.9.9"), ip("::ffff:10.0.0.1")],
            vec![ip("11.0.0.1"), get("/")],
        ),
        ("{client.ip: {cidr: '::ffff:10.0.0.0/104'}}", vec![ip("10.9.9.9")], vec![ip("11.0.0.1"), ip("::1")]),
        (
            "{client.ip: {cidr: ['fd00::/8', 192.0.2.1]}}",
            vec![ip("fd12::1"), ip("192.0.2.1")],
            vec![ip("192.0.2.2")],
        ),
        ("{client.ip: {prefix: 10.1.}}", vec![ip("10.1.200.1")], vec![ip("10.10.1.1")]),
        // Several must all hold.
        (
            "{cookie.u: a, method: GET}",
            vec![cookie("u=a")],
            vec![get("/"), PlainRequest { headers: cookie("u=a").headers, ..post() }],
        ),
        ("{path: {prefix: /a, suffix: z}}", vec![get("/a-z")], vec![get("/a"), get("/z")]),
        ("{all: [{path: {prefix: /a}}, {path: {suffix: z}}]}", vec![get("/a-z")], vec![get("/a"), get("/z")]),
        ("{any: [{path: /a}, {path: /b, method: POST}]}", vec![get("/a")], vec![get("/b"), get("/c")]),
        // Not: also of what the request does not have.
        ("{not: {header.x-qa: {regex: bot|crawler}}}", vec![qa("firefox"), get("/")], vec![qa("a bot")]),
        ("{not: {path: /a, method: GET}}", vec![get("/b"), post()], vec![get("/a")]),
        ("{not: {any: [{path: /a}, {not: {method: GET}}]}}", vec![get("/b")], vec![get("/a"), post()]),
    ] {
        for request in yes {
            assert!(takes(when, &request), "{when} takes {request:?}");
        }
        for request in no {
            assert!(!takes(when, &request), "{when} does not take {request:?}");
        }
    }
}

#[test]
fn the_first_route_that_matches_wins() {
    let text = "
routes:
  - {when: {path: {prefix: /a}}, to: v-a}
  - {when: {path: {prefix: /a/b}}, to: v-ab}
  - {when: {path: {prefix: /b}}, to: v-b}
default: v-d
";
    let table = table(text);
    for (path, version) in [("/a/b", "v-a"), ("/b", "v-b"), ("/c", "v-d")] {
        assert_eq!(to(&table, &get(path)), version);
    }
    assert_eq!(
        table.decide(&get("/b")).route,
        Some("route-3"),
        "a route without a name is called by its place"
    );
    assert_eq!(table.decide(&get("/c")).route, None);
}

#[test]
fn versions_are_taken_as_they_are_written() {
    for version in
        ["1234567", "0123456", "12345e7", "0x12345", "1_000_000", "true", "1:30", "2015-03-12", "v1.2"]
    {
        let table = table(&format!(
            "default: {version}\nroutes: [{{when: {{path: /a}}, to: {version}}}, {{split: {{{version}: 1%}}, by: path}}]"
        ));
        assert_eq!(table.targets(), [version], "one target for the three places");
    }
}

#[test]
fn the_document_of_the_design_decides_as_it_says() {
    let table = table(include_str!("../../../rules/routes.yaml"));
    let cookie = |value: &str| get("/").header("cookie", value);
    assert_eq!(to(&table, &get("/").header("x-qa", "yes")), "4f2a91c");
    assert_eq!(to(&table, &cookie("user_id=5678")), "beta");
    let pinned = get("/").header("x-version", "b001bee");
    assert_eq!(to(&table, &pinned), "named b001bee");
    assert_eq!(table.decide(&pinned).unavailable, Unavailable::Error);
    assert_eq!(to(&table, &get("/").header("x-version", "not a hash")), "current");
    let canary = (0..2000).filter(|n| to(&table, &cookie(&format!("uid={n}"))) == "4f2a91c").count();
    assert!((70..130).contains(&canary), "{canary} of 2000 are about 5 %");
    let bot = |n| cookie(&format!("uid={n}")).header("user-agent", "a crawler");
    assert!((0..2000).all(|n| to(&table, &bot(n)) == "current"));
}

#[test]
fn a_version_can_be_named_by_header_cookie_and_query_and_only_where_they_are_there() {
    for input in ["header.v", "cookie.v", "query.v"] {
        let table = table(&format!("routes: [{{to: '{{{input}}}', unavailable: wait}}]"));
        let all = get("/?v=4f2a91c").header("v", "4f2a91c").header("cookie", "v=4f2a91c");
        assert_eq!(to(&table, &all), "named 4f2a91c");
        assert_eq!(table.decide(&all).unavailable, Unavailable::Wait);
        assert_eq!(to(&table, &get("/")), "current", "without it the route does not match");
        assert_eq!(table.routes().next(), Some(("route-1", &[][..])));
    }
}

#[test]
fn routes_beside_the_document_come_first_and_share_its_key_and_salt() {
    let extra = [
        ("10-qa".to_owned(), "{when: {path: /qa}, to: v-qa}".to_owned()),
        ("20-half".to_owned(), "name: 20-half\nsplit: {v-half: 50%}".to_owned()),
    ];
    let text = "key: cookie.uid\nsalt: s\nroutes: [{when: {path: /qa}, to: v-doc}, {name: half, split: {v-same: 50%}}]";
    let context = Context { extra_routes: &extra, ..CONTEXT };
    let table = compile(text, &context).unwrap().table;
    let names: Vec<&str> = table.routes().map(|(name, _)| name).collect();
    assert_eq!(names, ["10-qa", "20-half", "route-1", "half"]);
    assert_eq!(to(&table, &get("/qa")), "v-qa");
    let reached: Vec<String> =
        (0..200).map(|n| to(&table, &get("/").header("cookie", &format!("uid={n}")))).collect();
    assert!(
        reached.iter().any(|v| v == "v-half") && !reached.iter().any(|v| v == "v-same"),
        "the same buckets"
    );
    assert_eq!(table.target_place(TargetId(0)), None, "named beside the document");

    // Beside an empty document, and beside one of flipr's.
    for text in ["", "version: {value: beta}"] {
        let extra = &extra[..1];
        let table = compile(text, &Context { extra_routes: extra, ..CONTEXT }).unwrap().table;
        assert_eq!(to(&table, &get("/qa")), "v-qa");
    }
}

#[test]
fn an_empty_document_sends_everything_to_current() {
    for text in ["", "# nothing yet\n", "routes: []", "routes:", "default: current", "{}", "null"] {
        let table = table(text);
        let request = get("/");
        let current = TargetId(0);
        let expected = Decision {
            to: To::Target(current),
            route: None,
            unavailable: Unavailable::Current,
            bucket: None,
            assign: None,
        };
        assert_eq!(table.decide(&request), expected, "{text}");
        assert_eq!(table.targets(), ["current"]);
    }
}

#[test]
fn a_target_knows_where_it_stands() {
    let table = table("default: beta\nroutes:\n  - {when: {path: /}, to: 4f2a91c}\n  - {to: 4f2a91c}\n");
    let places: Vec<_> = (0..2).map(|id| table.target_place(TargetId(id))).collect();
    assert_eq!(table.targets(), ["beta", "4f2a91c"]);
    assert_eq!(places, [Some((1, 10)), Some((3, 27))]);
}

#[test]
fn more_inputs_than_are_remembered_are_still_read() {
    let routes: Vec<String> =
        (0..40).map(|n| format!("{{when: {{header.h{n}: 'yes', cookie.c{n}: 'yes'}}, to: v{n}}}")).collect();
    let table = table(&format!("routes: [{}]", routes.join(", ")));
    for n in [0, 7, 8, 9, 39] {
        let request = get("/").header(&format!("h{n}"), "yes").header("cookie", &format!("c{n}=yes"));
        assert_eq!(to(&table, &request), format!("v{n}"));
    }
}
