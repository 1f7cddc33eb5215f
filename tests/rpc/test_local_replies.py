"""The proxy's own answers to gRPC calls: a status and a message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tests.engine.harness import WAIT, Setup, direct, forward, rule
from tests.rpc.calls import calling

if TYPE_CHECKING:
    from collections.abc import Callable


def limited(made: Setup) -> None:
    """A route whose bucket is empty."""
    bucket = {
        "type": "local_rate_limit",
        "bucket": "b",
        "max_tokens": 0,
        "tokens_per_fill": 1,
        "fill_interval_ns": 1_000_000_000,
    }
    made.routes = {"r": {"name": "r", "filters": [bucket], "action": forward("c")}}


def to(route: dict[str, Any]) -> Callable[[Setup], None]:
    """A gateway with this route alone."""

    def change(made: Setup) -> None:
        made.routes = {"r": route}

    return change


def nowhere(made: Setup) -> None:
    """A gateway without a route."""
    made.hosts = [{"hostname": "other.example", "rules": [rule("/", "default")]}]


def empty(made: Setup) -> None:
    """A gateway whose cluster has no endpoint."""
    made.clusters = {"c": {"endpoints": [], "protocol": "http2"}}


@pytest.mark.parametrize(
    ("change", "code", "details"),
    [
        (nowhere, grpc.StatusCode.UNIMPLEMENTED, ""),
        (limited, grpc.StatusCode.UNAVAILABLE, "local_rate_limited"),
        (empty, grpc.StatusCode.UNAVAILABLE, "no healthy upstream"),
        (to(direct(503, "back soon\n")), grpc.StatusCode.UNAVAILABLE, "back soon\n"),
        (to(direct(403, "100 % no")), grpc.StatusCode.PERMISSION_DENIED, "100 % no"),
        (to(direct(401)), grpc.StatusCode.UNAUTHENTICATED, ""),
        (to(direct(400)), grpc.StatusCode.INTERNAL, ""),
        (to(direct(200, "fine")), grpc.StatusCode.UNKNOWN, "fine"),
    ],
)
def test_a_failure_is_a_status(
    change: Callable[[Setup], None], code: grpc.StatusCode, details: str
) -> None:
    with calling(change) as (opened, _, _):
        with pytest.raises(grpc.RpcError) as failed:
            opened.unary_unary("/test.Service/Echo")(b"", timeout=WAIT)
        assert failed.value.code() is code
        assert failed.value.details() == details
