"""Which connections the data plane refused: they leave no access log line, having no request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

INTERVAL = 10.0
"""Seconds between two reports of one reason, at least."""

REASONS = (
    "proxy_header_malformed",
    "proxy_header_timeout",
    "proxy_header_absent",
    "proxy_header_local",
    "proxy_header_no_destination",
    "downstream_tls_fail",
    "downstream_tls_timeout",
    "downstream_tls_no_chain",
    "downstream_http2_flood",
    "downstream_cx_overflow",
    "downstream_accept_error",
    "downstream_cx_panicked",
)
"""The counters of connections that were not served, or no longer; `Proxy.stats` has them."""


class Refusals:
    """Turns counters that only grow into reports that are not too many.

    Args:
        since: the counters as they were when reporting began; by default they began at 0.
    """

    def __init__(self, since: Mapping[str, Any] | None = None) -> None:
        self._reported = {reason: since[reason] if since else 0 for reason in REASONS}
        self._silent_until = dict.fromkeys(REASONS, float("-inf"))

    def due(self, stats: Mapping[str, Any], now: float) -> Iterator[tuple[str, int]]:
        """Yields reason and number of what was refused since the last report of that reason.

        Args:
            stats: the counters as they are.
            now: monotonic seconds; infinity reports what is left.
        """
        for reason in REASONS:
            count = stats[reason] - self._reported[reason]
            if count and now >= self._silent_until[reason]:
                self._reported[reason] += count
                self._silent_until[reason] = now + INTERVAL
                yield reason, count
