"""Local rate limits: token buckets in each proxy."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from kgw.api.kgateway.traffic.rate_limit import LocalRateLimitOptions

if TYPE_CHECKING:
    from kgw.api.gateway.filters import HTTPHeader
    from kgw.api.kgateway.traffic.rate_limit import (
        LocalRateLimitDescriptor,
        LocalRateLimitEntry,
        RateLimitCost,
        TokenBucket,
    )
    from kgw.attach.effective import Setting
    from kgw.translate.policies.context import PolicyContext

_NONE: Final = LocalRateLimitOptions()

_SOURCES: Final = {
    "RemoteAddress": "remote_address",
    "Header": "header",
    "QueryParameter": "query_parameter",
    "Cookie": "cookie",
    "JWTClaim": "claim",
    "Path": "path",
    "Method": "method",
    "Host": "host",
    "Principal": "principal",
}

_HEADERS: Final = {"XRateLimit": "draft_03", "RateLimit": "structured"}


def filters(settings: tuple[Setting, ...], context: PolicyContext) -> list[dict[str, Any]]:
    """The filter of a rate limit; none if the policy turns limits off.

    A bucket's identity has all that makes it another bucket, and nothing else: a reload that leaves
    them alone leaves the tokens alone.
    """
    (setting,) = settings
    limit = setting.value
    options = limit.kgw or _NONE
    is_seen = limit.percent_enforced or options.headers or options.not_enforced_headers
    if not limit.percent_enabled or not is_seen:
        return []
    if limit.token_bucket is None and not options.descriptors:
        return []
    owner = f"{setting.policy.namespace}/{setting.policy.name}|{context.scope(setting)}"
    found: dict[str, Any] = {"type": "local_rate_limit"}
    if limit.token_bucket is not None:
        found["bucket"] = f"{owner}|{_amounts(limit.token_bucket)}"
        found |= _bucket(limit.token_bucket)
    for name in ("percent_enabled", "percent_enforced"):
        if (percent := getattr(limit, name)) != 100:
            found[name] = percent
    return [found | _options(options, owner)]


def _options(options: LocalRateLimitOptions, owner: str) -> dict[str, Any]:
    """What kgateway does not have; nothing of what is as by default."""
    found: dict[str, Any] = {}
    if options.descriptors:
        descriptors = enumerate(options.descriptors)
        found["descriptors"] = [_descriptor(one, number, owner) for number, one in descriptors]
    if options.consume_token_bucket == "Unmatched":
        found["only_unmatched"] = True
    if options.cost is not None:
        found["cost"] = _cost(options.cost)
    if options.headers:
        found["headers"] = [_HEADERS[one] for one in options.headers]
    if not options.retry_after:
        found["retry_after"] = False
    if (response := options.response) is not None:
        found["status"] = response.status
        if response.body is not None:
            found["body"] = response.body
        found["response_headers"] = _pairs(response.headers)
    if options.not_enforced_headers:
        found["not_enforced_headers"] = _pairs(options.not_enforced_headers)
    if (queue := options.queue) is not None:
        found["queue"] = {"max_wait_ms": int(queue.max_wait), "max_waiting": queue.max_waiting}
    return found


def _descriptor(one: LocalRateLimitDescriptor, number: int, owner: str) -> dict[str, Any]:
    entries = [_entry(entry) for entry in one.entries]
    identity = json.dumps(entries, sort_keys=True, separators=(",", ":"))
    found = {
        "bucket": f"{owner}|{identity}|{_amounts(one.token_bucket)}",
        "name": one.name or _name(one.entries, number),
        "entries": entries,
        "max_keys": one.max_keys,
        **_bucket(one.token_bucket),
    }
    return found if one.cost is None else found | {"cost": _cost(one.cost)}


def _entry(entry: LocalRateLimitEntry) -> dict[str, Any]:
    source: dict[str, Any] = {"type": _SOURCES[entry.type]}
    if entry.name is not None:
        source["name"] = entry.name
    if entry.type == "RemoteAddress":
        source["v4_bits"] = entry.ipv4_prefix_length
        source["v6_bits"] = entry.ipv6_prefix_length
    return {"source": source} | ({} if entry.value is None else {"value": entry.value})


def _name(entries: tuple[LocalRateLimitEntry, ...], number: int) -> str:
    """What clients are told that a descriptor is called: what it is made of, and no values."""
    names = (one.type if one.name is None else f"{one.type} {one.name}" for one in entries)
    name = ", ".join(names)
    return name if name.isascii() and name.isprintable() else f"descriptor {number}"


def _bucket(bucket: TokenBucket) -> dict[str, Any]:
    return {
        "max_tokens": bucket.max_tokens,
        "tokens_per_fill": bucket.tokens_per_fill,
        "fill_interval_ns": bucket.fill_interval * 1_000_000,
    }


def _amounts(bucket: TokenBucket) -> str:
    return f"{bucket.max_tokens},{bucket.tokens_per_fill},{bucket.fill_interval:d}ms"


def _cost(cost: RateLimitCost) -> dict[str, Any]:
    found: dict[str, Any] = {"tokens": cost.tokens}
    if cost.header is not None:
        found["header"] = cost.header
    if cost.max is not None:
        found["max_tokens"] = cost.max
    return found


def _pairs(headers: tuple[HTTPHeader, ...]) -> list[list[str]]:
    return [[one.name, one.value] for one in headers]
