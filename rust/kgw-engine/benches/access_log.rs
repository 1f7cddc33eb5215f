//! What a log line costs the worker: rendering it, and queueing it.

use divan::{Bencher, black_box};
use kgw_engine::telemetry::access_log::{
    FormatOptions, LogProgram, LogWriter, WriterOptions, sample,
};
use serde_json::{Value, json};

fn main() {
    divan::main();
}

/// The ten keys of the waypoint document.
fn ten_keys() -> LogProgram {
    let format = json!({
        "start_time": "%START_TIME%",
        "method": "%REQ(X-ENVOY-ORIGINAL-METHOD?:METHOD)%",
        "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
        "protocol": "%PROTOCOL%",
        "response_code": "%RESPONSE_CODE%",
        "response_flags": "%RESPONSE_FLAGS%",
        "bytes_received": "%BYTES_RECEIVED%",
        "bytes_sent": "%BYTES_SENT%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "authority": "%REQ(:AUTHORITY)%"
    });
    json_program(&format)
}

fn json_program(format: &Value) -> LogProgram {
    LogProgram::json(format, FormatOptions::default()).expect("the format is valid")
}

#[divan::bench]
fn render_ten_keys(bencher: Bencher) {
    let program = ten_keys();
    let mut out = Vec::with_capacity(4096);
    sample(|record| {
        bencher.bench_local(|| {
            out.clear();
            program.render(black_box(record), &mut out);
        });
    });
}

#[divan::bench]
fn render_start_time(bencher: Bencher) {
    let program = json_program(&json!({"t": "%START_TIME%"}));
    let mut out = Vec::with_capacity(4096);
    sample(|record| {
        bencher.bench_local(|| {
            out.clear();
            program.render(black_box(record), &mut out);
        });
    });
}

#[divan::bench]
fn render_addresses(bencher: Bencher) {
    let program = json_program(&json!({
        "client": "%DOWNSTREAM_REMOTE_ADDRESS%", "service": "%DOWNSTREAM_LOCAL_ADDRESS%"
    }));
    let mut out = Vec::with_capacity(4096);
    sample(|record| {
        bencher.bench_local(|| {
            out.clear();
            program.render(black_box(record), &mut out);
        });
    });
}

/// Rendering into the queue of a sink that is written to `/dev/null` at the same time.
#[divan::bench]
fn log_ten_keys(bencher: Bencher) {
    let program = ten_keys();
    let writer = LogWriter::start(WriterOptions::default()).expect("threads can be started");
    let sink = writer.open("/dev/null").expect("/dev/null can be opened");
    sample(|record| {
        bencher.bench_local(|| sink.push(0, |out| program.render(black_box(record), out)));
    });
}
