//! Percentages: exact, stable, and growing without anybody changing sides.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::rules::bucket::{Percentage, bucket};

/// Buckets of a split on `cookie.uid`, by version.
fn shares(table: &RuleTable, ids: u32) -> BTreeMap<String, u32> {
    let mut shares = BTreeMap::new();
    for id in 0..ids {
        *shares.entry(to(table, &with_uid(&id.to_string()))).or_default() += 1;
    }
    shares
}

fn with_uid(uid: &str) -> PlainRequest {
    get("/").header("cookie", &format!("uid={uid}"))
}

#[test]
fn shares_of_100000_people_are_what_is_written() {
    let table = table("key: cookie.uid\nroutes: [{split: {a: 5%, b: 12.5%, c: 0.01%, d: 50%}}]");
    let shares = shares(&table, 100_000);
    // Three standard deviations of a fair draw.
    for (version, percent) in [("a", 5.0), ("b", 12.5), ("c", 0.01), ("d", 50.0), ("current", 32.49)] {
        let expected: f64 = 1000.0 * percent;
        let deviation = (expected * (1.0 - percent / 100.0)).sqrt();
        let found = f64::from(shares.get(version).copied().unwrap_or(0));
        assert!(
            (found - expected).abs() <= 3.0 * deviation,
            "{version}: {found} instead of about {expected}"
        );
    }
}

#[test]
fn every_bucket_goes_where_the_percentages_say() {
    let table = table("key: cookie.uid\nsalt: s\nroutes: [{split: {a: 5%, b: 0.01%, c: 0%, d: 94.99%}}]");
    for id in 0..50_000 {
        let id = id.to_string();
        let bucket = bucket("s", &id);
        let expected = match bucket {
            0..500 => "a",
            500 => "b",
            _ => "d",
        };
        let request = with_uid(&id);
        assert_eq!(to(&table, &request), expected, "bucket {bucket}");
        assert_eq!(table.decide(&request).bucket, Some(bucket));
    }
}

#[test]
fn a_version_with_no_share_gets_no_traffic_and_is_not_said_to() {
    let table = table("key: cookie.uid\nroutes: [{split: {a: 0%, b: 1%}}]");
    let targets: Vec<&str> =
        table.routes().flat_map(|(_, ids)| ids).map(|id| table.targets()[id.0 as usize].as_str()).collect();
    assert_eq!(targets, ["b"]);
}

#[test]
fn the_salt_is_the_routes_else_the_documents_else_the_services_name() {
    for (document, route, salt) in
        [("", "", "app"), ("salt: doc", "", "doc"), ("salt: doc", ", salt: own", "own")]
    {
        let table = table(&format!("{document}\nroutes: [{{split: {{a: 50%}}, by: header.id{route}}}]"));
        for id in 0..100 {
            let id = id.to_string();
            let expected = if bucket(salt, &id) < 5000 { "a" } else { "current" };
            assert_eq!(to(&table, &get("/").header("id", &id)), expected);
        }
    }
}

#[test]
fn who_has_no_id_takes_part_only_where_one_is_assigned() {
    let text = |assign: &str| format!("key: cookie.uid\nroutes: [{{split: {{a: 100%}}, assign: {assign}}}]");
    let (with, without) = (table(&text("true")), table(&text("false")));
    for request in [get("/"), with_uid("")] {
        assert_eq!((to(&without, &request).as_str(), without.decide(&request).assign), ("current", None));
        assert_eq!((to(&with, &request).as_str(), with.decide(&request).assign), ("a", Some("uid")));
    }
    assert_eq!(with.decide(&with_uid("77")).assign, None, "who has an id keeps it");

    // Also who is left over gets the id: else the next request would draw again, and in the end everybody is in.
    let table = table("key: cookie.uid\nroutes: [{split: {a: 0%}, assign: true}, {when: {path: /b}, to: b}]");
    assert_eq!(table.decide(&get("/")).assign, Some("uid"));
    assert_eq!((to(&table, &get("/b")).as_str(), table.decide(&get("/b")).assign), ("b", Some("uid")));
}

#[test]
fn an_assigned_id_falls_where_it_will_fall_when_it_comes_back() {
    let table = table("key: cookie.uid\nroutes: [{split: {a: 50%}, assign: true}]");
    let fresh = table.decide(&PlainRequest::default()).bucket.or(Some(bucket("app", PlainRequest::NEW_ID)));
    assert_eq!(fresh, Some(bucket("app", PlainRequest::NEW_ID)));
    assert_eq!(to(&table, &get("/")), to(&table, &with_uid(PlainRequest::NEW_ID)));
}

proptest! {
    /// Raising the first arm only adds people to it: nobody who was in leaves, nobody else is moved but into it.
    #[test]
    fn growing_a_percentage_only_adds_people(
        ids in prop::collection::vec("[a-z0-9]{1,12}", 1..60),
        small in 0_u16..=5000,
        more in 0_u16..=5000,
        salt in "[a-z]{1,8}",
    ) {
        let document = |share: u16| {
            let share = Percentage(share);
            table(&format!("key: cookie.uid\nsalt: {salt}-\nroutes: [{{split: {{new: {share}}}}}]"))
        };
        let (before, after) = (document(small), document(small + more));
        for id in &ids {
            let (was, is) = (to(&before, &with_uid(id)), to(&after, &with_uid(id)));
            prop_assert!(is == was || (was == "current" && is == "new"), "{id}: {was} -> {is}");
        }
    }

    #[test]
    fn a_percentage_reads_back_as_it_is_written(hundredths in 0_u16..=10_000) {
        let percentage = Percentage(hundredths);
        prop_assert_eq!(Percentage::parse(&percentage.to_string()), Ok(percentage));
    }

    /// No text takes the compiler down.
    #[test]
    fn any_text_compiles_or_says_why(text in "([a-z{}\\[\\]:,%\"' \n.-]|routes: |when: |split: |rules: |version: ){0,60}") {
        if let Err(problems) = compile(&text, &CONTEXT) {
            prop_assert!(problems.has_errors());
            prop_assert!(problems.0.iter().all(|p| p.file.is_some() && !p.message.is_empty()));
        }
    }
}
