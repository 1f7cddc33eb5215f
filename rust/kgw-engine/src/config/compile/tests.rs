//! Changes against the whole: what is served must be the same.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use super::*;
use crate::config::snapshot::{Action, Carries, Cluster, Listener, Routes, Traffic};
use crate::telemetry::access_log::WriterOptions;

struct Get(&'static str, &'static str);

impl kgw_route::Request for Get {
    fn host(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn path(&self) -> &[u8] {
        self.1.as_bytes()
    }

    fn query(&self) -> Option<&[u8]> {
        None
    }

    fn method(&self) -> &[u8] {
        b"GET"
    }

    fn any_header(&self, _: &[u8], _: impl FnMut(&[u8]) -> bool) -> bool {
        false
    }
}

const HOSTS: [&str; 4] = ["*", "*.x", "a.x", "not a host"];
const PATHS: [&str; 5] = ["/", "/a", "/a/b", "/a/1", "/c"];
const ROUTES: [&str; 6] = ["r0", "r1", "r2", "r3", "r4", "r5"];

/// A client that destinations have a table of their own for.
const SHOP: &str = "spiffe://cluster.local/ns/shop/sa/till";

/// Ids of things that may be there, with what they are.
type Things = BTreeMap<String, Value>;

fn clusters() -> impl Strategy<Value = Things> {
    let cluster = (1_u16..4, prop::bool::weighted(0.1)).prop_map(|(port, is_broken)| {
        let mut cluster = json!({"endpoints": [format!("10.0.0.1:{port}")]});
        if is_broken {
            cluster["proxy_protocol"] = json!({"version": 9});
        }
        cluster
    });
    btree_map(
        select(vec!["c0", "c1", "c2"]).prop_map(str::to_owned),
        cluster,
        0..4,
    )
}

fn routes() -> impl Strategy<Value = Things> {
    let forward = select(vec!["c0", "c1", "c2", "c3"]).prop_map(|cluster| {
        let backend = json!({"cluster": cluster, "weight": 1});
        json!({"type": "forward", "backends": [backend], "request_timeout_ms": 1})
    });
    let direct =
        select(vec![200, 204, 999]).prop_map(|status| json!({"type": "direct", "status": status}));
    let route = (prop_oneof![forward, direct], select(vec!["r0", "other"]))
        .prop_map(|(action, name)| json!({"name": name, "action": action}));
    btree_map(select(ROUTES.to_vec()).prop_map(str::to_owned), route, 0..6)
}

fn rule() -> impl Strategy<Value = Value> {
    let path = prop_oneof![
        6 => (select(vec!["exact", "prefix"]), select(PATHS.to_vec())).prop_map(|(kind, path)| json!({kind: path})),
        2 => select(vec!["/a/[0-9]", "/.*", "("]).prop_map(|path| json!({"regex": path})),
    ];
    (path, select(ROUTES.to_vec()), 0_u32..2).prop_map(
        |(path, route, number)| json!({"path": path, "route": route, "rank": {"rule": number}}),
    )
}

/// Hosts and their rules.
fn table() -> impl Strategy<Value = Value> {
    let host = select(HOSTS.to_vec()).prop_map(str::to_owned);
    btree_map(host, vec(rule(), 0..5), 0..4).prop_map(|hosts| {
        let hosts = hosts.into_iter().map(|(hostname, mut rules)| {
            // The same rule twice is one rule.
            rules.sort_by_key(Value::to_string);
            rules.dedup();
            json!({"hostname": hostname, "rules": rules})
        });
        json!({"hosts": hosts.collect::<Vec<_>>()})
    })
}

/// A configuration with a listener for each of its tables.
fn whole() -> impl Strategy<Value = Value> {
    let tables = btree_map(
        select(vec!["t0", "t1", "t2"]).prop_map(str::to_owned),
        table(),
        0..3,
    );
    let tcp = option::of(select(vec!["c0", "c1", "c3"]));
    (tables, routes(), clusters(), tcp, 1_u64..3).prop_map(
        |(tables, routes, clusters, tcp, most)| {
            let mut destinations = Vec::new();
            let mut listeners = Vec::new();
            for (number, id) in (1_u8..).zip(tables.keys()) {
                destinations.push(json!({
                    "address": format!("10.9.9.{number}"), "port": 80,
                    "service": format!("default/{id}"), "route_table": tables.keys().next(),
                    "clients": {"shop": {"route_table": id}},
                }));
                listeners.push(json!({
                    "id": id, "bind": [format!("127.0.0.1:{}", 8000 + u16::from(number))],
                    "traffic": {"type": "http", "route_table": id}, "max_connections": most,
                }));
            }
            listeners.push(json!({
                "id": "waypoint", "bind": ["127.0.0.1:15088"],
                "traffic": {"type": "waypoint", "destinations": destinations},
            }));
            if let Some(cluster) = tcp {
                let backend = json!({"cluster": cluster, "weight": 1});
                listeners.push(json!({
                    "id": "tcp", "bind": ["127.0.0.1:9000"],
                    "traffic": {"type": "tcp", "forward": {"name": "tcp", "backends": [backend]}},
                }));
            }
            json!({
                "version": 1, "listeners": listeners, "route_tables": tables,
                "routes": routes, "clusters": clusters,
            })
        },
    )
}

// === The writer's side ===

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().expect("an object")
}

