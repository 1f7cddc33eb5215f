"""Access logs that are services: what grpcio servers get, and what is when they do not."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tests.access_log.messages import pairs
from tests.access_log.services import LogService
from tests.access_log.services import serving as logging
from tests.engine.harness import (
    WAIT,
    Gateway,
    Setup,
    always,
    get,
    ok,
    post,
    serving,
    tcp_forward,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ENVOY: dict[str, Any] = {"type": "envoy"}
TELEMETRY: dict[str, Any] = {"type": "open_telemetry"}


def log(protocol: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An access log that is a service."""
    return {
        "cluster": "logs",
        "authority": "logs.example",
        "log_name": "requests",
        "node_cluster": "edge.default",
        "protocol": protocol,
        **more,
    }


def setup_of(address: str, *logs: dict[str, Any], **more: Any) -> Setup:
    """A listener whose requests are logged there."""
    clusters = {"logs": {"endpoints": [address], "protocol": "http2"}}
    return Setup(clusters=clusters, listener={"access_log_services": list(logs), **more})


@contextlib.contextmanager
def logged(
    *logs: dict[str, Any], response: bytes | None = None, real_time: bool = True, **more: Any
) -> Iterator[tuple[Gateway, LogService]]:
    """A gateway in front of a backend, and the service that its requests are logged to."""
    service = LogService()
    script = always(ok(b"hello") if response is None else response)
    with (
        logging(service) as address,
        serving(setup_of(address, *logs, **more), script, real_time=real_time) as (gateway, _),
    ):
        assert gateway.engine.problems() == []
        yield gateway, service


def flush(gateway: Gateway) -> None:
    # A client may have its answer before that is logged.
    gateway.settle()
    assert gateway.engine.flush_logs(WAIT)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


# === Envoy's service ===


def test_an_entry_has_what_happened() -> None:
    protocol = ENVOY | {
        "request_headers": ["X-One", "x-two", "x-none", ":method"],
        "response_headers": ["x-answer"],
        "response_trailers": ["x-behind"],
    }
    chunked = (
        b"HTTP/1.1 200 OK\r\nx-answer: yes\r\ntransfer-encoding: chunked\r\ntrailer: x-behind\r\n"
        b"\r\n5\r\nhello\r\n0\r\nx-behind: last\r\n\r\n"
    )
    with logged(log(protocol), response=chunked) as (gateway, service):
        fields = ["x-one: 1", "x-two: a", "X-Two: b", "user-agent: test", "referer: http://a/"]
        request = post(b"body", *fields, path="/path?q=1")
        client = gateway.connect()
        client.send(request)
        assert b"hello" in client.read_until(b"x-behind: last\r\n\r\n")
        flush(gateway)
        message = service.message()
        identifier = message["identifier"]
        assert identifier["log_name"] == "requests"
        assert identifier["node"]["cluster"] == "edge.default"
        assert identifier["node"]["id"] == socket.gethostname()
        assert identifier["node"]["user_agent_name"] == "kgw"
        (entry,) = message["http_logs"]["log_entry"]
        assert entry["protocol_version"] == 2
        asked, answered = entry["request"], entry["response"]
        assert pairs(asked.pop("request_headers")) == {
            "x-one": "1",
            "x-two": "a,b",
            ":method": "POST",
        }
        texts = ("scheme", "authority", "path", "user_agent", "referer", "forwarded_for")
        assert {name: asked[name] for name in texts} == {
            "scheme": "http",
            "authority": "ollama",
            "path": "/path?q=1",
            "user_agent": "test",
            "referer": "http://a/",
            "forwarded_for": "127.0.0.1",
        }
        assert (asked["request_method"], asked["request_body_bytes"]) == (3, 4)
        assert asked["request_headers_bytes"] > 0
        assert asked["upstream_header_bytes_sent"] > 0
        assert asked["downstream_header_bytes_received"] == len(request) - 4
        assert answered["response_code"] == {"value": 200}
        assert answered["response_body_bytes"] == 5
        assert answered["response_code_details"] == "via_upstream"
        assert pairs(answered["response_headers"]) == {"x-answer": "yes"}
        assert answered["response_headers_bytes"] > 0
        common = entry["common_properties"]
        assert common["stream_id"] == asked["request_id"] != ""
        local = common["downstream_local_address"]["socket_address"]
        assert local == {"address": "127.0.0.1", "port": gateway.port}
        assert common["upstream_remote_address"]["socket_address"]["address"] == "127.0.0.1"
        assert common["upstream_local_address"]["socket_address"]["port"] > 0
        remote = common["downstream_remote_address"]
        assert remote == common["downstream_direct_remote_address"]
        assert (common["upstream_cluster"], common["route_name"]) == ("c", "default")
        assert common["upstream_request_attempt_count"] == 1
        assert "response_flags" not in common
        assert common["access_log_type"] == 6
        assert common["downstream_wire_bytes_received"] == len(request)
        wire = ("downstream_wire_bytes_sent", "upstream_wire_bytes_sent")
        assert all(common[name] > 0 for name in (*wire, "upstream_wire_bytes_received"))
        assert common["start_time"]["seconds"] > 1_700_000_000
        times = [name for name in common if name.startswith("time_to_")]
        assert len(times) == 7
        assert "duration" in common


