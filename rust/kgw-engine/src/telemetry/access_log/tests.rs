//! Whole formats: against what Envoy printed for the same requests, and for what is special to each.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use super::*;
use crate::telemetry::flags::{ResponseFlag, ResponseFlags};

fn line(format: &Value, record: &Record<'_>) -> String {
    let program = LogProgram::json(format, FormatOptions::default()).unwrap();
    let mut out = Vec::new();
    program.render(record, &mut out);
    String::from_utf8(out).unwrap()
}

fn text(format: &str, record: &Record<'_>) -> String {
    let program = LogProgram::text(format, FormatOptions::default()).unwrap();
    let mut out = Vec::new();
    program.render(record, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn leaf(format: &str, record: &Record<'_>) -> Value {
    let line: Value = serde_json::from_str(&line(&json!({ "x": format }), record)).unwrap();
    line["x"].clone()
}

fn error(format: &str) -> String {
    LogProgram::text(format, FormatOptions::default())
        .unwrap_err()
        .to_string()
}

// === What Envoy printed ===

/// Calls `check` with the record of a request of the recording.
fn recorded(request: &str, check: impl FnOnce(&Record<'_>)) {
    let mut timings = Timings::new();
    timings.set(Point::DownstreamRxBegin, 0);
    timings.set(Point::StreamEnd, 3_000_000);
    let address = |text: &str| text.parse::<SocketAddr>().ok();
    let mut record = Record {
        start_unix_ns: 1_795_395_072_156_047_000,
        emit_unix_ns: 1_795_395_072_159_047_000,
        timings,
        filter_chain_name: Some("ops"),
        downstream: Downstream {
            connection_id: Some(1),
            remote: address("127.0.0.1:40000"),
            local: address("127.0.0.1:10005"),
            direct_remote: address("127.0.0.1:40000"),
            direct_local: address("127.0.0.1:10005"),
            detected_close_type: Some("Normal"),
            ..Downstream::default()
        },
        ..Record::new()
    };
    record.request.protocol = Some("HTTP/1.1");
    if request == "disconnect" {
        record.response.details = Some("downstream_remote_disconnect");
        record
            .flags
            .set(ResponseFlag::DownstreamConnectionTermination);
        check(&record);
        return;
    }

    for (point, at) in [
        (Point::DownstreamRxEnd, 100_000),
        (Point::UpstreamConnectBegin, 200_000),
        (Point::UpstreamConnectEnd, 300_000),
        (Point::UpstreamTxBegin, 400_000),
        (Point::UpstreamTxEnd, 500_000),
        (Point::UpstreamRxBegin, 1_000_000),
        (Point::UpstreamRxEnd, 1_100_000),
        (Point::DownstreamTxBegin, 1_200_000),
        (Point::DownstreamTxEnd, 1_300_000),
    ] {
        record.timings.set(point, at);
    }
    let added: [(&str, &[u8]); 3] = [
        ("x-forwarded-for", b"<LOCALIP>"),
        ("x-forwarded-proto", b"http"),
        ("x-request-id", b"<UUID>"),
    ];
    let sent: &[(&str, &[u8])] = &[
        ("User-Agent", b"ua/1"),
        ("x-dup", b"one"),
        ("x-dup", b"two"),
        ("x-empty", b""),
        ("x-long", b"abcdefghij"),
        ("x-utf8", b"caf\xc3\xa9 \xff\x80"),
        ("x-quote", b"a\"b\\c\td/"),
    ];
    let full = request == "full";
    let fields: Vec<_> = if full {
        [sent, &added].concat()
    } else {
        added.to_vec()
    };
    let fields = &fields[..];
    let answered: &[(&str, &[u8])] = &[
        (
            "content-type",
            if full {
                b"application/json"
            } else {
                b"text/plain"
            },
        ),
        ("x-envoy-upstream-service-time", b"1"),
        ("server", b"envoy"),
        ("x-multi", b"1"),
        ("x-multi", b"2"),
    ];
    let answered = if full { answered } else { &answered[..3] };
    let attempted = [address("127.0.0.1:18081").unwrap()];
    let metadata: Map<String, Value> = [("ns.test".to_owned(), json!({"k": "val\"ue", "n": 42.5}))]
        .into_iter()
        .collect();
    record.metadata = full.then_some(&metadata);
    record.pool_ready_ns = Some(200_000);
    record.route_name = Some("all");
    record.cluster = Some("a");
    record.request.method = Some(if full { b"POST" } else { b"GET" });
    record.request.path = Some(if full { b"/p/a?a=1&b=%20x+y&a=2" } else { b"/" });
    record.request.authority = Some(if full { b"ops.test:81" } else { b"ops.test" });
    record.request.scheme = Some(b"http");
    record.request.headers = Some(&fields);
    record.request.id = Some(b"<UUID>");
    record.request.body_bytes = if full { 4 } else { 0 };
    record.response.code = 200;
    record.response.details = Some("via_upstream");
    record.response.headers = Some(&answered);
    record.response.body_bytes = 2;
    record.upstream = Upstream {
        host: Some(attempted[0]),
        hosts_attempted: &attempted,
        attempts: 1,
        connection_id: 1,
        connection_ids_attempted: &[1],
        protocol: Some("HTTP/1.1"),
        local: address("127.0.0.1:50000"),
        detected_close_type: Some("Normal"),
        ..Upstream::default()
    };
    check(&record);
}

fn recordings() -> Vec<Value> {
    let data = include_str!("../../../../../tests/data/access_log_operators.json");
    let mut data: Value = serde_json::from_str(data).unwrap();
    serde_json::from_value(data["requests"].take()).unwrap()
}

#[test]
fn every_operator_prints_what_envoy_printed() {
    for recording in recordings() {
        let request = recording["request"].as_str().unwrap();
        let mut compared = 0;
        for (operator, expected) in recording["operators"].as_object().unwrap() {
            // It was set for Envoy, and is not for this test.
            if operator == "%ENVIRONMENT(LAB_ENV)%" {
                continue;
            }
            recorded(request, |record| {
                let typed = leaf(operator, record);
                let text = text(operator, record);
                match (expected, &typed) {
                    (Value::String(any), typed) if any == "<V>" => {
                        assert!(!typed.is_null(), "{request}: {operator} is missing");
                        assert_ne!(text, "-", "{request}: {operator}");
                    }
                    _ => assert_eq!(&typed, expected, "{request}: {operator}"),
                }
                match &typed {
                    Value::Null => assert_eq!(text, "-", "{request}: {operator}"),
                    // Text is raw where JSON has to turn into Latin-1.
                    Value::String(_) if operator == "%REQ(X-UTF8)%" => {}
                    Value::String(typed) if operator != "%UNIQUE_ID%" => assert_eq!(&text, typed),
                    Value::String(_) => assert_eq!(text.len(), 36),
                    typed => assert_eq!(text, typed.to_string(), "{request}: {operator}"),
                }
            });
            compared += 1;
        }
        assert_eq!(compared, 171, "{request}");
    }
}

#[test]
fn whole_lines_are_what_envoy_printed() {
    let omitting = json!({
        "a": "%REQ(x-none)%", "b": "x%REQ(x-none)%y", "code": "%RESPONSE_CODE%",
        "mix": "code=%RESPONSE_CODE%", "num": 7, "boolean": true, "nul": null, "empty": "",
        "nested": {"n_duration": "%DURATION%", "list": ["%PROTOCOL%", "lit", "%RESPONSE_CODE%"]},
        "pct": "100%%"
    });
    let sorting = json!({
        "zeta": "%PROTOCOL%", "alpha": "%REQ(x-none)%", "mid": "lit", "Beta": "upper",
        "mixmiss": "x%REQ(x-none)%y", "twomiss": "%REQ(x-none)%%REQ(x-none)%",
        "spacecode": "%RESPONSE_CODE% ", "two": "%RESPONSE_CODE%%RESPONSE_CODE%", "nul": null,
        "emptyhdr": "[%REQ(x-empty)%]", "nested": {"z": "%REQ(x-none)%", "a": "%RESPONSE_CODE%"}
    });
    for recording in recordings() {
        recorded(recording["request"].as_str().unwrap(), |record| {
            assert_eq!(line(&sorting, record), format!("{}\n", recording["sorted"]));
            let options = FormatOptions {
                omit_empty_values: true,
            };
            let mut out = Vec::new();
            LogProgram::json(&omitting, options)
                .unwrap()
                .render(record, &mut out);
            let expected = recording["omit_empty_values"]
                .to_string()
                .replace("\"<N>\"", "3");
            assert_eq!(String::from_utf8(out).unwrap(), format!("{expected}\n"));
        });
    }
}

#[test]
fn the_documents_line_has_its_keys_and_types() {
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
    let expected = concat!(
        r#"{"authority":"ollama","bytes_received":0,"bytes_sent":18,"method":"GET","path":"/","#,
        r#""protocol":"HTTP/1.1","request_id":"88c6504b-d3e3-4921-92af-d06f0f0ce877","#,
        r#""response_code":429,"response_flags":"RL","start_time":"2025-04-10T18:36:34.047Z"}"#,
        "\n"
    );
    assert_eq!(sample(|record| line(&format, record)), expected);
}

// === What is special ===

#[test]
fn an_identity_is_missing_without_its_tlv_and_empty_with_an_empty_one() {
    let format = "%FILTER_STATE(io.istio.peer_principal:PLAIN)%";
    let mut record = Record::new();
    assert_eq!(leaf(format, &record), Value::Null);
    record.peer_principal = Some(b"");
    assert_eq!(leaf(format, &record), json!(""));
    record.peer_principal = Some(b"spiffe://t/ns/a/sa/b");
    assert_eq!(leaf(format, &record), json!("spiffe://t/ns/a/sa/b"));
    assert_eq!(
        leaf("%FILTER_STATE(io.istio.peer_principal:PLAIN):9%", &record),
        json!("spiffe://")
    );
    // As in Envoy's HTTP logs.
    let metadata = "%DYNAMIC_METADATA(envoy.filters.listener.proxy_protocol:peer_principal)%";
    assert_eq!(leaf(metadata, &record), Value::Null);
}

#[test]
fn flags_are_printed_in_the_order_in_which_they_were_set() {
    let flags = [
        ResponseFlag::UpstreamRetryLimitExceeded,
        ResponseFlag::UpstreamRequestTimeout,
    ];
    let record = Record {
        flags: ResponseFlags::from_iter(flags),
        ..Record::new()
    };
    assert_eq!(text("%RESPONSE_FLAGS%", &record), "URX,UT");
    assert_eq!(
        text("%RESPONSE_FLAGS_LONG%", &record),
        "UpstreamRetryLimitExceeded,UpstreamRequestTimeout"
    );
}

#[test]
fn details_have_underscores_for_spaces_unless_asked_otherwise() {
    let mut record = Record::new();
    record.response.details = Some("via upstream\tnow");
    record.upstream.transport_failure_reason = Some("delayed_connect_error: Connection refused");
    assert_eq!(text("%RESPONSE_CODE_DETAILS%", &record), "via_upstream_now");
    assert_eq!(
        text("%RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)%", &record),
        "via upstream\tnow"
    );
    assert_eq!(
        text("%UPSTREAM_TRANSPORT_FAILURE_REASON%", &record),
        "delayed_connect_error:_Connection_refused"
    );
}

#[test]
fn addresses_lose_their_port_or_become_networks() {
    let mut record = Record::new();
    record.downstream.remote = "[2001:db8:1:2::3]:443".parse().ok();
    assert_eq!(
        text("%DOWNSTREAM_REMOTE_ADDRESS%", &record),
        "[2001:db8:1:2::3]:443"
    );
    let without = "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT";
    assert_eq!(text(&format!("%{without}%"), &record), "2001:db8:1:2::3");
    assert_eq!(
        text(&format!("%{without}(48)%"), &record),
        "2001:db8:1::/48"
    );
    assert_eq!(text(&format!("%{without}(0)%"), &record), "::/0");
    assert_eq!(leaf("%DOWNSTREAM_REMOTE_PORT%", &record), json!(443));
    record.downstream.remote = "10.1.2.3:4567".parse().ok();
    assert_eq!(text(&format!("%{without}(64)%"), &record), "10.1.2.3/32");
    assert_eq!(text(&format!("%{without}(0)%"), &record), "0.0.0.0/0");
}

#[test]
fn attempts_are_listed_in_order_and_the_last_by_its_name() {
    let attempted = [
        "10.0.0.1:80".parse().unwrap(),
        "10.0.0.2:80".parse().unwrap(),
    ];
    let mut record = Record::new();
    record.upstream.host = Some(attempted[1]);
    record.upstream.hosts_attempted = &attempted;
    record.upstream.host_name = Some("b.example:80");
    record.upstream.connection_ids_attempted = &[4, 9];
    assert_eq!(
        text("%UPSTREAM_HOSTS_ATTEMPTED%", &record),
        "10.0.0.1:80,10.0.0.2:80"
    );
    assert_eq!(
        text("%UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT%", &record),
        "10.0.0.1,b.example"
    );
    assert_eq!(text("%UPSTREAM_HOST_NAME%", &record), "b.example:80");
    assert_eq!(text("%UPSTREAM_CONNECTION_IDS_ATTEMPTED%", &record), "4,9");
}

#[test]
fn a_grpc_status_comes_from_trailers_header_or_http_status() {
    let call: &[(&str, &[u8])] = &[("content-type", b"application/grpc+proto")];
    let trailers: &[(&str, &[u8])] = &[("grpc-status", b"4")];
    let headers: &[(&str, &[u8])] = &[("grpc-status", b"77")];
    let mut record = Record::new();
    record.response.code = 404;
    assert_eq!(leaf("%GRPC_STATUS%", &record), Value::Null);
    record.request.headers = Some(&call);
    assert_eq!(leaf("%GRPC_STATUS%", &record), json!("Unimplemented"));
    assert_eq!(leaf("%GRPC_STATUS_NUMBER%", &record), json!(12));
    record.response.headers = Some(&headers);
    assert_eq!(leaf("%GRPC_STATUS%", &record), json!("77"));
    record.response.trailers = Some(&trailers);
    assert_eq!(
        leaf("%GRPC_STATUS(SNAKE_STRING)%", &record),
        json!("DEADLINE_EXCEEDED")
    );
    assert_eq!(leaf("%GRPC_STATUS(NUMBER)%", &record), json!(4));
    let not_grpc: &[(&str, &[u8])] = &[("content-type", b"application/grpc-web")];
    record.request.headers = Some(&not_grpc);
    assert_eq!(leaf("%GRPC_STATUS%", &record), Value::Null);
}

#[test]
fn paths_and_hosts_know_their_originals() {
    let headers: &[(&str, &[u8])] = &[
        ("x-envoy-original-path", b"/old?q=1"),
        ("x-envoy-original-host", b"old.example"),
    ];
    let mut record = Record::new();
    record.request.path = Some(b"/new?q=%41%zz%4&flag&x+y=+");
    record.request.authority = Some(b"new.example");
    assert_eq!(text("%PATH(NQ)%", &record), "/new");
    record.request.headers = Some(&headers);
    assert_eq!(text("%PATH(NQ)%", &record), "/old");
    assert_eq!(text("%PATH(NQ:PATH)%|%PATH:4%", &record), "/new|/old");
    assert_eq!(text("%QUERY_PARAM(q)%", &record), "A%zz%4");
    assert_eq!(leaf("%QUERY_PARAM(flag)%", &record), json!(""));
    assert_eq!(text("%QUERY_PARAM(x+y)%", &record), "+");
    assert_eq!(
        text("%REQUESTED_SERVER_NAME(HOST_FIRST)%", &record),
        "old.example"
    );
    assert_eq!(
        text("%REQUESTED_SERVER_NAME(HOST_FIRST:HOST)%", &record),
        "new.example"
    );
    record.downstream.server_name = Some(b"sni.example");
    assert_eq!(
        text("%REQUESTED_SERVER_NAME(SNI_FIRST)%", &record),
        "sni.example"
    );
}

#[test]
fn a_coalesce_takes_the_first_that_is_not_empty() {
    let mut record = Record::new();
    let format = r#"%COALESCE({"operators": ["LOCAL_REPLY_BODY", "ROUTE_NAME", {"command": "REQ", "param": ":path", "max_length": 3}, "RESPONSE_CODE"]})%"#;
    assert_eq!(leaf(format, &record), json!(0));
    record.request.path = Some(b"/path");
    assert_eq!(leaf(format, &record), json!("/pa"));
    record.response.local_reply_body = b"body";
    assert_eq!(leaf(format, &record), json!("body"));
    assert_eq!(
        leaf(
            r#"x%COALESCE({"operators": ["LOCAL_REPLY_BODY", "RESPONSE_CODE"]})%"#,
            &record
        ),
        json!("xbody")
    );
}

#[test]
fn the_environment_is_read_when_the_format_is_compiled() {
    let path = std::env::var("PATH").unwrap();
    assert_eq!(text("%ENVIRONMENT(PATH)%", &Record::new()), path);
    assert_eq!(text("%ENVIRONMENT(PATH):2%", &Record::new()), path[..2]);
}

#[test]
fn objects_inside_text_are_compact_json_and_escaped_inside_a_string() {
    let metadata: Map<String, Value> = [("ns".to_owned(), json!({"b": "x\"y", "a": {"n": 1}}))]
        .into_iter()
        .collect();
    let record = Record {
        metadata: Some(&metadata),
        ..Record::new()
    };
    assert_eq!(
        text("%DYNAMIC_METADATA(ns)%", &record),
        r#"{"a":{"n":1},"b":"x\"y"}"#
    );
    assert_eq!(leaf("%DYNAMIC_METADATA(ns:a:n)%", &record), json!(1));
    assert_eq!(
        leaf("<%DYNAMIC_METADATA(ns)%>", &record),
        json!(r#"<{"a":{"n":1},"b":"x\"y"}>"#)
    );
    assert_eq!(leaf("%DYNAMIC_METADATA(ns:b):2%", &record), json!("x\""));
}

#[test]
fn text_that_is_cut_inside_a_character_is_still_json() {
    let record = Record {
        request: Request {
            path: Some("/é".as_bytes()),
            ..Request::default()
        },
        ..Record::new()
    };
    assert_eq!(leaf("%REQ(:PATH):2%", &record), json!("/\u{c3}"));
    assert_eq!(leaf("%REQ(:PATH):3%", &record), json!("/é"));
}

#[test]
fn omitting_keeps_the_commas_right() {
    let format =
        json!({"a": "%ROUTE_NAME%", "b": {"c": "%ROUTE_NAME%"}, "d": 1, "e": "%ROUTE_NAME%"});
    let program = LogProgram::json(
        &format,
        FormatOptions {
            omit_empty_values: true,
        },
    )
    .unwrap();
    let mut out = Vec::new();
    program.render(&Record::new(), &mut out);
    assert_eq!(out, b"{\"b\":{},\"d\":1}\n");
    out.clear();
    program.render(
        &Record {
            route_name: Some("r"),
            ..Record::new()
        },
        &mut out,
    );
    assert_eq!(
        out,
        b"{\"a\":\"r\",\"b\":{\"c\":\"r\"},\"d\":1,\"e\":\"r\"}\n"
    );
}

#[test]
fn a_wrong_format_is_refused_with_its_reason() {
    for (format, expected) in [
        ("%NOPE%", "unknown operator %NOPE%"),
        (
            "%RESPONSE_CDE%",
            "unknown operator %RESPONSE_CDE% (did you mean %RESPONSE_CODE%?)",
        ),
        ("%REQ%", "REQ requires parameters"),
        ("%REQ()%", "REQ requires parameters"),
        (
            "%PROTOCOL(X)%",
            "PROTOCOL does not take any parameters or length",
        ),
        (
            "%PROTOCOL:3%",
            "PROTOCOL does not take any parameters or length",
        ),
        (
            "%START_TIME(%Y):3%",
            "START_TIME does not allow length to be specified.",
        ),
        (
            "%START_TIME(%Q)%",
            "START_TIME: \"%Q\" is not valid, expected a strftime format, with %s, %f and %1f to %9f",
        ),
        (
            "%REQ(A?B?C)%",
            "REQ: \"A?B?C\" is not valid, expected a header name, or two separated by ?",
        ),
        ("%PATH(X)%", "PATH: \"X\" is not valid"),
        (
            "%COMMON_DURATION(DS_RX_BEG:NOWHERE:ms)%",
            "COMMON_DURATION: \"DS_RX_BEG:NOWHERE:ms\" is",
        ),
        ("%COALESCE({})%", "COALESCE: \"{}\" is not valid"),
        (
            r#"%COALESCE({"operators":["NOPE"]})%"#,
            "unknown operator %NOPE%",
        ),
        ("%CEL(response.cod)%", "CEL: "),
        ("%TYPED_CEL(1 +)%", "TYPED_CEL: "),
        (
            "%FILE_CONTENT(/a)%",
            "FILE_CONTENT is not supported by kgw: it is an extension",
        ),
        (
            "100%",
            "no valid operator at byte 3 of \"100%\"; a percent sign is written %%",
        ),
    ] {
        let message = error(format);
        assert!(message.starts_with(expected), "{format}: {message}");
    }
    let list = LogProgram::json(&json!([1]), FormatOptions::default());
    assert_eq!(list.unwrap_err(), FormatError::NotAnObject);
    let mut deep = json!("%PROTOCOL%");
    for _ in 0..100 {
        deep = json!({ "x": deep });
    }
    let deep = LogProgram::json(&deep, FormatOptions::default());
    assert_eq!(deep.unwrap_err(), FormatError::TooDeep { max: 64 });
}

#[test]
fn rendering_does_not_allocate_once_the_buffer_has_grown() {
    let every: Map<String, Value> = operator_names()
        .filter_map(|name| {
            let format = [format!("%{name}%"), format!("%{name}(x)%")];
            let compiles =
                |format: &&String| LogProgram::text(format, FormatOptions::default()).is_ok();
            Some((
                name.to_owned(),
                Value::String(format.iter().find(compiles)?.clone()),
            ))
        })
        .collect();
    assert!(every.len() > 150, "{}", every.len());
    let program = LogProgram::json(&Value::Object(every), FormatOptions::default()).unwrap();
    sample(|record| {
        let mut out = Vec::new();
        program.render(record, &mut out);
        let (capacity, length) = (out.capacity(), out.len());
        serde_json::from_slice::<Value>(&out).unwrap();
        out.clear();
        program.render(record, &mut out);
        assert_eq!((out.capacity(), out.len()), (capacity, length));
    });
}

#[test]
fn a_log_of_the_ir_goes_to_its_file() {
    let path = std::env::temp_dir().join(format!("kgw-log-ir-{}.log", std::process::id()));
    let writer = LogWriter::start(WriterOptions::default()).unwrap();
    let mut config = ir::AccessLog {
        path: path.to_str().unwrap().to_owned(),
        format: ir::AccessLogFormat::Text("%PROTOCOL% %RESPONSE_CODE%\n".to_owned()),
        filter: None,
    };
    let log = AccessLog::new(&config, &writer).unwrap();
    sample(|record| log.log(0, record));
    assert!(writer.flush(std::time::Duration::from_secs(20)));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "HTTP/1.1 429\n");
    assert_eq!(log.sink().unwrap().counters().written, 1);
    std::fs::remove_file(&path).unwrap();
    config.format = ir::AccessLogFormat::Text("%NOPE%".to_owned());
    assert!(matches!(
        AccessLog::new(&config, &writer),
        Err(AccessLogError::Format(_))
    ));
}
