//! Lookups among 10 to 100,000 rules, and what building a table costs.
//!
//! Every lookup of a case is of another rule, in random order, so that large tables do not fit the
//! nearest caches. `cargo bench -p kgw-route`.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use kgw_route::{Builder, PathMatch, Rank, Request, RouteTable, Rule, StringMatch, ValueMatch};

fn main() {
    divan::main();
}

const SIZES: [usize; 4] = [10, 1_000, 10_000, 100_000];
/// How many requests a case goes through.
const REQUESTS: usize = 8_192;

struct Get {
    host: String,
    path: String,
    query: Option<String>,
    tenant: String,
}

impl Request for Get {
    fn host(&self) -> &[u8] {
        self.host.as_bytes()
    }

    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }

    fn query(&self) -> Option<&[u8]> {
        self.query.as_deref().map(str::as_bytes)
    }

    fn method(&self) -> &[u8] {
        b"GET"
    }

    fn any_header(&self, name: &[u8], mut matches: impl FnMut(&[u8]) -> bool) -> bool {
        name == b"x-tenant" && matches(self.tenant.as_bytes())
    }
}

fn get(host: &str, path: String) -> Get {
    Get {
        host: host.to_owned(),
        path,
        query: None,
        tenant: "blue".to_owned(),
    }
}

fn rule(path: PathMatch, index: usize) -> Rule {
    let rank = Rank {
        name: format!("default/route-{index}"),
        ..Rank::default()
    };
    Rule {
        rank,
        ..Rule::new(path)
    }
}

fn prefix(index: usize) -> String {
    format!("/api/v1/team-{}/service-{index}", index % 97)
}

fn table(rules: impl Iterator<Item = (String, Rule)>) -> RouteTable<usize> {
    let mut builder = Builder::new();
    for (index, (hostname, rule)) in rules.enumerate() {
        builder.add(&hostname, rule, index).expect("valid");
    }
    builder.build().expect("compiles")
}

/// Times lookups of every rule number in `0..size`, in random order.
fn lookups(bencher: Bencher<'_, '_>, size: usize, table: &RouteTable<usize>, of: fn(usize) -> Get) {
    let mut state = 1_u64;
    let requests: Vec<Get> = (0..REQUESTS)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            of((state >> 33) as usize % size)
        })
        .collect();
    bencher.counter(ItemsCount::new(REQUESTS)).bench_local(|| {
        let found = requests
            .iter()
            .filter(|request| table.find(black_box(*request)).is_some());
        assert_eq!(found.count(), REQUESTS);
    });
}

#[divan::bench(args = SIZES)]
fn prefixes_of_one_host(bencher: Bencher<'_, '_>, size: usize) {
    let rules = (0..size).map(|i| {
        (
            "api.example".to_owned(),
            rule(PathMatch::Prefix(prefix(i)), i),
        )
    });
    lookups(bencher, size, &table(rules), |i| {
        get("api.example:8080", prefix(i) + "/users/42")
    });
}

#[divan::bench(args = SIZES)]
fn prefixes_of_five_depths(bencher: Bencher<'_, '_>, size: usize) {
    fn path(index: usize) -> String {
        format!(
            "{}{}",
            prefix(index),
            ["", "/a", "/a/b", "/a/b/c", "/a/b/c/d"][index % 5]
        )
    }
    let rules = (0..size).map(|i| {
        (
            "api.example".to_owned(),
            rule(PathMatch::Prefix(path(i)), i),
        )
    });
    lookups(bencher, size, &table(rules), |i| {
        get("api.example", path(i) + "/users/42")
    });
}

#[divan::bench(args = SIZES)]
fn exact_paths(bencher: Bencher<'_, '_>, size: usize) {
    let rules = (0..size).map(|i| ("*".to_owned(), rule(PathMatch::Exact(prefix(i)), i)));
    lookups(bencher, size, &table(rules), |i| {
        get("api.example", prefix(i))
    });
}

#[divan::bench(args = SIZES)]
fn exact_hosts(bencher: Bencher<'_, '_>, size: usize) {
    let rules = (0..size).map(|i| {
        (
            format!("team-{i}.api.example"),
            rule(PathMatch::Prefix("/".to_owned()), i),
        )
    });
    lookups(bencher, size, &table(rules), |i| {
        get(&format!("team-{i}.api.example"), "/users/42".to_owned())
    });
}

