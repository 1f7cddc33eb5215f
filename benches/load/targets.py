"""What kgw is to reach: the contract (must) and the aim (goal) of each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from benches.load.experiments.routes import SIZES, workload
from benches.load.generators import spread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benches.load.summary import Summary

Measure: TypeAlias = "Callable[[Summary, str], float | None]"
"""Returns a peer's figure, if it was measured."""

Verdict = Literal["goal", "must", "missed", "unknown"]


@dataclass(frozen=True)
class Bounds:
    """The most that a figure may be."""

    must: float
    goal: float

    def verdict(self, value: float | None) -> Verdict:
        """Returns what a measured figure reaches."""
        if value is None:
            return "unknown"
        return "goal" if value <= self.goal else "must" if value <= self.must else "missed"


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """Returns the verdict on all of them together."""
    order: tuple[Verdict, ...] = ("missed", "unknown", "must", "goal")
    return min(verdicts, key=order.index)


@dataclass(frozen=True)
class RatioTarget:
    """Processor time per request at saturation, as ratios."""

    workload: str
    title: str
    of_envoy: Bounds | None = None
    of_best_c: Bounds | None = None

    def ratios(self, summary: Summary) -> tuple[float | None, float | None]:
        """Returns kgw's ratio to Envoy and to best C."""
        ours = summary.median(self.workload, "kgw", "cpu_us")
        others = (
            summary.median(self.workload, "envoy", "cpu_us"),
            summary.best_c(self.workload),
        )
        envoy, best_c = (None if ours is None or not other else ours / other for other in others)
        return envoy, best_c

    def verdict(self, summary: Summary) -> Verdict | None:
        """Returns what is reached; None without a target."""
        pairs = zip((self.of_envoy, self.of_best_c), self.ratios(summary), strict=True)
        verdicts = [bounds.verdict(ratio) for bounds, ratio in pairs if bounds is not None]
        return worst(verdicts) if verdicts else None


RATIOS = (
    RatioTarget("get", "GET small", Bounds(0.24, 0.19), Bounds(0.95, 0.80)),
    RatioTarget("get-16k", "GET 16 KiB", Bounds(0.30, 0.25), Bounds(0.85, 0.70)),
    RatioTarget("get-1m", "GET 1 MiB", Bounds(0.50, 0.40), Bounds(0.50, 0.40)),
    RatioTarget("post-1k", "POST 1 KiB", Bounds(0.20, 0.16), Bounds(0.95, 0.75)),
    RatioTarget("post-64k", "POST 64 KiB", Bounds(0.35, 0.31), Bounds(1.0, 0.95)),
    RatioTarget("h2", "HTTP/2 downstream, 16 x 32 streams", Bounds(0.27, 0.20), Bounds(1.1, 0.85)),
    RatioTarget(
        "waypoint", "waypoint chain, everything on", Bounds(0.22, 0.18), Bounds(0.90, 0.72)
    ),
    RatioTarget(
        "churn", "new connection per request + PROXY v2", Bounds(0.34, 0.29), Bounds(1.0, 0.88)
    ),
    RatioTarget("waypoint-churn", "the same with the waypoint chain"),
)


@dataclass(frozen=True)
class FigureTarget:
    """A figure with a unit, and its bounds."""

    title: str
    unit: str
    measure: Measure
    bounds: Bounds | None = None
    digits: int = 1
    noise: Measure | None = None
    """Returns how far a figure may be off, where that matters."""


def _median(name: str, value: str) -> Measure:
    return lambda summary, peer: summary.median(name, peer, value)


def _mebibytes(name: str, value: str) -> Measure:
    def measure(summary: Summary, peer: str) -> float | None:
        found = summary.median(name, peer, value)
        return None if found is None else found / 1024

    return measure


def _growth(kind: Literal["paths", "hosts", "mixed"]) -> Measure:
    few, many = workload(kind, SIZES[0]), workload(kind, SIZES[-1])
    return lambda summary, peer: summary.ratio(many, few, peer, "cpu_us")


def _chain(summary: Summary, peer: str) -> float | None:
    return summary.difference("waypoint", "get", peer, "cpu_us")


