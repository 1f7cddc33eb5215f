//! What many routes cost an engine: time to load them, memory to keep them, time to change one.
//!
//! Times are of the calling thread's CPU, from JSON to a published snapshot; memory is all that the
//! engine keeps of a configuration. `cargo bench -p kgw-engine --bench load`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kgw_engine::config::ir;
use kgw_engine::runtime::{Engine, Options};

/// Counts the bytes that are allocated.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "there is no other way to count allocations")]
// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATED.fetch_add(size, Ordering::Relaxed);
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// How routes are spread.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    /// Hosts that the routes are on, in turn; 0 is a host for each.
    hosts: usize,
    /// Services that the routes lead to, in turn; 0 is a service for each.
    services: usize,
    /// One route in so many has a regular expression; 0 is none.
    regexes: usize,
}

const SHAPES: [Shape; 6] = [
    Shape {
        name: "one host, one service",
        hosts: 1,
        services: 1,
        regexes: 0,
    },
    Shape {
        name: "1,000 hosts, one service",
        hosts: 1_000,
        services: 1,
        regexes: 0,
    },
    Shape {
        name: "a host each, one service",
        hosts: 0,
        services: 1,
        regexes: 0,
    },
    Shape {
        name: "one host, 1,000 services",
        hosts: 1,
        services: 1_000,
        regexes: 0,
    },
    Shape {
        name: "one host, a service each",
        hosts: 1,
        services: 0,
        regexes: 0,
    },
    Shape {
        name: "one host, every tenth a regex",
        hosts: 1,
        services: 1,
        regexes: 10,
    },
];

impl Shape {
    fn spread(count: usize, index: usize) -> usize {
        if count == 0 { index } else { index % count }
    }

    fn id(index: usize) -> String {
        format!("httproute/default/route-{index}/0/0@gateway/default/edge/80")
    }

    fn host(self, index: usize) -> String {
        format!("team-{}.api.example", Self::spread(self.hosts, index))
    }