/// What is new or changed, and null for what is gone.
fn changed(old: &Value, new: &Value) -> Map<String, Value> {
    let (old, new) = (object(old), object(new));
    let gone = old.keys().filter(|id| !new.contains_key(*id));
    let gone = gone.map(|id| (id.clone(), Value::Null));
    let changed = new.iter().filter(|(id, value)| old.get(*id) != Some(value));
    let changed = changed.map(|(id, value)| (id.clone(), value.clone()));
    gone.chain(changed).collect()
}

/// The rules of each host, by route.
fn by_host(table: &Value) -> BTreeMap<String, BTreeMap<String, Vec<Value>>> {
    let mut hosts = BTreeMap::new();
    for host in table["hosts"].as_array().into_iter().flatten() {
        let routes: &mut BTreeMap<String, Vec<Value>> = hosts
            .entry(host["hostname"].as_str().expect("a name").to_owned())
            .or_default();
        for rule in host["rules"].as_array().expect("rules") {
            let route = rule["route"].as_str().expect("an id").to_owned();
            routes.entry(route).or_default().push(rule.clone());
        }
    }
    hosts
}

fn table_changes(old: &Value, new: &Value) -> Value {
    let (old, new) = (by_host(old), by_host(new));
    let mut hosts = Vec::new();
    for hostname in old.keys().filter(|hostname| !new.contains_key(*hostname)) {
        hosts.push(json!({"hostname": hostname, "removed": true}));
    }
    for (hostname, routes) in &new {
        let Some(before) = old.get(hostname) else {
            let rules: Vec<_> = routes.values().flatten().collect();
            hosts.push(json!({"hostname": hostname, "rules": rules}));
            continue;
        };
        let is_changed = |route: &&String| routes.get(*route) != before.get(*route);
        let rules: Vec<_> = routes
            .keys()
            .filter(is_changed)
            .flat_map(|route| &routes[route])
            .collect();
        let gone = before.keys().filter(|route| !routes.contains_key(*route));
        let gone: Vec<_> = gone.collect();
        if !rules.is_empty() || !gone.is_empty() {
            hosts.push(json!({"hostname": hostname, "rules": rules, "removed_rules": gone}));
        }
    }
    json!({"hosts": hosts})
}

fn diff(old: &Value, new: &Value, base: u64) -> Value {
    let mut tables = changed(&old["route_tables"], &new["route_tables"]);
    for (id, table) in &mut tables {
        if !table.is_null() {
            *table = table_changes(&old["route_tables"][id], table);
        }
    }
    let mut delta = json!({
        "version": 1, "base": base, "route_tables": tables,
        "routes": changed(&old["routes"], &new["routes"]),
        "clusters": changed(&old["clusters"], &new["clusters"]),
    });
    if old["listeners"] != new["listeners"] {
        delta["listeners"] = new["listeners"].clone();
    }
    delta
}

// === What can be seen ===

fn routes_of(listener: &Listener) -> Vec<(String, Arc<Routes>)> {
    match &listener.traffic {
        Traffic::Http(routes) => vec![(String::new(), Arc::clone(routes))],
        Traffic::Waypoint { destinations, .. } => {
            let mut all: Vec<_> = destinations
                .iter()
                .flat_map(|(key, destination)| {
                    [None, Some(SHOP)].map(|principal| (key, destination, principal))
                })
                .filter_map(
                    |(key, destination, principal)| match destination.carries(principal) {
                        Carries::Http(routes) => Some((
                            format!("{key:?} {} {principal:?}", destination.service),
                            Arc::clone(routes),
                        )),
                        _ => None,
                    },
                )
                .collect();
            all.sort_by(|(a, _), (b, _)| a.cmp(b));
            all
        }
        Traffic::Tcp(_) | Traffic::Udp(_) | Traffic::Tls { .. } => Vec::new(),
    }
}

