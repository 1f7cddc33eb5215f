"""What is measured at saturation: each workload is a `Spec` and a `Load`."""

from __future__ import annotations

from dataclasses import dataclass, field

from benches.load.generators import Load
from benches.load.spec import HOST, WAYPOINT_PREFIXES, Spec

PEERS = ("kgw", "envoy", "haproxy", "nginx", "floor")

WAYPOINT_TARGETS = tuple(f"{HOST} {path.rstrip('/')}/42?x=1" for path in WAYPOINT_PREFIXES)
"""A request for each rule of the waypoint chain."""


@dataclass(frozen=True)
class Workload:
    """Work that every proxy is given in the same form."""

    name: str
    title: str
    load: Load = field(default_factory=Load)
    answer: str = "small"
    """The origin's answer, a key of `benches.load.rig.ANSWERS`."""
    h2: bool = False
    proxy_protocol: bool = False
    waypoint: bool = False
    peers: tuple[str, ...] = PEERS

    def spec(self, port: int, backend: int) -> Spec:
        """Returns the configuration for it."""
        return Spec(
            port=port,
            backend=backend,
            h2=self.h2,
            proxy_protocol=self.proxy_protocol,
            waypoint=self.waypoint,
        )

    @property
    def targets(self) -> tuple[str, ...]:
        """What is asked for, in the load generator's form."""
        return WAYPOINT_TARGETS if self.waypoint else (f"{HOST} /",)


BLOCKS: tuple[tuple[Workload, ...], ...] = (
    (
        Workload("get", "GET, 13 B answer"),
        Workload("waypoint", "waypoint chain", proxy_protocol=True, waypoint=True),
    ),
    (Workload("get-16k", "GET, 16 KiB answer", answer="16k"),),
    (
        Workload(
            "get-1m",
            "GET, 1 MiB answer, 16 connections",
            Load(connections=16),
            answer="1m",
            peers=(*PEERS, "floor-splice"),
        ),
    ),
    (Workload("post-1k", "POST 1 KiB", Load(body=1024)),),
    (Workload("post-64k", "POST 64 KiB", Load(body=64 * 1024)),),
    (
        Workload(
            "h2",
            "HTTP/2, 16 connections x 32 streams",
            Load(connections=16, streams=32),
            h2=True,
        ),
    ),
    (
        Workload(
            "churn",
            "one request per connection, PROXY v2",
            Load(per_connection=1),
            proxy_protocol=True,
        ),
        Workload(
            "waypoint-churn",
            "waypoint chain, one request per connection",
            Load(per_connection=1),
            proxy_protocol=True,
            waypoint=True,
        ),
    ),
)
"""Workloads that are compared with each other are in one block: their rounds are interleaved."""

BY_NAME = {workload.name: workload for block in BLOCKS for workload in block}