def test_a_refused_request_has_its_flag() -> None:
    with logged(log(ENVOY)) as (gateway, service):
        gateway.apply_ir(_without_backend(gateway))
        assert gateway.get().status == 503
        flush(gateway)
        (entry,) = service.entries(1)
        common = entry["common_properties"]
        assert common["response_flags"] == {"no_healthy_upstream": 1}
        assert "upstream_remote_address" not in common
        assert entry["response"]["response_code_details"] == "no_healthy_upstream"


def _without_backend(gateway: Gateway) -> dict[str, Any]:
    found = gateway.setup.ir()
    found["clusters"]["c"] = {"endpoints": []}
    return found


def test_one_stream_carries_all_and_says_once_whose_they_are() -> None:
    with logged(log(ENVOY)) as (gateway, service):
        for number in range(3):
            gateway.get(f"/{number}")
            flush(gateway)
            message = service.message()
            assert ("identifier" in message) == (number == 0)
            (entry,) = message["http_logs"]["log_entry"]
            assert entry["request"]["path"] == f"/{number}"
        # A configuration that says the same of it leaves it alone.
        gateway.apply_ir(_without_backend(gateway))
        gateway.get("/3")
        flush(gateway)
        assert "identifier" not in service.message()
        assert service.streams == 1
        assert gateway.stat("access_log_service_written") == 4
        # One that has it no longer ends it.
        bare = gateway.setup.ir()
        del bare["listeners"][0]["access_log_services"]
        gateway.apply_ir(bare)
        gateway.get()
    assert service.ended == 1
    assert service.messages.empty()


def test_calls_have_their_fields() -> None:
    told = log(ENVOY, metadata=[["X-Tenant", "a"]])
    with logged(told) as (gateway, service):
        gateway.get()
        flush(gateway)
        metadata = service.metadata.get(timeout=WAIT)
        assert metadata["x-tenant"] == "a"
        assert metadata["x-envoy-internal"] == "true"
        assert metadata["x-forwarded-for"] == "127.0.0.1"
        assert "grpc-timeout" not in metadata
    with logged(log(ENVOY, skip_envoy_headers=True)) as (gateway, service):
        gateway.get()
        flush(gateway)
        assert not [name for name in service.metadata.get(timeout=WAIT) if name.startswith("x-")]


def test_connections_have_entries_of_their_own() -> None:
    service = LogService()
    with logging(service) as address:
        setup = setup_of(address, log(ENVOY, filter={"type": "not_health_check"}))
        setup.traffic = {"type": "tcp", "forward": tcp_forward("c")}
        with serving(setup, always(ok(b"hello")), real_time=True) as (gateway, _):
            request = get()
            assert gateway.ask(request).body == b"hello"
            gateway.reaches("tcp_cx_total", 1)
            flush(gateway)
            (entry,) = service.entries(1, "tcp_logs")
            connection = entry["connection_properties"]
            assert connection == {"received_bytes": len(request), "sent_bytes": len(ok(b"hello"))}
            assert entry["common_properties"]["access_log_type"] == 3
            assert entry["common_properties"]["route_name"] == "tcp-route"