    fn rule(self, index: usize) -> String {
        let path = format!("/api/v1/team-{}/service-{index}", index % 97);
        let path = if self.regexes > 0 && index.is_multiple_of(self.regexes) {
            format!(r#"{{"regex":"{path}/[0-9]+(/.*)?"}}"#)
        } else {
            format!(r#"{{"prefix":"{path}"}}"#)
        };
        format!(
            r#"{{"path":{path},"rank":{{"created":1700000000,"name":"default/route-{index}","rule":0,"match":0}},"route":"{}"}}"#,
            Self::id(index)
        )
    }

    fn route(self, index: usize, timeout_ms: u64) -> String {
        let service = Self::spread(self.services, index);
        format!(
            r#""{}":{{"name":"default/route-{index}/0/0","filters":[],"action":{{"type":"forward","backends":[{{"cluster":"kube_default_service-{service}_80","weight":1,"filters":[]}}],"request_timeout_ms":{timeout_ms}}}}}"#,
            Self::id(index)
        )
    }

    /// A configuration of `size` routes.
    fn config(self, size: usize) -> String {
        let hosts = match self.hosts {
            0 => size,
            hosts => hosts.min(size),
        };
        let services = match self.services {
            0 => size,
            services => services.min(size),
        };
        let mut json = String::from(
            r#"{"version":1,"listeners":[{"id":"l","bind":["127.0.0.1:0"],"traffic":{"type":"http","route_table":"t"}}],"route_tables":{"t":{"hosts":["#,
        );
        for host in 0..hosts {
            let comma = if host > 0 { "," } else { "" };
            let name = self.host(host);
            let _ = write!(json, r#"{comma}{{"hostname":"{name}","rules":["#);
            for (at, index) in (host..size).step_by(hosts).enumerate() {
                json.push_str(if at > 0 { "," } else { "" });
                json.push_str(&self.rule(index));
            }
            json.push_str("]}");
        }
        json.push_str(r#"]}},"routes":{"#);
        for index in 0..size {
            json.push_str(if index > 0 { "," } else { "" });
            json.push_str(&self.route(index, 15_000));
        }
        json.push_str(r#"},"clusters":{"#);
        for service in 0..services {
            let comma = if service > 0 { "," } else { "" };
            let (high, low) = (service >> 8 & 255, service & 255);
            let _ = write!(
                json,
                r#"{comma}"kube_default_service-{service}_80":{{"endpoints":["10.1.{high}.{low}:8080"],"connect_timeout_ms":5000}}"#
            );
        }
        json.push_str("}}");
        json
    }

    /// A changed route, and then a route that comes with its rule or goes with it.
    fn deltas(self, size: usize, base: u64, comes: bool) -> [String; 2] {
        let (changed, new) = (size / 2, size + 1);
        let action = self.route(changed, 10_000 + base);
        let (route, rules) = if comes {
            let rules = format!(r#""rules":[{}]"#, self.rule(new));
            (self.route(new, 15_000), rules)
        } else {
            let id = Self::id(new);
            (
                format!(r#""{id}":null"#),
                format!(r#""removed_rules":["{id}"]"#),
            )
        };
        let host = self.host(changed);
        let next = base + 1;
        [
            format!(r#"{{"version":1,"base":{base},"routes":{{{action}}}}}"#),
            format!(
                r#"{{"version":1,"base":{next},"routes":{{{route}}},"route_tables":{{"t":{{"hosts":[{{"hostname":"{host}",{rules}}}]}}}}}}"#
            ),
        ]
    }
}

/// CPU time of this thread so far.
fn cpu() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    #[expect(
        unsafe_code,
        reason = "the standard library has no clock of a thread's CPU time"
    )]
    // SAFETY: the pointer is to a `timespec` of this frame.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(failed, 0);
    let (seconds, nanos) = (time.tv_sec.cast_unsigned(), time.tv_nsec.cast_unsigned());
    Duration::from_secs(seconds) + Duration::from_nanos(nanos)
}

/// Resident memory of the process. Bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = status.split(' ').nth(1).expect("a number");
    pages.parse::<usize>().expect("a number") * 4096
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let before = cpu();
    let done = work();
    (done, cpu().saturating_sub(before))
}

#[expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "a report")]
fn main() {
    let only = std::env::args().nth(1).filter(|arg| !arg.starts_with('-'));
    println!(
        "{:>8}  {:30} {:>9} {:>9} {:>9} {:>8} {:>10} {:>10}",
        "routes", "", "parse ms", "load ms", "B/route", "RSS/rt", "route ms", "rule ms"
    );
    for size in [10_000, 100_000] {
        for shape in SHAPES {
            if only
                .as_deref()
                .is_some_and(|only| !shape.name.contains(only))
            {
                continue;
            }
            let json = shape.config(size);
            let options = Options {
                workers: Some(1),
                ..Options::default()
            };
            let engine = Engine::new(&options);
            engine
                .start(Shape { ..shape }.config(1).as_bytes())
                .expect("starts");
            let rounds: u64 = if size > 10_000 { 3 } else { 5 };
            let parses = (0..rounds).map(|_| {
                timed(|| {
                    black_box(serde_json::from_str::<ir::Config<'_>>(&json).expect("valid"));
                })
                .1
            });
            let parse = median(parses.collect());
            let (allocated, rss) = (ALLOCATED.load(Ordering::Relaxed), resident());
            let mut loads = Vec::new();
            let mut kept = 0;
            let mut grown = 0;
            for round in 0..rounds {
                let (generation, load) = timed(|| engine.apply(json.as_bytes()).expect("applies"));
                assert!(
                    engine
                        .wait_applied(generation, Duration::from_secs(60))
                        .expect("runs")
                );
                assert_eq!(engine.problems().expect("runs"), [""; 0]);
                if round == 0 {
                    kept = ALLOCATED.load(Ordering::Relaxed) - allocated;
                    grown = resident().saturating_sub(rss);
                }
                loads.push(load);
            }
            let mut times = [Vec::new(), Vec::new()];
            for round in 0..20_u64 {
                let base = rounds + 1 + 2 * round;
                for (delta, times) in shape
                    .deltas(size, base, round % 2 == 0)
                    .iter()
                    .zip(&mut times)
                {
                    let (generation, time) =
                        timed(|| engine.apply_delta(delta.as_bytes()).expect("applies"));
                    assert!(
                        engine
                            .wait_applied(generation, Duration::from_secs(60))
                            .expect("runs")
                    );
                    times.push(time);
                }
            }
            assert_eq!(engine.problems().expect("runs"), [""; 0]);
            let [route, rule] = times.map(median);
            println!(
                "{size:>8}  {:30} {parse:>9.1} {:>9.1} {:>9.0} {:>8.0} {route:>10.2} {rule:>10.2}",
                shape.name,
                median(loads),
                kept as f64 / size as f64,
                grown as f64 / size as f64,
            );
        }
    }
}
