"""What a PROXY protocol header costs from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgw.proxyproto import MeshIdentity, ProxyHeader, parse_proxy_header

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

BARE = ProxyHeader(("10.244.0.24", 46238), ("10.96.0.1", 80))
ZTUNNEL = ProxyHeader(
    ("10.244.0.24", 46238),
    ("10.96.0.1", 80),
    identity=MeshIdentity("cluster.local", "default", "curl"),
)


def test_parse_bare(benchmark: BenchmarkFixture) -> None:
    assert benchmark(parse_proxy_header, BARE.encode()) == BARE


def test_parse_ztunnel(benchmark: BenchmarkFixture) -> None:
    assert benchmark(parse_proxy_header, ZTUNNEL.encode()) == ZTUNNEL


def test_parse_ztunnel_crc32c(benchmark: BenchmarkFixture) -> None:
    assert benchmark(parse_proxy_header, ZTUNNEL.encode(crc32c=True)) == ZTUNNEL


def test_parse_v1(benchmark: BenchmarkFixture) -> None:
    assert benchmark(parse_proxy_header, BARE.encode(1)) == BARE


def test_encode_ztunnel(benchmark: BenchmarkFixture) -> None:
    assert len(benchmark(ZTUNNEL.encode)) == 72
