"""Access logs: the scenario's line, text lines, several sinks, sinks that do not work."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

from tests.engine.harness import (
    Setup,
    direct,
    eventually,
    forward,
    get,
    post,
    rule,
    serving,
)
from tests.waypoint_log import TEN_KEYS

if TYPE_CHECKING:
    from pathlib import Path


def read(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def sink(path: object, **format: Any) -> dict[str, Any]:
    return {"path": str(path), "format": format}


def test_the_scenarios_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with serving(Setup(log_path=str(path))) as (gateway, _):
        response = gateway.ask(post(b"question", path="/api/chat?x=1"))
        [line] = gateway.log_lines(1)
        raw = path.read_text()
    request_id = dict(json.loads(response.body)["headers"])["x-request-id"]
    start = line.pop("start_time")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", start)
    assert line == {
        "authority": "ollama",
        "bytes_received": 8,
        "bytes_sent": len(response.body),
        "method": "POST",
        "path": "/api/chat?x=1",
        "protocol": "HTTP/1.1",
        "request_id": request_id,
        "response_code": 200,
        "response_flags": "-",
    }
    # One compact object with sorted keys, and the line's end.
    assert (
        raw
        == json.dumps(line | {"start_time": start}, sort_keys=True, separators=(",", ":")) + "\n"
    )
    assert set(TEN_KEYS) == {*line, "start_time"}


def test_the_original_path_is_logged_for_rewritten_ones(tmp_path: Path) -> None:
    action = forward("c", rewrite={"path": {"full": "/new"}})
    setup = Setup(routes={"r": {"name": "r", "action": action}}, log_path=str(tmp_path / "log"))
    with serving(setup) as (gateway, _):
        gateway.get("/old")
        assert gateway.log_lines(1)[0]["path"] == "/old"


def test_times_follow_the_clock(tmp_path: Path) -> None:
    log = {"duration": "%DURATION%", "start": "%START_TIME(%s.%3f)%"}
    with serving(Setup(log=log, log_path=str(tmp_path / "log")), None) as (gateway, upstream):
        client = gateway.connect()
        client.send(get())
        peer = upstream.accept()
        for wait in (0, 2.5):
            peer.read_request()
            gateway.advance(wait)
            peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
            client.read_response()
            client.send(get())
        first, second = gateway.log_lines(2)
        assert (first["duration"], second["duration"]) == (0, 2500)
        assert first["start"] == second["start"]


def test_text_lines_are_written_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "log"
    logs = [sink(path, text="%REQ(:METHOD)% %REQ(X-NONE)% %RESPONSE_CODE%\n")]
    with serving(Setup(logs=logs)) as (gateway, _):
        gateway.get()
        gateway.get()
        gateway.engine.flush_logs(5)
        eventually(lambda: len(read(path)) == 2)
        assert path.read_text() == "GET - 200\nGET - 200\n"


def test_every_sink_gets_every_line(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b", "c")]
    logs = [
        sink(paths[0], json={"code": "%RESPONSE_CODE%"}),
        sink(paths[1], text="%RESPONSE_CODE%\n"),
        sink(paths[2], text="%REQ(:PATH)%\n"),
    ]
    setup = Setup(logs=logs, routes={"d": direct(200)}, rules=[rule("/ok", "d")])
    with serving(setup) as (gateway, _):
        client = gateway.connect()
        client.send((get("/ok") + get("/no")) * 100)
        for _ in range(200):
            client.read_response()
        gateway.engine.flush_logs(5)
        eventually(lambda: all(len(read(path)) == 200 for path in paths))
    assert read(paths[0]) == ['{"code":200}', '{"code":404}'] * 100
    assert read(paths[1]) == ["200", "404"] * 100
    assert read(paths[2]) == ["/ok", "/no"] * 100


def test_a_sink_that_cannot_be_opened_stops_no_traffic(tmp_path: Path) -> None:
    good = tmp_path / "good"
    logs = [sink(tmp_path / "no" / "such" / "directory", text="x\n"), sink(good, text="y\n")]
    with serving(Setup(logs=logs)) as (gateway, _):
        assert [gateway.get().status for _ in range(10)] == [200] * 10
        gateway.engine.flush_logs(5)
        eventually(lambda: len(read(good)) == 10)


def test_a_full_disk_stops_no_traffic() -> None:
    with serving(Setup(logs=[sink("/dev/full", text="x\n")])) as (gateway, _):
        assert [gateway.get().status for _ in range(10)] == [200] * 10
        gateway.engine.flush_logs(5)

        def lost() -> int:
            [log] = gateway.stats()["access_logs"]
            return int(log["errors"])

        eventually(lambda: lost() > 0, "a counted error")
        assert gateway.get().status == 200


def test_a_pipe_that_nobody_reads_stops_no_traffic(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with serving(Setup(logs=[sink(path, text="%REQ(:PATH)%\n")]), real_time=True) as (gateway, _):
        assert [gateway.get(f"/{n}").status for n in range(10)] == [200] * 10
        # What was kept for it is there when somebody comes to read.
        with open(path, encoding="utf-8") as pipe:
            gateway.get("/10")
            assert [pipe.readline() for _ in range(11)] == [f"/{n}\n" for n in range(11)]


def test_a_format_that_is_wrong_is_reported_and_left_out(tmp_path: Path) -> None:
    good = tmp_path / "good"
    logs = [sink(tmp_path / "bad", text="%NO_SUCH_OPERATOR%\n"), sink(good, text="y\n")]
    with serving(Setup(logs=logs)) as (gateway, _):
        [problem] = gateway.engine.problems()
        assert "NO_SUCH_OPERATOR" in problem
        assert gateway.get().status == 200
        gateway.engine.flush_logs(5)
        eventually(lambda: len(read(good)) == 1)


def test_logs_are_reopened_for_rotation(tmp_path: Path) -> None:
    path, rotated = tmp_path / "log", tmp_path / "log.1"
    with serving(Setup(logs=[sink(path, text="%REQ(:PATH)%\n")])) as (gateway, _):
        gateway.get("/before")
        gateway.engine.flush_logs(5)
        eventually(lambda: read(path) == ["/before"])
        path.rename(rotated)
        gateway.engine.reopen_logs()
        gateway.get("/after")
        gateway.engine.flush_logs(5)
        eventually(lambda: read(path) == ["/after"])
        assert read(rotated) == ["/before"]


def test_lines_are_written_before_the_engine_ends(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with serving(Setup(logs=[sink(path, text="%REQ(:PATH)%\n")])) as (gateway, _):
        client = gateway.connect()
        client.send(b"".join(get(f"/{n}") for n in range(100)))
        for _ in range(100):
            client.read_response()
        gateway.settle()
    assert read(path) == [f"/{n}" for n in range(100)]