def test_a_filter_picks_what_is_sent() -> None:
    errors = {"type": "status_code", "op": "ge", "value": 500}
    with logged(log(ENVOY, filter=errors)) as (gateway, service):
        gateway.get("/fine")
        gateway.apply_ir(_without_backend(gateway))
        gateway.get("/broken")
        flush(gateway)
        (entry,) = service.entries(1)
        assert entry["request"]["path"] == "/broken"


def test_what_is_queued_is_sent_after_a_second() -> None:
    with logged(log(ENVOY), real_time=False) as (gateway, service):
        gateway.get("/1")
        gateway.advance(0.9)
        gateway.get("/2")
        gateway.settle()
        assert service.messages.empty()
        gateway.advance(0.2)
        entries = service.entries(2)
        assert [entry["request"]["path"] for entry in entries] == ["/1", "/2"]


def test_a_full_batch_is_sent_at_once() -> None:
    with logged(log(ENVOY), real_time=False) as (gateway, service):
        path = "/" + "x" * 4000
        for _ in range(5):
            gateway.get(path)
        # The clock stands still.
        assert len(service.message()["http_logs"]["log_entry"]) >= 4


def test_what_is_queued_is_sent_at_the_end() -> None:
    with logged(log(ENVOY), log(TELEMETRY), real_time=False) as (gateway, service):
        gateway.get()
        gateway.engine.drain(0.0)
        assert gateway.engine.join(WAIT)
        kinds = {next(name for name in service.message() if "logs" in name) for _ in range(2)}
        assert kinds == {"http_logs", "resource_logs"}
        assert service.ended == 1


def test_a_service_that_comes_late_gets_what_was_kept() -> None:
    port = free_port()
    retry = {"attempts": 1_000, "base_interval_ms": 1, "max_interval_ms": 20}
    setup = setup_of(f"127.0.0.1:{port}", log(ENVOY, retry=retry))
    with serving(setup, always(ok()), real_time=True) as (gateway, _):
        gateway.get("/early")
        # Some attempts have failed by then.
        flush_soon(gateway)
        service = LogService()
        with logging(service, port):
            (entry,) = service.entries(1)
            assert entry["request"]["path"] == "/early"
            gateway.reaches("access_log_service_written", 1)
        assert gateway.stat("access_log_service_dropped") == 0
        assert gateway.stat("access_log_service_failed") > 0


def flush_soon(gateway: Gateway) -> None:
    """Makes the gateway send, which fails for now."""
    gateway.settle()
    assert not gateway.engine.flush_logs(0.2)


def test_a_service_that_is_not_there_costs_nothing_but_its_entries() -> None:
    retry = {"attempts": 0, "base_interval_ms": 1, "max_interval_ms": 1}
    setup = setup_of(f"127.0.0.1:{free_port()}", log(ENVOY, retry=retry))
    with serving(setup, always(ok()), real_time=True) as (gateway, _):
        for _ in range(10):
            assert gateway.get().status == 200
        flush(gateway)
        assert gateway.stat("access_log_service_dropped") == 10
        assert gateway.stat("access_log_service_written") == 0


def test_a_service_that_takes_nothing_does_not_delay_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # nobody accepts
        address = "{}:{}".format(*silent.getsockname())
        setup = setup_of(address, log(ENVOY, timeout_ms=600_000))
        with serving(setup, always(ok()), real_time=True) as (gateway, _):
            assert gateway.get().status == 200
            gateway.engine.drain(0.0)
            assert gateway.engine.join(WAIT)


def test_a_stream_that_the_service_ends_is_opened_anew() -> None:
    with logged(log(ENVOY)) as (gateway, service):
        service.stop_after(1)
        gateway.get("/1")
        flush(gateway)
        assert "identifier" in service.message()
        gateway.reaches("access_log_service_stream_lost", 1)
        gateway.get("/2")
        flush(gateway)
        assert "identifier" in service.message()


# === OpenTelemetry ===


