"""Retries and time-outs of rules in the IR."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kgw.api.duration import LONGEST

if TYPE_CHECKING:
    from kgw.api.gateway.http_route import Timeouts
    from kgw.api.gateway.retry import Retry

#: kgateway's time-out of a request whose route gives none. Milliseconds.
DEFAULT_TIMEOUT_MS: Final = 15_000

#: How often a request is sent again where a rule has retries and says no number, as in Envoy.
DEFAULT_ATTEMPTS: Final = 1

#: The least time before a retry where a rule gives none: Envoy's base. Milliseconds.
DEFAULT_BACKOFF_MS: Final = 25

#: More than anybody waits for; the engine counts in 32 bits.
_MOST_ATTEMPTS: Final = 1_000_000

#: How often the least time before a retry the longest is, as in Envoy.
MAX_BACKOFF: Final = 10


def retries(retry: Retry) -> dict[str, Any]:
    """The retries of a rule in the IR."""
    backoff = DEFAULT_BACKOFF_MS if retry.backoff is None else int(retry.backoff)
    return {
        "attempts": _attempts(retry),
        "codes": list(retry.codes),
        "backoff_ms": backoff,
        "max_backoff_ms": MAX_BACKOFF * backoff,
    }


def request_timeout(timeouts: Timeouts, retry: Retry | None, default: int | None) -> int:
    """The time for a request with all its attempts. Milliseconds; 0 is none.

    Where a rule bounds attempts alone, a request lasts as long as they all may.

    Args:
        timeouts: the rule's time-outs.
        retry: its retries.
        default: the time by a policy, if the rule gives none.
    """
    if timeouts.request is not None:
        return int(timeouts.request)
    if not timeouts.backend_request:
        return DEFAULT_TIMEOUT_MS if default is None else default
    attempt = int(timeouts.backend_request)
    if retry is None:
        return attempt
    again = _attempts(retry)
    every = (again + 1) * attempt + again * int(retries(retry)["max_backoff_ms"])
    return min(every, LONGEST)


def _attempts(retry: Retry) -> int:
    return DEFAULT_ATTEMPTS if retry.attempts is None else min(retry.attempts, _MOST_ATTEMPTS)
