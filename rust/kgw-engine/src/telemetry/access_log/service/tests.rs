//! The messages that services get, field by field as far as no other test sees them.

use serde_json::{Value, json};

use super::super::{Point, sample};
use super::*;
use crate::protobuf::wire::{Field, read};
use crate::telemetry::access_log::Record;

/// What of a message has a number.
fn all(message: &[u8], wanted: u64) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    read(message, |Field { number, value }| {
        if number == wanted {
            found.push(value.bytes().to_vec());
        }
        Ok(())
    })
    .unwrap();
    found
}

/// What of a message has these numbers, each inside of the one before.
fn within(message: &[u8], numbers: &[u64]) -> Vec<u8> {
    let mut message = message.to_vec();
    for wanted in numbers {
        message = all(&message, *wanted).pop().unwrap_or_default();
    }
    message
}

fn int(message: &[u8], wanted: u64) -> Option<i64> {
    let mut found = None;
    read(message, |Field { number, value }| {
        if number == wanted {
            found = Some(value.int());
        }
        Ok(())
    })
    .unwrap();
    found
}

fn config(protocol: &Value) -> ir::AccessLogService {
    let config = json!({
        "cluster": "logs",
        "authority": "logs.example",
        "log_name": "name",
        "node_cluster": "gateway.namespace",
        "protocol": protocol,
    });
    serde_json::from_value(config).unwrap()
}

fn service(protocol: &Value) -> Service {
    let cluster = Arc::new(crate::config::snapshot::Cluster::named("logs"));
    Service::new(&config(protocol), cluster, &Services::new(1)).unwrap()
}

fn body(message: &[u8]) -> &[u8] {
    let (prefix, body) = message.split_at(PREFIX);
    assert_eq!(prefix[0], 0);
    assert_eq!(
        prefix[1..],
        u32::try_from(body.len()).unwrap().to_be_bytes()
    );
    body
}

fn lines(entries: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    entries(&mut out);
    out
}

#[test]
fn the_first_message_of_a_stream_says_whom_it_is_from() {
    let envoy = service(&json!({"type": "envoy"}));
    let entries = envoy::Entries::default();
    let batch = lines(|out| {
        for _ in 0..100 {
            sample(|record| entries.write_request(out, record));
        }
    });
    for is_first in [true, false] {
        let message = envoy.message(&batch, false, is_first);
        let identifier = within(body(&message), &[1]);
        assert_eq!(identifier.is_empty(), !is_first);
        if is_first {
            assert_eq!(within(&identifier, &[2]), b"name");
            assert_eq!(within(&identifier, &[1, 2]), b"gateway.namespace");
            assert_eq!(within(&identifier, &[1, 6]), b"kgw");
        }
        let entries = all(&within(body(&message), &[2]), 1);
        assert_eq!(entries.len(), 100);
        assert_eq!(within(&entries[99], &[3, 5]), b"/");
        assert_eq!(int(&within(&entries[99], &[4, 1]), 1), Some(429));
        assert_eq!(within(&entries[99], &[4, 6]), b"local_rate_limited");
    }
}

#[test]
fn connections_have_entries_of_their_own() {
    let envoy = service(&json!({"type": "envoy"}));
    let mut record = Record::new();
    record.subject = Subject::Connection;
    record.request.body_bytes = 3;
    record.response.body_bytes = 4;
    let batch = lines(|out| envoy::write_connection(out, &record));
    let message = envoy.message(&batch, true, false);
    let entry = within(body(&message), &[3, 1]);
    let connection = within(&entry, &[2]);
    assert_eq!(
        (int(&connection, 1), int(&connection, 2)),
        (Some(3), Some(4))
    );
    assert_eq!(int(&within(&entry, &[1]), 33), Some(3));
}

#[test]
fn flags_and_times_are_what_they_were() {
    for flag in crate::telemetry::flags::ResponseFlag::ALL {
        let mut record = Record::new();
        record.flags.set(flag);
        record.start_unix_ns = 1_500_000_000;
        record.timings.set(Point::DownstreamRxBegin, 5);
        record.timings.set(Point::UpstreamRxEnd, 2_000_000_012);
        record.timings.set(Point::StreamEnd, 5);
        let entry = lines(|out| envoy::write_connection(out, &record));
        let common = within(&entry, &[1, 1]);
        let start = within(&common, &[5]);
        assert_eq!(
            (int(&start, 1), int(&start, 2)),
            (Some(1), Some(500_000_000))
        );
        let last = within(&common, &[10]);
        assert_eq!((int(&last, 1), int(&last, 2)), (Some(2), Some(7)));
        assert_eq!(all(&common, 23), [b""], "no time at all is said");
        assert!(all(&common, 6).is_empty(), "what did not happen is not");
        let flags = &all(&common, 16)[0];
        let has_none = matches!(flag.short(), "DO" | "UDO" | "PFE");
        assert_eq!(flags.is_empty(), has_none, "{flag:?}");
    }
}

