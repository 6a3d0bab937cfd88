//! The cost of one decision: tables of 10, 100 and 1000 routes of mixed kinds, for the request that the first route
//! takes, the one that the last takes, and the one that none takes.

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use switchman::rules::request::PlainRequest;
use switchman::rules::{Compiled, Context, compile};

/// A routes document of so many routes; each kind of condition in turn.
fn document(routes: usize) -> String {
    let mut text = String::from("key: cookie.uid\nroutes:\n");
    for n in 0..routes {
        let when = match n % 6 {
            0 => format!("{{header.x-team: team-{n}}}"),
            1 => format!("{{cookie.user_id: [{n}, {}], method: GET}}", n + 1_000_000),
            2 => format!("{{path: {{prefix: /area-{n}/}}}}"),
            3 => format!("{{query.preview: v{n}}}"),
            4 => format!(
                "{{any: [{{host: h{n}.example.com}}, {{client.ip: {{cidr: 10.{}.0.0/16}}}}]}}",
                n % 200
            ),
            _ => format!("{{not: {{header.accept: {{contains: text}}}}, header.x-n: \"{n}\"}}"),
        };
        let goes = if n % 10 == 9 { "split: {4f2a91c: 5%}" } else { "to: 4f2a91c" };
        let _ = writeln!(text, "  - {{when: {when}, {goes}}}");
    }
    text
}

/// What a browser sends: a dozen headers, a few cookies, a query.
fn request(team: &str) -> PlainRequest {
    let mut request = PlainRequest::get("/products/kettles?sort=price&page=2")
        .header("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
        .header("accept-encoding", "gzip, deflate, br")
        .header("accept-language", "de,en;q=0.5")
        .header("cache-control", "max-age=0")
        .header("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0")
        .header("sec-fetch-dest", "document")
        .header("cookie", "theme=dark; user_id=77; uid=0b3c7f52-9a43-4a7e-a0d7-0f8f8b7b8a11; lang=de")
        .header("x-team", team);
    request.host = "app.example.com".to_owned();
    request.client_ip = "192.0.2.7".parse().ok();
    request
}

fn decide(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide");
    for routes in [10, 100, 1000] {
        let context = Context { file: "bench", service: "app", extra_routes: &[] };
        let Ok(Compiled { table, .. }) = compile(&document(routes), &context) else {
            panic!("the document of {routes} routes compiles");
        };
        // The last route that looks at the team.
        let last = (routes - 1) / 6 * 6;
        for (name, team) in
            [("first", "team-0".to_owned()), ("last", format!("team-{last}")), ("none", String::new())]
        {
            let request = request(&team);
            group.bench_with_input(BenchmarkId::new(name, routes), &request, |b, request| {
                b.iter(|| black_box(table.decide(black_box(request)).bucket));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, decide);
criterion_main!(benches);
