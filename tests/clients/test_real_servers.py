"""Real servers behind kgw, over each version that they speak."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
from tests.peers import proxies

from . import servers
from .echo_app import LARGE
from .test_real_clients import BODY, DIGEST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROTOCOLS = {"1": "http1", "2": "http2"}


def client(backend: str, version: str) -> Iterator[httpx.Client]:
    """A client of kgw, which speaks the version to the backend."""
    config = proxies.forwarding({"main": backend})
    config["clusters"]["main"]["protocol"] = PROTOCOLS[version]
    with (
        proxies.kgw(config) as proxy,
        httpx.Client(base_url="http://{}:{}".format(*proxy.address), timeout=20) as found,
    ):
        yield found


@pytest.fixture(params=PROTOCOLS)
def granian(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[httpx.Client]:
    with servers.granian(tmp_path, http=request.param) as backend:
        yield from client(backend, request.param)


@pytest.fixture(params=PROTOCOLS)
def hypercorn(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[httpx.Client]:
    with servers.hypercorn(tmp_path) as backend:
        yield from client(backend, request.param)


@pytest.fixture(params=PROTOCOLS)
def nginx(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[httpx.Client]:
    with servers.nginx(tmp_path, http2=request.param == "2") as backend:
        yield from client(backend, request.param)


def echoes(client: httpx.Client, request: pytest.FixtureRequest) -> None:
    """The application gets what is sent, in the version asked for; its answers arrive whole."""
    version = "2" if "[2]" in request.node.name else "1.1"
    for path in ("/1", "/2"):
        seen = client.get(path).json()
        assert (seen["path"], seen["version"]) == (path, version)
    assert client.post("/", content=BODY).json()["digest"] == DIGEST
    pieces = (BODY[at : at + 10_000] for at in range(0, len(BODY), 10_000))
    assert client.post("/", content=pieces).json()["digest"] == DIGEST
    assert len(client.get("/large").content) == LARGE


def test_granian(granian: httpx.Client, request: pytest.FixtureRequest) -> None:
    echoes(granian, request)


def test_hypercorn(hypercorn: httpx.Client, request: pytest.FixtureRequest) -> None:
    echoes(hypercorn, request)


def test_nginx(nginx: httpx.Client, request: pytest.FixtureRequest) -> None:
    version = "HTTP/2.0" if "[2]" in request.node.name else "HTTP/1.1"
    assert nginx.get("/answer").text == f"GET {version}\n"
    assert nginx.head("/answer").status_code == 200
    assert nginx.get("/empty").status_code == 204
    assert nginx.get("/moved").status_code == 301
    assert nginx.get("/nothing").status_code == 404
    whole = nginx.get("/file.bin")
    assert whole.content == bytes(range(256)) * 8192
    part = nginx.get("/file.bin", headers={"range": "bytes=256-511"})
    assert (part.status_code, part.content) == (206, bytes(range(256)))
    same = nginx.get("/file.bin", headers={"if-none-match": whole.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