#[test]
fn records_are_of_a_resource() {
    let protocol = json!({
        "type": "open_telemetry",
        "body": {"string": "%REQ(:METHOD)% %NOTHING%"},
    });
    let wrong = config(&protocol);
    assert!(Form::compile(&wrong.protocol).is_err());
    let protocol = json!({
        "type": "open_telemetry",
        "body": {"string": "%REQ(:METHOD)%"},
        "attributes": [
            ["code", {"string": "<%RESPONSE_CODE%>"}],
            ["list", {"array": [{"string": "%ROUTE_NAME%"}, {"key_values": [["k", {"string": ""}]]}]}],
        ],
        "resource_attributes": [["service.name", {"string": "%NOT_A_FORMAT%"}]],
        "builtin_labels": true,
    });
    let telemetry = service(&protocol);
    let Form::OpenTelemetry(records) = Form::compile(&config(&protocol).protocol).unwrap() else {
        panic!("another form");
    };
    let batch = lines(|out| {
        for _ in 0..20 {
            sample(|record| records.write(out, record));
        }
    });
    let message = telemetry.message(&batch, false, true);
    let logs = within(body(&message), &[1]);
    let resource = all(&within(&logs, &[1]), 1);
    let names: Vec<_> = resource.iter().map(|one| within(one, &[1])).collect();
    let expected = [
        "log_name",
        "zone_name",
        "cluster_name",
        "node_name",
        "service.name",
    ];
    assert_eq!(names, expected.map(|name| name.as_bytes().to_vec()));
    assert_eq!(within(&resource[4], &[2, 1]), b"%NOT_A_FORMAT%");
    let records = all(&within(&logs, &[2]), 2);
    assert_eq!(records.len(), 20);
    assert_eq!(within(&records[0], &[5, 1]), b"GET");
    let attributes = all(&records[0], 6);
    assert_eq!(within(&attributes[0], &[2, 1]), b"<429>");
    let list = all(&within(&attributes[1], &[2, 5]), 1);
    assert_eq!(within(&list[0], &[1]), b"default/ollama/0/0");
    assert_eq!(within(&list[1], &[6, 1, 1]), b"k");
}

#[test]
fn the_environment_states_attributes() {
    let found: Vec<_> = of_environment("team=a, zone = b=c,none,=x,").collect();
    assert_eq!(found, [("team", "a"), ("zone", "b=c")]);
}

#[test]
fn what_cannot_be_a_call_is_refused() {
    let services = Services::new(1);
    let cluster = || Arc::new(crate::config::snapshot::Cluster::named("logs"));
    let envoy = config(&json!({"type": "envoy"}));
    let mut wrong = envoy.clone();
    wrong.authority = "not a host".to_owned();
    assert!(matches!(
        services.open(&wrong, cluster()),
        Err(ServiceError::Authority(_))
    ));
    for name in ["a b", "content-length"] {
        let mut wrong = envoy.clone();
        wrong.metadata = vec![(name.to_owned(), "1".to_owned())];
        assert!(matches!(
            services.open(&wrong, cluster()),
            Err(ServiceError::Metadata(_))
        ));
    }
    let mut wrong = envoy.clone();
    wrong.timeout_ms = 0;
    assert!(matches!(
        services.open(&wrong, cluster()),
        Err(ServiceError::Time)
    ));
    // The same service is open once, whatever is logged.
    let one = services.open(&envoy, cluster()).unwrap();
    let mut filtered = envoy;
    filtered.filter = Some(ir::AccessLogFilter::NotHealthCheck);
    assert!(Arc::ptr_eq(
        &one,
        &services.open(&filtered, cluster()).unwrap()
    ));
}

#[test]
fn what_does_not_fit_is_dropped_and_counted() {
    let services = Services::new(1);
    let cluster = Arc::new(crate::config::snapshot::Cluster::named("logs"));
    let mut config = config(&json!({"type": "envoy"}));
    config.filter = Some(ir::AccessLogFilter::NotHealthCheck);
    let log = ServiceLog::new(&config, cluster, &services).unwrap();
    sample(|record| {
        let mut health_check = *record;
        health_check.response.details = Some("health_check_ok");
        log.log(0, &health_check);
    });
    let feed = &log.service().feeds[0];
    assert_eq!(feed.written.load(Ordering::Relaxed), 0);
    let write = |entries: u64| {
        for _ in 0..entries {
            sample(|record| log.log(0, record));
        }
    };
    write(1);
    assert_eq!(feed.state.load(Ordering::Relaxed), WAITING);
    write(9_999);
    assert_eq!(feed.state.load(Ordering::Relaxed), URGENT);
    let (mut requests, mut connections) = (Lines::default(), Lines::default());
    feed.take(&mut requests, &mut connections);
    assert!(requests.bytes.len() <= QUEUE_BYTES && connections.bytes.is_empty());
    assert_eq!(requests.lengths.len() as u64 + feed.dropped(), 10_000);
    assert!(feed.dropped() > 0);
    assert!(!services.flush(Duration::ZERO));
}
