//! What a table does with the requests people send it.

mod common;

use common::{Plain, exact, named, prefix, regex};
use kgw_route::{
    Builder, Criterion, Field, Outcome, PathMatch, Problem, Rank, RegexError, RouteTable, Rule,
};

fn table(rules: impl IntoIterator<Item = (&'static str, Rule)>) -> RouteTable<usize> {
    let mut builder = Builder::new();
    for (at, (hostname, rule)) in rules.into_iter().enumerate() {
        builder.add(hostname, rule, at).expect("valid");
    }
    builder.build().expect("compiles")
}

fn any(rules: impl IntoIterator<Item = Rule>) -> RouteTable<usize> {
    table(rules.into_iter().map(|rule| ("*", rule)))
}

#[track_caller]
fn assert_finds(table: &RouteTable<usize>, request: &Plain, expected: Option<usize>) {
    assert_eq!(
        table.find(request).map(|found| *found.value),
        expected,
        "{request:?}"
    );
}

#[test]
fn a_prefix_matches_whole_segments() {
    let table = any([prefix("/foo")]);
    for path in ["/foo", "/foo/", "/foo/x", "/foo//", "/foo?x"] {
        assert_finds(&table, &Plain::get("h", path), Some(0));
    }
    for path in ["/foobar", "/foo;x", "/FOO", "/", "", "/fo", "/x/foo", "foo"] {
        assert_finds(&table, &Plain::get("h", path), None);
    }
}

#[test]
fn a_prefix_with_a_trailing_slash_is_the_same_prefix() {
    let table = any([prefix("/foo/")]);
    for path in ["/foo", "/foo/", "/foo/x"] {
        assert_finds(&table, &Plain::get("h", path), Some(0));
    }
    let found = table
        .find(&Plain::get("h", "/foo/x"))
        .expect("matches")
        .prefix_len;
    assert_eq!(found, Some(4));
}

#[test]
fn the_root_prefix_matches_every_absolute_path() {
    let table = any([prefix("/")]);
    for path in ["/", "/x", "//", "/x/y/z"] {
        let found = table.find(&Plain::get("h", path)).expect("matches");
        assert_eq!(found.prefix_len, Some(0), "{path}");
    }
    assert_finds(&table, &Plain::get("h", "*"), None);
    assert_finds(&table, &Plain::get("h", ""), None);
}

#[test]
fn an_exact_path_is_the_whole_path() {
    let table = any([exact("/two"), exact("/three/"), exact("/")]);
    assert_finds(&table, &Plain::get("h", "/two"), Some(0));
    assert_finds(&table, &Plain::get("h", "/two/"), None);
    assert_finds(&table, &Plain::get("h", "/two/x"), None);
    assert_finds(&table, &Plain::get("h", "/three/"), Some(1));
    assert_finds(&table, &Plain::get("h", "/three"), None);
    assert_finds(&table, &Plain::get("h", "/"), Some(2));
}

#[test]
fn exact_then_regex_then_longest_prefix() {
    let table = any([
        prefix("/a/b/c"),
        regex("/a/.*"),
        exact("/a/b"),
        prefix("/a"),
        prefix("/"),
    ]);
    assert_finds(&table, &Plain::get("h", "/a/b"), Some(2));
    assert_finds(&table, &Plain::get("h", "/a/b/c"), Some(1));
    assert_finds(&table, &Plain::get("h", "/a"), Some(3));
    assert_finds(&table, &Plain::get("h", "/b"), Some(4));
}

#[test]
fn a_longer_prefix_wins_only_if_its_predicates_hold() {
    let mut long = prefix("/a/b");
    long.method = Some("POST".to_owned());
    let table = any([prefix("/a"), long]);
    assert_finds(&table, &Plain::get("h", "/a/b"), Some(0));
    assert_finds(&table, &Plain::get("h", "/a/b").method("POST"), Some(1));
    assert_finds(&table, &Plain::get("h", "/a/b").method("post"), Some(0));
}

/// The Gateway API's conformance case `HTTPRouteMatching` and its precedence clauses.
#[test]
fn conformance_precedence() {
    let rule = |path: &str, method: Option<&str>, headers: &[&str], query: &[&str]| Rule {
        method: method.map(str::to_owned),
        headers: headers
            .iter()
            .map(|value| named("version", value))
            .collect(),
        query: query.iter().map(|value| named("animal", value)).collect(),
        ..prefix(path)
    };
    let table = any([
        rule("/path5", None, &[], &[]),
        rule("/", Some("PATCH"), &[], &[]),
        rule("/", None, &["four"], &[]),
        rule("/", None, &[], &["hydra"]),
    ]);
    let version = |request: Plain| request.header("Version", "four");
    assert_finds(&table, &Plain::get("h", "/path5?animal=hydra"), Some(0));
    assert_finds(&table, &version(Plain::get("h", "/?animal=hydra")), Some(2));
    assert_finds(&table, &Plain::get("h", "/path5").method("PATCH"), Some(0));
    assert_finds(
        &table,
        &version(Plain::get("h", "/")).method("PATCH"),
        Some(1),
    );
    assert_finds(&table, &Plain::get("h", "/?animal=hydra"), Some(3));
}

#[test]
fn ties_go_to_the_older_route_then_its_name_then_its_order() {
    let ranked = |created: Option<i64>, name: &str, rule: u32, r#match: u32| Rule {
        rank: Rank {
            created,
            name: name.to_owned(),
            rule,
            r#match,
        },
        ..prefix("/")
    };
    let request = Plain::get("h", "/");
    let table = any([ranked(None, "a/a", 0, 0), ranked(Some(2), "b/b", 0, 0)]);
    assert_finds(&table, &request, Some(1));
    let table = any([ranked(Some(2), "b/b", 0, 0), ranked(Some(2), "b/a", 9, 9)]);
    assert_finds(&table, &request, Some(1));
    let table = any([ranked(None, "a/a", 1, 0), ranked(None, "a/a", 0, 9)]);
    assert_finds(&table, &request, Some(1));
    let table = any([ranked(None, "a/a", 0, 0), ranked(None, "a/a", 0, 0)]);
    assert_finds(&table, &request, Some(0));
}

