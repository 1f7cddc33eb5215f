//! Random tables and requests against a linear matcher that is written from the spec's text.

mod common;

use std::cmp::Ordering;

use common::{Plain, named};
use kgw_route::{
    Builder, Parts, PathMatch, Rank, Revision, RouteTable, Rule, StringMatch, ValueMatch,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use regex_automata::meta::Regex;

// === The reference ===

/// The index of the rule that serves the request.
fn reference(rules: &[(String, Rule)], request: &Plain, fall_through: bool) -> Option<usize> {
    let mut hosts: Vec<&String> = rules.iter().map(|(hostname, _)| hostname).collect();
    hosts.retain(|hostname| host_matches(hostname, &request.host));
    // "Characters in a matching non-wildcard hostname", then "characters in a matching hostname".
    hosts.sort_by_key(|hostname| (hostname.starts_with('*'), usize::MAX - hostname.len()));
    hosts.dedup();
    let considered = if fall_through {
        hosts.len()
    } else {
        hosts.len().min(1)
    };
    hosts.into_iter().take(considered).find_map(|hostname| {
        (0..rules.len())
            .filter(|&at| rules[at].0 == *hostname && matches(&rules[at].1, request))
            .min_by(|&a, &b| before(&rules[a].1, &rules[b].1))
    })
}

fn host_matches(hostname: &str, host: &str) -> bool {
    let host = host.to_lowercase();
    let host = host.split(':').next().unwrap_or("");
    let host = host.strip_suffix('.').unwrap_or(host);
    match hostname.strip_prefix('*') {
        Some("") => true,
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => host == hostname,
    }
}

fn matches(rule: &Rule, request: &Plain) -> bool {
    let path = match &rule.path {
        PathMatch::Exact(path) => *path == request.path,
        PathMatch::Regex(pattern) => full_match(pattern, &request.path),
        PathMatch::Prefix(prefix) => {
            let elements =
                |path: &str| -> Vec<String> { path.split('/').map(str::to_owned).collect() };
            // Neither `*` (OPTIONS) nor an empty path (CONNECT) is below the root.
            request.path.starts_with('/')
                && elements(&request.path).starts_with(&elements(prefix.trim_end_matches('/')))
        }
    };
    let parameters: Vec<(String, String)> = request
        .query
        .iter()
        .flat_map(|query| query.split('&'))
        .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    path && rule.method.iter().all(|method| *method == request.method)
        && distinct(&rule.headers, true).into_iter().all(|header| {
            let named = |(name, _): &&(String, String)| name.eq_ignore_ascii_case(&header.name);
            request
                .headers
                .iter()
                .filter(named)
                .any(|(_, value)| holds(&header.value, value))
        })
        && distinct(&rule.query, false).into_iter().all(|parameter| {
            let first = parameters.iter().find(|(name, _)| *name == parameter.name);
            first.is_some_and(|(_, value)| holds(&parameter.value, value))
        })
}

fn holds(expected: &StringMatch, value: &str) -> bool {
    match expected {
        StringMatch::Exact(expected) => expected == value,
        StringMatch::Present => true,
        StringMatch::Regex(pattern) => full_match(pattern, value),
    }
}

fn full_match(pattern: &str, value: &str) -> bool {
    Regex::new(&format!("^(?:{pattern})$"))
        .expect("valid")
        .is_match(value)
}

fn distinct(predicates: &[ValueMatch], fold_case: bool) -> Vec<&ValueMatch> {
    let name = |predicate: &ValueMatch| {
        if fold_case {
            predicate.name.to_lowercase()
        } else {
            predicate.name.clone()
        }
    };
    let mut kept: Vec<&ValueMatch> = Vec::new();
    for predicate in predicates {
        if kept.iter().all(|earlier| name(earlier) != name(predicate)) {
            kept.push(predicate);
        }
    }
    kept
}

/// Whether a rule goes before another; the clauses in the order of the spec, kgateway's for regexes.
fn before(a: &Rule, b: &Rule) -> Ordering {
    let more = |a: usize, b: usize| b.cmp(&a);
    let kind = |rule: &Rule| match rule.path {
        PathMatch::Exact(_) => 0,
        PathMatch::Regex(_) => 1,
        PathMatch::Prefix(_) => 2,
    };
    if kind(a) != kind(b) {
        return kind(a).cmp(&kind(b));
    }
    if let (PathMatch::Prefix(a), PathMatch::Prefix(b)) = (&a.path, &b.path) {
        let by_length = more(a.trim_end_matches('/').len(), b.trim_end_matches('/').len());
        if by_length != Ordering::Equal {
            return by_length;
        }
    }
    let method = more(a.method.iter().len(), b.method.iter().len());
    if method != Ordering::Equal {
        return method;
    }
    let headers = more(
        distinct(&a.headers, true).len(),
        distinct(&b.headers, true).len(),
    );
    if headers != Ordering::Equal {
        return headers;
    }
    let query = more(
        distinct(&a.query, false).len(),
        distinct(&b.query, false).len(),
    );
    if query != Ordering::Equal {
        return query;
    }
    let oldest = a
        .rank
        .created
        .unwrap_or(i64::MAX)
        .cmp(&b.rank.created.unwrap_or(i64::MAX));
    if oldest != Ordering::Equal {
        return oldest;
    }
    let position = |rank: &Rank| (rank.name.clone(), rank.rule, rank.r#match);
    position(&a.rank).cmp(&position(&b.rank))
}

// === Random tables and requests, of small alphabets so that collisions happen ===

fn path() -> impl Strategy<Value = String> {
    let segment = select(vec!["/a", "/a", "/b", "/ab", "/a;b", "/%61", "/"]);
    vec(segment, 1..5).prop_map(|segments| segments.concat())
}

fn path_match() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        path().prop_map(PathMatch::Exact),
        path().prop_map(PathMatch::Prefix),
        path().prop_map(PathMatch::Prefix),
        select(vec![
            "/a/.*",
            "/.*",
            "/a|/b",
            "/[ab]+",
            "/a/b/?",
            ".*b",
            "/a/[^/]+",
            "/ab?/(a|b)",
            "(?i)/A/b",
            "",
            "/a(/.*)?",
            "/a/b/.+",
            "^/b.*$",
        ])
        .prop_map(|pattern| PathMatch::Regex(pattern.to_owned())),
    ]
}

