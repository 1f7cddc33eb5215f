"""Real clients through kgw to a real server, over each version that they speak."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import pytest
import websockets.asyncio.client
from tests.peers import proxies

from . import servers
from .echo_app import LARGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.peers.proxies import Address

pytestmark = pytest.mark.timeout(120)

BODY = bytes(range(256)) * 2000
DIGEST = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """kgw in front of Granian, with what the clients need allowed."""
    with servers.granian(tmp_path_factory.mktemp("granian"), http="1") as backend:
        http = {"accept_http_10": True, "upgrades": ["websocket"]}
        with proxies.kgw(proxies.forwarding({"main": backend}, http=http)) as proxy:
            yield proxy.address


@pytest.fixture
def url(address: Address) -> str:
    return "http://{}:{}".format(*address)


def run(tool: str, *arguments: str) -> str:
    """Runs a tool; returns what it printed."""
    binary = shutil.which(tool)
    if binary is None:
        pytest.skip(f"{tool} is not installed")
    command = [binary, *arguments]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False, input=BODY)
    output = done.stdout.decode("latin-1")
    assert done.returncode == 0, (output, done.stderr)
    return output


VERSIONS = {"1.1": ["--http1.1"], "2": ["--http2-prior-knowledge"], "1.1 upgrade": ["--http2"]}


def curl(*arguments: str) -> str:
    if "HTTP2" not in run("curl", "--version"):
        pytest.skip("this curl does not speak HTTP/2")
    return run("curl", "--silent", "--show-error", "--fail", "--max-time", "30", *arguments)


@pytest.mark.parametrize("version", VERSIONS)
def test_curl(version: str, url: str) -> None:
    options = VERSIONS[version]
    wanted = "2" if version == "2" else "1.1"
    mark = ["--write-out", "\n%{http_version}"]
    answer, _, spoken = curl(*options, *mark, f"{url}/a?b=c").rpartition("\n")
    seen = json.loads(answer)
    assert (seen["method"], seen["path"], seen["query"]) == ("GET", "/a", "b=c")
    assert spoken == wanted
    assert curl(*options, "--head", url).startswith(f"HTTP/{wanted} 200")
    for framing in ([], ["--header", "transfer-encoding: chunked"]):
        if framing and wanted == "2":
            continue
        seen = json.loads(curl(*options, *framing, "--data-binary", "@-", url))
        assert (seen["method"], seen["digest"]) == ("POST", DIGEST)
    assert len(curl(*options, f"{url}/large")) == LARGE


def test_curl_uses_a_connection_again(url: str) -> None:
    mark = ["--write-out", "\nconnects %{num_connects}\n"]
    output = curl("--http1.1", *mark, f"{url}/1", f"{url}/2", f"{url}/3")
    assert re.findall(r"connects (\d)", output) == ["1", "0", "0"]


def test_nghttp(url: str) -> None:
    output = run("nghttp", "--stat", "--null-out", *[f"{url}/{n}" for n in range(20)])
    assert output.count(" 200 ") == 20


@pytest.mark.parametrize("version", ["h2", "h1"])
def test_h2load(version: str, url: str) -> None:
    options = ["--h1"] if version == "h1" else ["-m", "16"]
    output = run("h2load", "-n", "2000", "-c", "8", *options, f"{url}/load")
    assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in output
    assert "status codes: 2000 2xx, 0 3xx, 0 4xx, 0 5xx" in output


@pytest.mark.parametrize("options", [["-k"], []], ids=["keep-alive", "close"])
def test_ab(options: list[str], url: str) -> None:
    output = run("ab", "-n", "1000", "-c", "8", "-q", *options, f"{url}/load")
    assert re.search(r"Complete requests: +1000\n", output)
    assert re.search(r"Failed requests: +0\n", output)
    assert "Non-2xx" not in output


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
def test_httpx(version: str, url: str) -> None:
    http2 = version == "HTTP/2"
    with httpx.Client(base_url=url, http1=not http2, http2=http2, timeout=20) as client:
        for _ in range(3):
            answer = client.get("/a", params={"b": "c"})
            assert (answer.status_code, answer.http_version) == (200, version)
            assert answer.json()["query"] == "b=c"
        assert client.post("/", content=BODY).json()["digest"] == DIGEST
        pieces = (BODY[at : at + 10_000] for at in range(0, len(BODY), 10_000))
        assert client.put("/", content=pieces).json()["digest"] == DIGEST
        assert client.head("/").content == b""
        assert len(client.get("/large").content) == LARGE
        with client.stream("GET", "/large") as response:
            next(response.iter_bytes())
        assert client.get("/").status_code == 200


def test_many_requests_at_once_over_one_connection(url: str) -> None:
    async def ask() -> list[Any]:
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(
            base_url=url, http1=False, http2=True, limits=limits, timeout=20
        ) as client:
            answers = await asyncio.gather(*[client.get(f"/{n}") for n in range(100)])
            return [answer.json()["path"] for answer in answers]

    assert asyncio.run(ask()) == [f"/{n}" for n in range(100)]


def test_aiohttp(url: str) -> None:
    async def ask() -> None:
        async with aiohttp.ClientSession(url) as session:
            async with session.get("/a", params={"b": "c"}) as answer:
                assert (await answer.json())["query"] == "b=c"
            async with session.post("/", data=BODY, expect100=True) as answer:
                assert (await answer.json())["digest"] == DIGEST
            async with session.get("/large") as answer:
                assert len(await answer.read()) == LARGE
            async with session.ws_connect("/socket") as socket:
                await socket.send_str("text")
                assert await socket.receive_str() == "text"
                await socket.send_bytes(BODY)
                assert await socket.receive_bytes() == BODY

    asyncio.run(ask())


def test_websockets(address: Address) -> None:
    async def talk() -> None:
        uri = "ws://{}:{}/socket".format(*address)
        async with websockets.asyncio.client.connect(uri, compression=None) as socket:
            for message in ("text", BODY, "", "x" * 100_000):
                await socket.send(message)
                assert await socket.recv() == message
            pong = await socket.ping()
            assert await pong >= 0
        assert socket.close_code == 1000

    asyncio.run(talk())