#[test]
fn only_the_most_specific_hostname_is_used() {
    let rules = || {
        [
            ("*", prefix("/")),
            ("*.example", prefix("/w")),
            ("a.example", prefix("/exact")),
        ]
    };
    let strict = table(rules());
    assert_finds(&strict, &Plain::get("a.example", "/exact"), Some(2));
    assert_finds(&strict, &Plain::get("a.example", "/w"), None);
    assert_finds(&strict, &Plain::get("b.example", "/w"), Some(1));
    assert_finds(&strict, &Plain::get("b.example", "/"), None);
    assert_finds(&strict, &Plain::get("example", "/"), Some(0));

    let mut builder = Builder::new().fall_through(true);
    for (at, (hostname, rule)) in rules().into_iter().enumerate() {
        builder.add(hostname, rule, at).expect("valid");
    }
    let falling = builder.build().expect("compiles");
    assert_finds(&falling, &Plain::get("a.example", "/exact"), Some(2));
    assert_finds(&falling, &Plain::get("a.example", "/w"), Some(1));
    assert_finds(&falling, &Plain::get("a.example", "/"), Some(0));
}

#[test]
fn a_repeated_header_matches_if_any_line_does() {
    let table = any([Rule {
        headers: vec![named("X-V", "v1")],
        ..prefix("/")
    }]);
    let request = Plain::get("h", "/");
    assert_finds(
        &table,
        &request.clone().header("x-v", "v0").header("X-V", "v1"),
        Some(0),
    );
    assert_finds(&table, &request.clone().header("x-v", "v1,v2"), None);
    assert_finds(&table, &request.clone().header("x-v", "V1"), None);
    assert_finds(&table, &request, None);
    assert!(table.reads_headers());
}

#[test]
fn headers_by_presence_and_regex() {
    let table = any([
        Rule {
            headers: vec![named("a", "*"), named("b", "*")],
            ..prefix("/")
        },
        Rule {
            headers: vec![named("a", "~v[0-9]+")],
            ..prefix("/")
        },
    ]);
    let request = Plain::get("h", "/").header("a", "v12");
    assert_finds(&table, &request, Some(1));
    assert_finds(&table, &request.header("b", ""), Some(0));
    assert_finds(&table, &Plain::get("h", "/").header("a", "v12x"), None);
}

#[test]
fn query_parameters_are_raw_and_the_first_counts() {
    let table = any([
        Rule {
            query: vec![named("a", "1"), named("b", "")],
            ..prefix("/")
        },
        Rule {
            query: vec![named("a", "~[2-9]")],
            ..prefix("/")
        },
    ]);
    assert_finds(&table, &Plain::get("h", "/?b&a=1"), Some(0));
    assert_finds(&table, &Plain::get("h", "/?a=1&b="), Some(0));
    assert_finds(&table, &Plain::get("h", "/?a=2&a=1&b"), Some(1));
    assert_finds(&table, &Plain::get("h", "/?a=%31&b"), None);
    assert_finds(&table, &Plain::get("h", "/?a=1"), None);
    assert_finds(&table, &Plain::get("h", "/"), None);
    assert!(!table.reads_headers());
}

