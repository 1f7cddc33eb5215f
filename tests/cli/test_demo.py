"""`kgw demo`: the scenario, end to end."""

from __future__ import annotations

import filecmp
import json
import signal
import socket
from importlib import resources
from typing import TYPE_CHECKING

import pytest
from tests.cli.conftest import ROOT

from kgw.cli.demo.scenario import ENDPOINT, LOG_KEYS, Answer, problems

if TYPE_CHECKING:
    from tests.cli.conftest import Kgw, Running


@pytest.fixture
def endpoint() -> None:
    """Skips where the endpoint of cluster.yaml is taken, by a real Ollama perhaps."""
    try:
        socket.create_server(tuple(ENDPOINT)).close()
    except OSError as error:
        pytest.skip(f"{ENDPOINT} cannot be bound here: {error}")


@pytest.mark.usefixtures("endpoint")
def test_once_plays_the_scenario(kgw: Kgw) -> None:
    result = kgw("demo", "--once", "--port", "0")

    assert result.returncode == 0, result.stdout + result.stderr
    statuses = [line.split()[2] for line in result.stdout.splitlines() if "< HTTP/1.1" in line]
    assert statuses == ["200", "200", "200", "429"]
    entries = [
        json.loads(line.partition("log: ")[2])
        for line in result.stdout.splitlines()
        if "log: " in line
    ]
    assert [entry.keys() for entry in entries] == [LOG_KEYS] * 4
    assert entries[3]["response_flags"] == "RL"
    assert entries[3]["bytes_sent"] == 18
    assert "local_rate_limited" in result.stdout
    assert "As expected" in result.stdout


@pytest.mark.usefixtures("endpoint")
def test_it_stays_up_and_follows_calls_and_edits(running: type[Running], kgw: Kgw) -> None:
    demo = running("demo", "--port", "0")
    directory = demo.stdout.after("manifests").split()[1].rstrip(",")
    demo.stdout.after("stays up until Ctrl-C")
    via = ("--via", demo.stdout.after("--via").rpartition(" ")[2])

    limited = kgw("call", "http://ollama/", "-f", directory, *via)
    assert "< HTTP/1.1 429 Too Many Requests" in limited.stderr

    policy = f"{directory}/trafficpolicy-ratelimit.yaml"
    with open(policy) as file:
        text = file.read()
    with open(policy, "w") as file:
        file.write(text.replace("maxTokens: 3", "maxTokens: 5"))
    demo.stdout.after("configuration is live")
    passed = kgw("call", "http://ollama/api/generate", "-d", "{}", "-f", directory, *via)
    assert "< HTTP/1.1 200 OK" in passed.stderr
    assert json.loads(passed.stdout.splitlines()[-1])["done"] is True

    demo.signal(signal.SIGINT)
    assert demo.wait() == 0


@pytest.mark.usefixtures("endpoint")
def test_a_taken_port_is_said_clearly(kgw: Kgw) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        result = kgw("demo", "--once", "--port", str(number))

    assert result.returncode == 3
    assert f"127.0.0.1:{number} is taken" in result.stderr


@pytest.mark.usefixtures("endpoint")
def test_another_endpoint_stands_in_for_a_taken_one(kgw: Kgw) -> None:
    with socket.create_server(tuple(ENDPOINT)):
        result = kgw("demo", "--once", "--port", "0")

    assert result.returncode == 0, result.stdout + result.stderr
    assert f"ollama    127.0.0.6:{ENDPOINT.port}" in result.stdout
    assert "As expected" in result.stdout


@pytest.mark.usefixtures("endpoint")
def test_an_endpoint_taken_everywhere_is_said_clearly(kgw: Kgw) -> None:
    with socket.create_server(("0.0.0.0", ENDPOINT.port)):
        result = kgw("demo", "--once", "--port", "0")

    assert result.returncode == 3
    assert f"cannot listen on {ENDPOINT}" in result.stderr
    assert "Stop it while the demo runs" in result.stderr


def test_the_demo_ships_the_manifests_of_the_example() -> None:
    files = resources.files("kgw.cli.demo").iterdir()
    shipped = {file.name for file in files if file.name.endswith(".yaml")}
    example = {file.name for file in (ROOT / "examples" / "waypoint").iterdir()}
    assert shipped == example
    _, different, missing = filecmp.cmpfiles(
        str(ROOT / "examples" / "waypoint"),
        str(resources.files("kgw.cli.demo")),
        sorted(example),
        shallow=False,
    )
    assert (different, missing) == ([], [])


def answer(status: int, **changed: object) -> Answer:
    body = b"Ollama is running" if status == 200 else b"local_rate_limited"
    entry = {
        "authority": "ollama",
        "bytes_received": 0,
        "bytes_sent": len(body),
        "method": "GET",
        "path": "/",
        "protocol": "HTTP/1.1",
        "request_id": "88c6504b-d3e3-4921-92af-d06f0f0ce877",
        "response_code": status,
        "response_flags": "-" if status == 200 else "RL",
        "start_time": "2025-04-10T18:36:34.047Z",
        **changed,
    }
    return Answer("", status, (), body, json.dumps(entry))


def test_only_the_scenarios_outcome_has_no_problems() -> None:
    passed, limited = answer(200), answer(429)

    assert problems([passed, passed, passed, limited]) == []
    assert problems([passed, passed, passed, passed]) == [
        "the answers are 200, 200, 200, 200, not 200, 200, 200, 429"
    ]
    assert problems([passed, passed, passed, answer(429, response_flags="-")]) == [
        "call 4: the access log says response_flags '-', not 'RL'"
    ]
    assert (
        "call 1: the access log line has the keys"
        in problems([answer(200, more=1), passed, passed, limited])[0]
    )