def _chain_noise(summary: Summary, peer: str) -> float | None:
    return spread(summary.differences("waypoint", "get", peer, "cpu_us"))


def _lost(summary: Summary, peer: str) -> float | None:
    return summary.worst("reload", peer, "lost")


FIGURES = (
    FigureTarget(
        "the whole chain on top of a plain GET", "µs", _chain, Bounds(5, 3), noise=_chain_noise
    ),
    FigureTarget(
        "the rate limiter alone, two workers on one bucket",
        "µs",
        _median("limiter", "added_us"),
        Bounds(0.3, 0.1),
        digits=2,
        noise=_median("limiter", "noise_us"),
    ),
    FigureTarget("100,000 paths against 10", "x", _growth("paths"), Bounds(1.10, 1.03), 2),
    FigureTarget("100,000 hosts against 10", "x", _growth("hosts"), Bounds(1.10, 1.03), 2),
    FigureTarget(
        "100,000 paths, regexes and headers against 10", "x", _growth("mixed"), Bounds(1.5, 1.2), 2
    ),
    *(
        target
        for kind, title in (("paths", "paths"), ("hosts", "hosts"), ("mixed", "mixed routes"))
        for target in (
            FigureTarget(
                f"100,000 {title}: engine load",
                "s CPU",
                _median(f"engine-load-{kind}", "load_s"),
                Bounds(1.0, 0.3),
                digits=2,
            ),
            FigureTarget(
                f"100,000 {title}: memory of each",
                "B",
                _median(f"engine-load-{kind}", "route_bytes"),
                Bounds(500, 300),
                digits=0,
            ),
        )
    ),
    FigureTarget(
        "100,000 paths: start, to the first answer",
        "s",
        _median(workload("paths", SIZES[-1]), "started_s"),
    ),
    FigureTarget(
        "100,000 paths: resident memory",
        "MiB",
        _mebibytes(workload("paths", SIZES[-1]), "rss_kib"),
        digits=0,
    ),
    FigureTarget(
        "one change with 10,000 routes live: first new answer",
        "ms",
        _median("reload", "change_ms"),
        Bounds(50, 20),
        digits=0,
    ),
    FigureTarget("requests lost by such changes", "", _lost, Bounds(0, 0), digits=0),
    FigureTarget(
        "latency added at 2,500 req/s on the chain, p50",
        "ms",
        _median("tail-2500", "added_p50_ms"),
        Bounds(0.25, 0.20),
        digits=2,
    ),
    FigureTarget(
        "latency added at 2,500 req/s on the chain, p99",
        "ms",
        _median("tail-2500", "added_p99_ms"),
        Bounds(1.0, 0.5),
        digits=2,
    ),
    FigureTarget(
        "latency added at half of saturation, p50",
        "ms",
        _median("tail-half", "added_p50_ms"),
        digits=2,
    ),
    FigureTarget(
        "latency added at half of saturation, p99",
        "ms",
        _median("tail-half", "added_p99_ms"),
        digits=2,
    ),
    FigureTarget(
        "idle keep-alive connection, user memory",
        "B",
        _median("idle", "connection_bytes"),
        Bounds(1_500, 700),
        digits=0,
    ),
    FigureTarget(
        "idle connection on the chain, user memory",
        "B",
        _median("idle-waypoint", "connection_bytes"),
        Bounds(1_500, 700),
        digits=0,
    ),
    FigureTarget("`kgw --version`", "s CPU", _median("version", "cpu_s"), Bounds(0.15, 0.1), 2),
    FigureTarget(
        "`kgw run` on the walkthrough's manifests, to the first answer",
        "s CPU",
        _median("start-waypoint-example", "cpu_s"),
        Bounds(0.5, 0.3),
        digits=2,
    ),
    FigureTarget(
        "start with one route, to the first answer", "s CPU", _median("start", "cpu_s"), digits=2
    ),
    FigureTarget(
        "resident memory then",
        "MiB",
        _mebibytes("start", "rss_kib"),
        digits=0,
    ),
)