fn predicates(names: &[&'static str]) -> impl Strategy<Value = Vec<ValueMatch>> + use<> {
    let value = select(vec!["1", "2", "", "*", "~[12]", "~1*"]);
    vec(
        (select(names.to_vec()), value).prop_map(|(name, value)| named(name, value)),
        0..3,
    )
}

fn rule() -> impl Strategy<Value = (String, Rule)> {
    let hostname = select(vec!["*", "a.x", "b.x", "*.x", "*.a.x", "x", "*.y"]);
    let method = proptest::option::weighted(0.3, select(vec!["GET", "POST"]));
    let rank = (
        proptest::option::of(0..3_i64),
        select(vec!["n/a", "n/b"]),
        0..3_u32,
        0..3_u32,
    );
    let headers = predicates(&["x-a", "X-A", "x-b"]);
    let query = predicates(&["a", "A", "b"]);
    (hostname, path_match(), method, headers, query, rank).prop_map(
        |(hostname, path, method, headers, query, (created, name, rule, r#match))| {
            let rank = Rank {
                created,
                name: name.to_owned(),
                rule,
                r#match,
            };
            let method = method.map(str::to_owned);
            (
                hostname.to_owned(),
                Rule {
                    path,
                    method,
                    headers,
                    query,
                    rank,
                },
            )
        },
    )
}

fn request() -> impl Strategy<Value = Plain> {
    let host = select(vec![
        "a.x", "A.X:80", "a.x.", "b.x", "c.x", "a.a.x", "b.a.x:1", "x", ".x", "a.y", "z", "",
    ]);
    let path = prop_oneof![9 => path(), 1 => select(vec!["*", "", "a"]).prop_map(str::to_owned)];
    let query = proptest::option::of(select(vec![
        "", "a", "a=1", "a=1&b=2", "b=2&a=1", "a=2&a=1", "A=1&a=2", "a=1;b=2", "b&&a=", "a=12",
    ]));
    let method = select(vec!["GET", "GET", "POST", "get"]);
    let headers = vec(
        (
            select(vec!["x-a", "X-a", "x-b"]),
            select(vec!["1", "2", "", "1,2"]),
        ),
        0..4,
    );
    (host, path, query, method, headers).prop_map(|(host, path, query, method, headers)| Plain {
        host: host.to_owned(),
        path,
        query: query.map(str::to_owned),
        method: method.to_owned(),
        headers: headers
            .into_iter()
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .collect(),
    })
}

/// A change to a table.
#[derive(Clone, Debug)]
enum Change {
    AddHost(&'static str),
    RemoveHost(String),
    /// The rules of a group on a host are these.
    Replace(String, u32, Vec<Rule>),
    /// The rules of a group have another value, on whatever host.
    Revalue(u32),
}

fn change() -> impl Strategy<Value = Change> {
    let replace = (rule(), 0..6_u32, vec(rule(), 0..4)).prop_map(|((host, _), group, rules)| {
        // Rules of a group do not tie.
        let numbered = (0..).zip(rules).map(|(at, (_, mut rule))| {
            rule.rank.r#match = at;
            rule
        });
        Change::Replace(host, group, numbered.collect())
    });
    prop_oneof![
        1 => select(vec!["*", "a.x", "*.x", "new.y"]).prop_map(Change::AddHost),
        2 => rule().prop_map(|(host, _)| Change::RemoveHost(host)),
        8 => replace,
        2 => (0..6_u32).prop_map(Change::Revalue),
    ]
}

/// Group and serial number.
type Tagged = (u32, u32);

/// What the table must be, as a list.
#[derive(Clone, Debug, Default)]
struct Model {
    hosts: Vec<String>,
    rules: Vec<(String, Rule, Tagged)>,
}

impl Model {
    fn change(&mut self, change: &Change, serial: u32) {
        match change {
            Change::AddHost(host) => self.hosts.push((*host).to_owned()),
            Change::RemoveHost(gone) => {
                self.hosts.retain(|host| host != gone);
                self.rules.retain(|(host, ..)| host != gone);
            }
            Change::Replace(host, group, rules) => {
                self.rules
                    .retain(|(of, _, tag)| of != host || tag.0 != *group);
                self.hosts.push(host.clone());
                let rules = rules
                    .iter()
                    .map(|rule| (host.clone(), rule.clone(), (*group, serial)));
                self.rules.extend(rules);
            }
            Change::Revalue(group) => {
                for (_, _, tag) in &mut self.rules {
                    if tag.0 == *group {
                        tag.1 = serial;
                    }
                }
            }
        }
    }

    fn build(&self, fall_through: bool) -> RouteTable<Tagged> {
        let mut builder = Builder::new().fall_through(fall_through);
        for host in &self.hosts {
            builder.add_host(host).expect("valid");
        }
        for (host, rule, tag) in &self.rules {
            builder
                .add_to_group(tag.0, host, rule.clone(), *tag)
                .expect("valid");
        }
        builder.build().expect("compiles")
    }
}

fn edited(
    table: &RouteTable<Tagged>,
    parts: &mut Parts,
    change: &Change,
    serial: u32,
) -> RouteTable<Tagged> {
    let mut edit = table.edit(parts);
    match change {
        Change::AddHost(host) => edit.add_host(host).expect("valid"),
        Change::RemoveHost(host) => edit.remove_hosts([host.as_str()], |_| {}),
        Change::Replace(host, group, rules) => {
            let id = edit.host(host);
            edit.revise(
                |of| of == *group,
                |host, _| {
                    if Some(host) == id {
                        Revision::Remove
                    } else {
                        Revision::Keep
                    }
                },
            );
            edit.add_host(host).expect("valid");
            for rule in rules {
                edit.add_to_group(*group, host, rule.clone(), (*group, serial))
                    .expect("valid");
            }
        }
        Change::Revalue(group) => {
            edit.revise(
                |of| of == *group,
                |_, _| Revision::Replace((*group, serial)),
            );
        }
    }
    edit.finish().expect("compiles")
}

fn pattern() -> impl Strategy<Value = String> {
    let token = select(vec![
        "/", "/", "/a", "/a/b", "a", "b", "(a)", "(", ")", "|", "*", "+", "?", "{2}", "[ab]",
        "[^/]", ".", "^", "$", r"\b", r"\B", r"\d", r"\w", r"\n", "(?i)", "(?m)", "(?s)", "(a|/b)",
        "(?:/b)?",
    ]);
    vec(token, 0..8).prop_map(|tokens| tokens.concat())
}

proptest! {
    // No file of failures: what was found becomes a test of its own.
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn finds_what_the_reference_finds(
        rules in vec(rule(), 0..24),
        requests in vec(request(), 1..12),
        fall_through: bool,
    ) {
        let mut builder = Builder::new().fall_through(fall_through);
        for (at, (hostname, rule)) in rules.iter().enumerate() {
            builder.add(hostname, rule.clone(), at).expect("every generated rule is valid");
        }
        let table = builder.build().expect("compiles");
        for request in &requests {
            let expected = reference(&rules, request, fall_through);
            let found = table.find(request);
            prop_assert_eq!(found.map(|m| *m.value), expected, "{:?}", request);
            let explanation = table.explain(request);
            prop_assert_eq!(explanation.selected().map(|c| *c.value), expected, "{:?}", request);
            if let Some(found) = found {
                prop_assert_eq!(found.hostname, rules[*found.value].0.as_str());
                let prefix = match &found.rule().path {
                    PathMatch::Prefix(prefix) => Some(prefix.trim_end_matches('/').len()),
                    _ => None,
                };
                prop_assert_eq!(found.prefix_len, prefix);
            }
        }
    }

    /// Rules of one path are found by the values that they ask for.
    #[test]
    fn many_rules_of_one_path_are_told_apart(
        rules in vec((rule(), any::<bool>()), 5..60),
        requests in vec(request(), 1..12),
    ) {
        let rules: Vec<_> = rules
            .into_iter()
            .map(|((_, rule), is_exact)| {
                let path = if is_exact { PathMatch::Exact } else { PathMatch::Prefix };
                ("*".to_owned(), Rule { path: path("/a".to_owned()), ..rule })
            })
            .collect();
        let mut builder = Builder::new();
        for (at, (hostname, rule)) in rules.iter().enumerate() {
            builder.add(hostname, rule.clone(), at).expect("valid");
        }
        let table = builder.build().expect("compiles");
        for mut request in requests {
            request.path = "/a".to_owned();
            let expected = reference(&rules, &request, false);
            let found = table.find(&request).map(|found| *found.value);
            prop_assert_eq!(found, expected, "{:?}", request);
        }
    }

    /// A table that is edited again and again finds what one does that is built anew, and the tables
    /// before it stay what they were.
    #[test]
    fn an_edited_table_is_as_one_built_anew(
        changes in vec(change(), 1..20),
        requests in vec(request(), 1..12),
        fall_through: bool,
    ) {
        let mut parts = Parts::new();
        let mut model = Model::default();
        let mut tables = vec![(model.clone(), model.build(fall_through))];
        for (serial, change) in (0..).zip(&changes) {
            model.change(change, serial);
            let table = edited(&tables[tables.len() - 1].1, &mut parts, change, serial);
            tables.push((model.clone(), table));
        }
        for (model, table) in &tables {
            let built = model.build(fall_through);
            prop_assert_eq!(table.len(), model.rules.len());
            for request in &requests {
                let lines = |table: &RouteTable<Tagged>| {
                    let explanation = table.explain(request);
                    let lines = explanation.considered.iter();
                    lines.map(|one| (one.to_string(), *one.value, one.rule.clone())).collect::<Vec<_>>()
                };
                prop_assert_eq!(lines(table), lines(&built), "{:?}", request);
                let of = |table: &RouteTable<Tagged>| {
                    table.find(request).map(|found| (*found.value, found.hostname.to_owned(), found.prefix_len))
                };
                prop_assert_eq!(of(table), of(&built), "{:?}", request);
            }
        }
    }

    /// A path's pattern is split, shared and matched in sets; the meta engine does none of that.
    #[test]
    fn regexes_match_what_the_meta_engine_matches(
        patterns in vec(pattern(), 1..6),
        paths in vec(prop_oneof![path(), "[ab/1_\n]{0,6}"], 1..12),
    ) {
        let syntax = regex_automata::util::syntax::Config::new().unicode(false).utf8(false);
        let mut builder = Builder::new();
        let mut engines = Vec::new();
        for pattern in patterns {
            let rule = Rule::new(PathMatch::Regex(pattern.clone()));
            let taken = builder.add("*", rule, engines.len());
            prop_assert_eq!(taken.is_ok(), kgw_route::check_regex(&pattern).is_ok());
            let compile = |pattern: &str| Regex::builder().syntax(syntax).build(pattern).ok();
            prop_assert_eq!(taken.is_ok(), compile(&pattern).is_some(), "{}: {:?}", pattern, taken);
            if taken.is_ok() {
                engines.push(compile(&format!(r"\A(?:{pattern})\z")).expect("as valid as alone"));
            }
        }
        let table = builder.build().expect("compiles");
        for path in &paths {
            let expected = engines.iter().position(|engine| engine.is_match(path));
            let found = table.find(&Plain::get("", path)).map(|found| *found.value);
            prop_assert_eq!(found, expected, "{:?}", path);
        }
    }
}