fn cluster_of(cluster: Option<&Arc<Cluster>>) -> String {
    cluster.map_or_else(String::new, |cluster| {
        format!("{} {:?}", cluster.name, cluster.endpoints)
    })
}

/// What requests would meet.
fn seen(snapshot: &Snapshot) -> Vec<String> {
    let mut seen = Vec::new();
    let mut listeners: Vec<_> = snapshot.listeners.iter().collect();
    listeners.sort_by_key(|(id, _)| Arc::clone(id));
    for (id, listener) in listeners {
        seen.push(format!(
            "{id} {:?} {}",
            listener.bind, listener.max_connections
        ));
        if let Traffic::Tcp(forward) = &listener.traffic {
            seen.extend(
                forward
                    .backends
                    .iter()
                    .map(|one| cluster_of(one.cluster.as_ref())),
            );
        }
        if let Traffic::Waypoint { names, .. } = &listener.traffic {
            let names: BTreeSet<_> = names
                .iter()
                .map(|(name, at)| format!("{name:?} {at:?}"))
                .collect();
            seen.extend(names);
        }
        for (place, routes) in routes_of(listener) {
            for host in ["a.x", "b.x", "other"] {
                for path in PATHS {
                    let found = routes.table.find(&Get(host, path));
                    let answer = found.map(|found| {
                        let action = match &found.value.action {
                            Action::Forward(forward) => {
                                cluster_of(forward.backends[0].cluster.as_ref())
                            }
                            other => format!("{other:?}"),
                        };
                        format!("{} {:?} {action}", found.value.name(), found.prefix_len)
                    });
                    seen.push(format!("{id} {place} {host}{path} {answer:?}"));
                }
            }
        }
    }
    let endpoints: BTreeSet<_> = snapshot
        .endpoints
        .iter()
        .map(|key| format!("{key:?}"))
        .collect();
    seen.extend(endpoints);
    seen.extend(snapshot.problems.iter().cloned());
    seen
}

fn logs() -> LogWriter {
    LogWriter::start(WriterOptions::default()).expect("starts")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// One change after another, with one in between that cannot be served.
    #[test]
    fn changes_are_as_the_whole(wholes in vec(whole(), 2..6)) {
        let logs = logs();
        let now = Tick::from_nanos(0);
        let mut changing = Compiler::default();
        changing.compile(wholes[0].to_string().as_bytes(), &logs, 1, 1).expect("compiles");
        changing.commit(now);
        for (base, pair) in (1..).zip(wholes.windows(2)) {
            let mut refused = diff(&pair[0], &pair[1], base);
            refused["listeners"] = json!([{"id": "l", "bind": [], "traffic": {"type": "http", "route_table": "none"}}]);
            let error = changing.compile_delta(refused.to_string().as_bytes(), &logs, 1, base + 1);
            prop_assert!(matches!(error, Err(CompileError::NoRouteTable { .. })), "{:?}", error);

            // One that compiles and whose addresses cannot be bound is not committed.
            let delta = diff(&pair[0], &pair[1], base).to_string();
            changing.compile_delta(delta.as_bytes(), &logs, 1, base + 1).expect("compiles");
            let changed = changing.compile_delta(delta.as_bytes(), &logs, 1, base + 1).expect("compiles");
            changing.commit(now);
            let whole = Compiler::default().compile(pair[1].to_string().as_bytes(), &logs, 1, 1).expect("compiles");
            prop_assert_eq!(seen(&changed), seen(&whole), "{}", delta);
        }
    }
}

fn config(routes: usize) -> Value {
    let ids = || (0..routes).map(|number| format!("r{number}"));
    let rules = ids()
        .map(|id| json!({"path": {"prefix": format!("/{id}")}, "route": id, "rank": {"name": id}}));
    let route = |id: String| {
        let action = json!({"type": "direct", "status": 200});
        (id.clone(), json!({"name": id, "action": action}))
    };
    json!({
        "version": 1,
        "listeners": [{"id": "l", "bind": [], "traffic": {"type": "http", "route_table": "t"}}],
        "route_tables": {"t": {"hosts": [{"hostname": "*", "rules": rules.collect::<Vec<_>>()}]}},
        "routes": ids().map(route).collect::<Map<_, _>>(),
    })
}

#[test]
fn routes_with_the_same_policy_share_it() {
    let (logs, mut compiler) = (logs(), Compiler::default());
    let snapshot = compiler
        .compile(config(100).to_string().as_bytes(), &logs, 1, 1)
        .expect("compiles");
    let (_, routes) = &routes_of(&snapshot.listeners["l"])[0];
    let policy = |path| {
        Arc::as_ptr(
            routes
                .table
                .find(&Get("x", path))
                .expect("found")
                .value
                .policy(),
        )
    };
    assert_eq!(policy("/r1"), policy("/r99"));
}