#[test]
fn of_equivalent_names_only_the_first_counts() {
    let twice = Rule {
        headers: vec![named("a", "1"), named("A", "2")],
        ..prefix("/")
    };
    let once = Rule {
        headers: vec![named("a", "1")],
        ..prefix("/")
    };
    let query = Rule {
        query: vec![named("q", "1"), named("q", "2")],
        ..prefix("/q")
    };
    let table = any([once, twice, query]);
    assert_finds(&table, &Plain::get("h", "/").header("a", "1"), Some(0));
    assert_finds(&table, &Plain::get("h", "/q?q=1"), Some(2));
}

#[test]
fn regexes_below_several_literal_prefixes_keep_their_order() {
    let ranked = |pattern: &str, rule| Rule {
        rank: Rank {
            rule,
            ..Rank::default()
        },
        ..regex(pattern)
    };
    let table = any([
        ranked("/a/b/c/.*", 3),
        ranked("/a/.*", 1),
        ranked(".*/d", 2),
        Rule {
            headers: vec![named("x", "*")],
            ..ranked("/a/b/.*", 9)
        },
    ]);
    assert_finds(&table, &Plain::get("h", "/a/b/c/d"), Some(1));
    assert_finds(&table, &Plain::get("h", "/b/d"), Some(2));
    assert_finds(
        &table,
        &Plain::get("h", "/a/b/c/d").header("x", "1"),
        Some(3),
    );
    assert_finds(&table, &Plain::get("h", "x/d"), Some(2));
}

