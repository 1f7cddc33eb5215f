//! What a worker does for each request beside parsing and I/O: `make bench-rust`.

use divan::{Bencher, black_box};
use kgw_engine::bench::{BenchWorker, FilterChain};
use kgw_engine::runtime::{Engine, Options};
use kgw_h1::{Limits, Request, Status};
use serde_json::json;

const REQUEST: &[u8] = b"GET /api/v1/orders/42?x=1 HTTP/1.1\r\n\
    Host: bench.example.com\r\n\
    User-Agent: bench/1\r\n\
    Accept: */*\r\n\r\n";

fn main() {
    divan::main();
}

/// An engine with one route, which has a limit that is never reached and a header to add.
fn engine() -> Engine {
    let limit = json!({
        "type": "local_rate_limit", "bucket": "b", "max_tokens": 1_u64 << 40,
        "tokens_per_fill": 1, "fill_interval_ns": 1_000_000_000
    });
    let header = json!({"type": "request_headers", "add": [["x-waypoint", "kgw"]]});
    let config = json!({
        "version": 1,
        "listeners": [{
            "id": "l",
            "bind": ["127.0.0.1:0"],
            "traffic": {"type": "http", "route_table": "t"}
        }],
        "route_tables": {"t": {"hosts": [{
            "hostname": "*",
            "rules": [{"path": {"prefix": "/"}, "rank": {"name": "r"}, "route": "r"}]
        }]}},
        "routes": {"r": {
            "name": "r",
            "filters": [limit, header],
            "action": {"type": "direct", "status": 200}
        }}
    });
    let engine = Engine::new(&Options {
        workers: Some(1),
        ..Options::default()
    });
    let started = engine.start(config.to_string().as_bytes());
    started.expect("the configuration is valid");
    engine
}

fn request() -> Request {
    let mut request = Request::new();
    let status = request.parse(REQUEST, &Limits::REQUEST);
    assert_eq!(status, Ok(Status::Complete(REQUEST.len())));
    request
}

/// Whether there is a newer configuration.
#[divan::bench(sample_size = 1000)]
fn snapshot_check(bencher: Bencher<'_, '_>) {
    let engine = engine();
    let worker = BenchWorker::new(&engine).expect("it runs");
    bencher.bench_local(|| assert_eq!(black_box(&worker).generation(), 1));
}

/// A token taken and a field added.
#[divan::bench(sample_size = 100)]
fn filter_chain(bencher: Bencher<'_, '_>) {
    let engine = engine();
    let worker = BenchWorker::new(&engine).expect("it runs");
    let chain = worker.filter_chain("l", &request());
    let chain: FilterChain = chain.expect("there is a route");
    bencher
        .with_inputs(request)
        .bench_local_refs(|request| assert!(chain.run(black_box(request))));
}