#[test]
fn what_does_not_change_is_shared_with_the_snapshot_before() {
    let (logs, mut compiler) = (logs(), Compiler::default());
    let first = compiler
        .compile(config(1_000).to_string().as_bytes(), &logs, 1, 1)
        .expect("compiles");
    compiler.commit(Tick::from_nanos(0));
    let changed = json!({"name": "new", "action": {"type": "direct", "status": 204}});
    let delta = json!({"version": 1, "base": 1, "routes": {"r7": changed}}).to_string();
    let second = compiler
        .compile_delta(delta.as_bytes(), &logs, 1, 2)
        .expect("compiles");
    let route = |snapshot: &Snapshot, path| {
        let (_, routes) = &routes_of(&snapshot.listeners["l"])[0];
        routes
            .table
            .find(&Get("x", path))
            .expect("found")
            .value
            .clone()
    };
    let name = |snapshot| route(snapshot, "/r8").name().as_ptr();
    assert_eq!(name(&first), name(&second));
    assert_eq!(route(&first, "/r7").name(), "r7");
    assert_eq!(route(&second, "/r7").name(), "new");
    // Nothing changes for what is not named.
    let delta = json!({"version": 1, "base": 1}).to_string();
    let same = compiler
        .compile_delta(delta.as_bytes(), &logs, 1, 2)
        .expect("compiles");
    assert!(Arc::ptr_eq(&first.listeners["l"], &same.listeners["l"]));
}

#[test]
fn a_destination_may_carry_another_thing_for_some_clients() {
    let forward = |name: &str| json!({"name": name, "backends": []});
    let tls = json!({"routes": [
        {"server_names": ["a.x", "*"], "forward": forward("first")},
        {"server_names": ["a.x"], "forward": forward("second")},
    ]});
    let destination = json!({
        "address": "10.9.9.1", "port": 80, "service": "default/web", "tcp": forward("all"),
        "clients": {"shop": {"tcp": forward("shop")}, "bank": {"tls": tls}, "none": {}},
    });
    let listener = json!({
        "id": "waypoint", "bind": [], "traffic": {"type": "waypoint", "destinations": [destination]},
    });
    let config = json!({"version": 1, "listeners": [listener]}).to_string();
    let (logs, mut compiler) = (logs(), Compiler::default());
    let snapshot = compiler
        .compile(config.as_bytes(), &logs, 1, 1)
        .expect("compiles");
    let Traffic::Waypoint { destinations, .. } = &snapshot.listeners["waypoint"].traffic else {
        panic!("a waypoint");
    };
    let (_, destination) = destinations.iter().next().expect("one");
    let name = |principal: Option<&str>| match destination.carries(principal) {
        Carries::Tcp(forward) => forward.name.clone(),
        Carries::Tls { .. } => "tls".to_owned(),
        carries => panic!("{carries:?}"),
    };
    for (principal, expected) in [
        (None, "all"),
        (Some(SHOP), "shop"),
        (Some("spiffe://elsewhere/ns/shop/sa/other"), "shop"),
        (Some("spiffe://cluster.local/ns/bank/sa/desk"), "tls"),
        (Some("spiffe://cluster.local/ns/shopping/sa/till"), "all"),
        (Some("spiffe://cluster.local/ns/none/sa/till"), "all"),
        (Some("spiffe://cluster.local/shop"), "all"),
    ] {
        assert_eq!(name(principal), expected, "{principal:?}");
    }
    assert_eq!(
        snapshot.problems,
        [
            "waypoint: 10.9.9.1:80 for clients of bank: server name \"a.x\" is taken",
            "waypoint: 10.9.9.1:80 for clients of none: neither routes nor backends",
        ]
    );
}

#[test]
fn a_route_that_is_not_the_ir_is_named() {
    let (logs, mut compiler) = (logs(), Compiler::default());
    for (filters, action) in [
        (
            json!([{"type": "none"}]),
            json!({"type": "direct", "status": 200}),
        ),
        (
            json!([]),
            json!({"type": "direct", "status": 200, "unknown": 1}),
        ),
        (json!({}), json!({"type": "direct", "status": 200})),
    ] {
        let route = json!({"name": "n", "filters": filters, "action": action});
        let config = json!({"version": 1, "routes": {"the-route": route}}).to_string();
        let error = compiler
            .compile(config.as_bytes(), &logs, 1, 1)
            .expect_err("not the IR");
        assert!(error.to_string().contains("route \"the-route\""), "{error}");
    }
}