#[test]
fn arbitrary_bytes_are_only_bytes() {
    struct Bytes(&'static [u8]);
    impl kgw_route::Request for Bytes {
        fn host(&self) -> &[u8] {
            self.0
        }
        fn path(&self) -> &[u8] {
            self.0
        }
        fn query(&self) -> Option<&[u8]> {
            Some(self.0)
        }
        fn method(&self) -> &[u8] {
            self.0
        }
        fn any_header(&self, _: &[u8], mut matches: impl FnMut(&[u8]) -> bool) -> bool {
            matches(self.0)
        }
    }
    let table = any([
        Rule {
            query: vec![named("\u{fffd}", "*")],
            ..regex(r"/\p{Greek}+")
        },
        Rule {
            headers: vec![named("x", "~.*")],
            ..regex("/[^/]+")
        },
    ]);
    let found = table
        .find(&Bytes(b"/\xff\xfe:\x00"))
        .map(|found| *found.value);
    assert_eq!(found, Some(1));
}

#[test]
fn a_bad_rule_is_named_and_leaves_the_others() {
    let mut builder = Builder::new();
    builder
        .add("a.example", prefix("/"), "good")
        .expect("valid");
    let rank = Rank {
        name: "ns/bad".to_owned(),
        rule: 2,
        r#match: 1,
        ..Rank::default()
    };
    let ranked = |rule: Rule| Rule {
        rank: rank.clone(),
        ..rule
    };

    let error = builder
        .add("*", ranked(regex("/(a")), "bad")
        .expect_err("unbalanced");
    assert_eq!((&error.rank, error.field), (&rank, Field::Path));
    assert!(
        matches!(
            error.problem,
            Problem::Regex(RegexError::Syntax { at: 1, .. })
        ),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .starts_with(r#"ns/bad[2][1] on "*": path: invalid"#),
        "{error}"
    );

    let error = builder
        .add("*", ranked(prefix("a")), "bad")
        .expect_err("relative");
    assert_eq!(
        error.problem,
        Problem::RelativePath {
            path: "a".to_owned()
        }
    );

    let error = builder
        .add("a.example:80", ranked(prefix("/")), "bad")
        .expect_err("port");
    assert_eq!(
        (error.field, error.problem),
        (Field::Hostname, Problem::Hostname)
    );

    let headers = vec![named("ok", "1"), named("no good", "1")];
    let error = builder
        .add(
            "*",
            ranked(Rule {
                headers,
                ..prefix("/")
            }),
            "bad",
        )
        .expect_err("name");
    assert_eq!(error.field, Field::Header(1));

    let query = vec![named("a", "~[")];
    let error = builder
        .add(
            "*",
            ranked(Rule {
                query,
                ..prefix("/")
            }),
            "bad",
        )
        .expect_err("class");
    assert_eq!(error.field, Field::Query(0));

    let table = builder.build().expect("compiles");
    assert_eq!(table.len(), 1);
    assert!(table.find(&Plain::get("a.example", "/")).is_some());
    assert!(table.find(&Plain::get("other", "/")).is_none());
}

#[test]
fn an_explanation_gives_every_rule_of_a_matching_hostname_its_reason() {
    let post = Rule {
        method: Some("POST".to_owned()),
        ..prefix("/a/b")
    };
    let header = Rule {
        headers: vec![named("x", "1")],
        ..prefix("/a")
    };
    let query = Rule {
        query: vec![named("q", "1")],
        ..prefix("/a")
    };
    let older = Rule {
        rank: Rank {
            created: Some(1),
            ..Rank::default()
        },
        ..prefix("/a")
    };
    let table = table([
        ("*.example", prefix("/")),
        ("*.example", prefix("/a")),
        ("*.example", older),
        ("*.example", query),
        ("*.example", header),
        ("*.example", post),
        ("*.example", regex("/b")),
        ("*", exact("/a/b")),
        ("other.example", prefix("/")),
    ]);
    let explanation = table.explain(&Plain::get("a.example", "/a/b"));
    let outcomes: Vec<_> = explanation
        .considered
        .iter()
        .map(|rule| (*rule.value, rule.outcome))
        .collect();
    assert_eq!(
        outcomes,
        [
            (6, Outcome::Path),
            (5, Outcome::Method),
            (4, Outcome::Header("x")),
            (3, Outcome::Query("q")),
            (2, Outcome::Selected),
            (1, Outcome::Outranked(Criterion::Age)),
            (0, Outcome::Outranked(Criterion::PrefixLength)),
            (7, Outcome::LessSpecificHostname),
        ]
    );
    let lines: Vec<_> = explanation
        .considered
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        lines[2],
        r#"prefix /a on *.example: header "x" is absent or does not match"#
    );
    assert_eq!(
        lines[6],
        "prefix / on *.example: matches, but the selected rule has a longer path prefix"
    );
    let none = table.explain(&Plain::get("example", "/b"));
    assert!(none.selected().is_none());
}

#[test]
fn an_empty_table_finds_nothing() {
    let table = any([]);
    assert!(table.is_empty());
    assert_finds(&table, &Plain::get("h", "/"), None);
    assert!(table.explain(&Plain::get("h", "/")).considered.is_empty());
}

#[test]
fn many_prefixes_of_many_hosts_do_not_mix() {
    let mut builder = Builder::new();
    for host in 0..100 {
        for path in 0..100 {
            let rule = Rule::new(PathMatch::Prefix(format!("/api/{path}")));
            builder
                .add(&format!("h{host}.example"), rule, (host, path))
                .expect("valid");
        }
    }
    let table = builder.build().expect("compiles");
    assert_eq!(table.len(), 10_000);
    for (host, path) in [(0, 0), (99, 99), (50, 7), (7, 50)] {
        let request = Plain::get(&format!("h{host}.example"), &format!("/api/{path}/x"));
        assert_eq!(
            table.find(&request).map(|found| *found.value),
            Some((host, path))
        );
    }
    assert!(table.find(&Plain::get("h1.example", "/api/100")).is_none());
}

/// Many rules, so that an edit has to make more tables; each is found before and after.
#[test]
fn a_table_grows_and_shrinks_by_edits() {
    let rule = |at: usize| Rule::new(PathMatch::Prefix(format!("/api/{}/{at}", at % 7)));
    let path = |at: usize| format!("/api/{}/{at}/x", at % 7);
    let mut builder = Builder::new();
    for at in 0..10 {
        builder
            .add_to_group(at as u32, "*", rule(at), at)
            .expect("valid");
    }
    let (mut table, mut parts) = builder.build_with_parts().expect("compiles");
    for (first, end) in [(10, 11), (11, 3_000), (3_000, 3_100)] {
        let mut edit = table.edit(&mut parts);
        for at in first..end {
            edit.add_to_group(at as u32, "*", rule(at), at)
                .expect("valid");
        }
        table = edit.finish().expect("compiles");
        assert_eq!(table.len(), end);
        for at in 0..end {
            let found = table.find(&Plain::get("x", &path(at)));
            assert_eq!(found.map(|found| *found.value), Some(at));
        }
    }
    let mut edit = table.edit(&mut parts);
    edit.revise(|group| group >= 5, |_, _| kgw_route::Revision::Remove);
    table = edit.finish().expect("compiles");
    assert_eq!(table.len(), 5);
    let found = (0..3_100).filter(|&at| table.find(&Plain::get("x", &path(at))).is_some());
    assert_eq!(found.count(), 5);
}