#[divan::bench(args = SIZES)]
fn wildcard_hosts(bencher: Bencher<'_, '_>, size: usize) {
    let rules = (0..size).map(|i| {
        (
            format!("*.team-{i}.api.example"),
            rule(PathMatch::Prefix("/v1".to_owned()), i),
        )
    });
    lookups(bencher, size, &table(rules), |i| {
        get(
            &format!("www.team-{i}.api.example:443"),
            "/v1/users".to_owned(),
        )
    });
}

/// Each path has three rules; the request needs the one with header and query predicates.
#[divan::bench(args = SIZES)]
fn headers_and_query(bencher: Bencher<'_, '_>, size: usize) {
    let exact = |name: &str, value: &str| ValueMatch {
        name: name.to_owned(),
        value: StringMatch::Exact(value.to_owned()),
    };
    let rules = (0..size).map(|i| {
        let mut rule = rule(PathMatch::Prefix(prefix(i / 3)), i);
        match i % 3 {
            0 => rule.method = Some("POST".to_owned()),
            1 => {
                rule.headers = vec![exact("x-tenant", "blue")];
                rule.query = vec![exact("version", "2")];
            }
            _ => rule.headers = vec![exact("x-tenant", "green")],
        }
        ("api.example".to_owned(), rule)
    });
    lookups(bencher, size / 3 * 3, &table(rules), |i| Get {
        query: Some("page=3&version=2".to_owned()),
        ..get("api.example", prefix(i / 3))
    });
}

/// One path, and a value of a header for each rule.
#[divan::bench(args = SIZES)]
fn headers_of_one_path(bencher: Bencher<'_, '_>, size: usize) {
    let rules = (0..size).map(|i| {
        let mut rule = rule(PathMatch::Prefix("/tenant".to_owned()), i);
        rule.headers = vec![ValueMatch {
            name: "x-tenant".to_owned(),
            value: StringMatch::Exact(format!("t-{i}")),
        }];
        ("api.example".to_owned(), rule)
    });
    lookups(bencher, size, &table(rules), |i| Get {
        tenant: format!("t-{i}"),
        ..get("api.example", "/tenant/users/42".to_owned())
    });
}

/// One rule in ten is a regular expression, and requests go to all of them.
#[divan::bench(args = SIZES)]
fn one_regex_in_ten(bencher: Bencher<'_, '_>, size: usize) {
    let rules = (0..size).map(|i| {
        let path = if i % 10 == 0 {
            PathMatch::Regex(format!("{}/[0-9]+(/.*)?", prefix(i)))
        } else {
            PathMatch::Prefix(prefix(i))
        };
        ("api.example".to_owned(), rule(path, i))
    });
    lookups(bencher, size, &table(rules), |i| {
        get("api.example", prefix(i) + "/42/x")
    });
}

/// Regular expressions without a literal prefix: every one may match every path.
#[divan::bench(args = [10, 100, 1_000])]
fn regexes_without_literal_prefix(bencher: Bencher<'_, '_>, size: usize) {
    let rules = (0..size).map(|i| {
        (
            "api.example".to_owned(),
            rule(PathMatch::Regex(format!("/[^/]+/service-{i}/.*")), i),
        )
    });
    lookups(bencher, size, &table(rules), |i| {
        get("api.example", format!("/v1/service-{i}/x"))
    });
}

#[divan::bench(args = SIZES, sample_count = 10)]
fn build_prefixes_of_one_host(bencher: Bencher<'_, '_>, size: usize) {
    build(bencher, size, |i| {
        (
            "api.example".to_owned(),
            rule(PathMatch::Prefix(prefix(i)), i),
        )
    });
}

#[divan::bench(args = SIZES, sample_count = 10)]
fn build_exact_hosts(bencher: Bencher<'_, '_>, size: usize) {
    build(bencher, size, |i| {
        (
            format!("team-{i}.api.example"),
            rule(PathMatch::Prefix("/".to_owned()), i),
        )
    });
}

#[divan::bench(args = [10, 1_000, 10_000], sample_count = 3)]
fn build_one_regex_in_ten(bencher: Bencher<'_, '_>, size: usize) {
    build(bencher, size, |i| {
        let path = if i % 10 == 0 {
            PathMatch::Regex(format!("{}/[0-9]+(/.*)?", prefix(i)))
        } else {
            PathMatch::Prefix(prefix(i))
        };
        ("api.example".to_owned(), rule(path, i))
    });
}

fn build(bencher: Bencher<'_, '_>, size: usize, of: fn(usize) -> (String, Rule)) {
    bencher
        .counter(ItemsCount::new(size))
        .with_inputs(|| (0..size).map(of).collect::<Vec<_>>())
        .bench_local_values(|rules| table(rules.into_iter()));
}
