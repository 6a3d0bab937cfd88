//! A decision of a routes document allocates nothing. A binary of its own, because an allocator counts for all.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use switchman::rules::request::PlainRequest;
use switchman::rules::table::{RuleTable, To};
use switchman::rules::{Context, compile};

/// The system's allocator, counting for each thread.
#[allow(
    unsafe_code,
    reason = "the allocator's trait is unsafe; every call goes on to the system's as it came"
)]
mod counting {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    thread_local! {
        static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    }

    struct Counting;

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // Without it (a thread that ends) nothing is counted, and nothing is lost.
            let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            unsafe { System.dealloc(pointer, layout) }
        }
    }

    /// How often `f` allocates on this thread.
    pub(crate) fn allocations(f: impl FnOnce()) -> u64 {
        let before = ALLOCATIONS.get();
        f();
        ALLOCATIONS.get() - before
    }
}

const ROUTES: &str = r#"
key: cookie.uid
routes:
  - {when: {header.x-a: {prefix: never}, host: {suffix: .example.com}}, to: v1}
  - {when: {query.q: {contains: never}, method: [GET, HEAD]}, to: v2}
  - {when: {any: [{client.ip: {cidr: 10.0.0.0/8}}, {client.ip: 192.0.2.8}, {cookie.lang: [fr, it]}]}, to: v3}
  - {when: {header.user-agent: {regex: '^curl/\d+$'}}, to: v4}
  - {when: {not: {path: {exists: true}}}, to: v5}
  - {split: {v6: 0.01%}, salt: one}
  - {split: {v7: 0%}, by: query.q, assign: false}
  - {when: {header.x-version: {regex: '^[0-9a-f]{7,64}$'}}, to: '{header.x-version}'}
"#;

fn table(text: &str) -> RuleTable {
    compile(text, &Context { file: "rules.yaml", service: "app", extra_routes: &[] }).unwrap().table
}

fn request() -> PlainRequest {
    PlainRequest {
        host: "app.example.com".to_owned(),
        client_ip: "2001:db8::7".parse().ok(),
        ..PlainRequest::get("/products?page=2&q=kettles")
            .header("User-Agent", "Mozilla/5.0 (X11; Linux x86_64)")
            .header("Cookie", "lang=de; uid=0b3c7f52-9a43-4a7e-a0d7-0f8f8b7b8a11; user_id=77")
            .header("X-A", "b")
            .header("X-Version", "4f2a91c")
    }
}

#[test]
fn a_decision_of_a_routes_document_allocates_nothing() {
    let (table, request) = (table(ROUTES), request());
    // The regex engine makes its scratch space at the first use.
    assert_eq!(table.decide(&request).to, To::Named("4f2a91c"), "every route was asked");
    let count = counting::allocations(|| {
        for _ in 0..1000 {
            std::hint::black_box(table.decide(&request));
        }
    });
    assert_eq!(count, 0);
}

#[test]
fn a_decision_of_a_flipr_document_allocates_nothing_for_ascii() {
    let table = table(include_str!("../rules/flipr.yaml"));
    let request = request().header("cookie", "USER_ID=AbC");
    let count = counting::allocations(|| {
        for _ in 0..1000 {
            std::hint::black_box(table.decide(&request));
        }
    });
    assert_eq!(count, 0);
}

#[test]
fn the_counter_counts() {
    assert_eq!(counting::allocations(|| drop(std::hint::black_box(Box::new(7)))), 1);
}