def test_records_have_body_attributes_and_a_resource() -> None:
    protocol = TELEMETRY | {
        "body": {"string": '%REQ(:METHOD)% %REQ(:PATH)% "%REQ(x-bytes)%"'},
        "attributes": [
            ["code", {"string": "%RESPONSE_CODE%"}],
            ["none", {"string": "%REQ(x-none)%"}],
            ["nested", {"key_values": [["list", {"array": [{"string": "%PROTOCOL%"}]}]]}],
        ],
        "resource_attributes": [["service.name", {"string": "edge"}]],
        "builtin_labels": True,
    }
    with logged(log(protocol)) as (gateway, service):
        trace = "0af7651916cd43dd8448eb211c80319c"
        parent = f"traceparent: 00-{trace}-b7ad6b7169203331-01"
        peer = gateway.connect()
        peer.send(get("/a", parent).replace(b"\r\n\r\n", b"\r\nx-bytes: \xff\r\n\r\n"))
        assert peer.read_response().status == 200
        gateway.get("/b")
        flush(gateway)
        (logs,) = service.message()["resource_logs"]
        resource = pairs(logs["resource"]["attributes"])
        assert resource == {
            "log_name": {"string": "requests"},
            "zone_name": {"string": ""},
            "cluster_name": {"string": "edge.default"},
            "node_name": {"string": socket.gethostname()},
            "service.name": {"string": "edge"},
        }
        (scope,) = logs["scope_logs"]
        first, second = scope["log_records"]
        assert first["body"] == {"string": 'GET /a "!"'}
        assert first["time"] > 1_700_000_000_000_000_000
        assert pairs(first["attributes"]) == {
            "code": {"string": "200"},
            "none": {"string": "-"},
            "nested": {
                "pairs": {
                    "values": [
                        {
                            "key": "list",
                            "value": {"array": {"values": [{"string": "HTTP/1.1"}]}},
                        }
                    ]
                }
            },
        }
        assert first["trace_id"].hex() == trace
        assert first["span_id"].hex() == "b7ad6b7169203331"
        assert second["body"] == {"string": 'GET /b "-"'}
        assert "trace_id" not in second


def test_records_that_a_collector_refuses_are_lost() -> None:
    with logged(log(TELEMETRY)) as (gateway, service):
        # `partial_success {rejected_log_records: 2}`
        service.answer = lambda _: b"\x0a\x02\x08\x02"
        for _ in range(3):
            gateway.get()
        flush(gateway)
        assert len(service.records(3)) == 3
        assert gateway.stat("access_log_service_dropped") == 2
        assert gateway.stat("access_log_service_written") == 1


@pytest.mark.parametrize(
    ("code", "attempts"),
    [(grpc.StatusCode.UNAVAILABLE, 3), (grpc.StatusCode.INVALID_ARGUMENT, 1)],
)
def test_a_failed_export_is_repeated_where_that_may_help(
    code: grpc.StatusCode, attempts: int
) -> None:
    def fail(context: grpc.ServicerContext) -> bytes:
        context.abort(code, "no")
        raise AssertionError("it does not return")

    retry = {"attempts": 2, "base_interval_ms": 1, "max_interval_ms": 1}
    with logged(log(TELEMETRY, retry=retry)) as (gateway, service):
        service.answer = fail
        gateway.get()
        flush(gateway)
        for _ in range(attempts):
            assert len(service.records(1)) == 1
        assert service.messages.empty()
        assert gateway.stat("access_log_service_failed") == attempts
        assert gateway.stat("access_log_service_dropped") == 1


def test_an_answer_that_is_too_long_is_none() -> None:
    with logged(log(TELEMETRY, max_answer_bytes=10)) as (gateway, service):
        service.answer = lambda _: b"\x12" + bytes([100]) + b"x" * 100
        gateway.get()
        flush(gateway)
        assert len(service.records(1)) == 1
        assert gateway.stat("access_log_service_dropped") == 1


def test_a_slow_collector_has_so_much_time() -> None:
    told = log(TELEMETRY, timeout_ms=50, retry={"attempts": 0})
    with logged(told) as (gateway, service), contextlib.ExitStack() as stack:
        release = threading.Event()
        stack.callback(release.set)

        def wait(context: grpc.ServicerContext) -> bytes:
            release.wait(WAIT)
            return b""

        service.answer = wait
        gateway.get()
        flush(gateway)
        assert gateway.stat("access_log_service_dropped") == 1
        assert len(service.records(1)) == 1
