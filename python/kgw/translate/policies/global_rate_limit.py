"""Global rate limits: who keeps them, and what requests are counted by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kgw.attach.checks.global_rate_limit import PASSWORD, USERNAME, keys

if TYPE_CHECKING:
    from kgw.api.kgateway.extension.grpc_service import GrpcService, ServiceRetry
    from kgw.api.kgateway.extension.rate_limit import Limit, RedisServer
    from kgw.api.kgateway.traffic.global_rate_limit import (
        Descriptor,
        DescriptorEntry,
        GlobalRateLimit,
        HitsAddend,
    )
    from kgw.attach.effective import Setting
    from kgw.attach.extensions import ExtensionState
    from kgw.translate.policies.context import PolicyContext


def filters(settings: tuple[Setting, ...], context: PolicyContext) -> list[dict[str, Any]]:
    """The filter that asks who keeps the limit."""
    (setting,) = settings
    limit: GlobalRateLimit = setting.value
    ref = limit.extension_ref
    state = context.extension(setting, ref.name, ref.namespace)
    provider = state.extension.spec.rate_limit
    assert provider is not None  # the policy was checked
    service = {}
    if provider.grpc_service is not None:
        service = _service(provider.grpc_service, state, context)
    elif provider.redis is not None:
        service = _redis(provider.redis, state, context)
    return [
        {
            "type": "global_rate_limit",
            "service": service,
            "domain": provider.domain,
            "descriptors": [_descriptor(one) for one in limit.descriptors],
            **_hits(limit.hits_addend),
            "timeout_ms": int(provider.timeout),
            "failure_mode_deny": not provider.fail_open,
            "x_ratelimit_headers": provider.x_rate_limit_headers != "Off",
        }
    ]


def _service(service: GrpcService, state: ExtensionState, context: PolicyContext) -> dict[str, Any]:
    backend = state.backend(service.backend_ref)
    found: dict[str, Any] = {
        "type": "grpc",
        "cluster": context.cluster(backend, http2=True),
        "authority": service.authority or context.authority(backend),
    }
    if service.request_timeout is not None:
        found["request_timeout_ms"] = int(service.request_timeout)
    if service.retry is not None and service.retry.attempts:
        found["retry"] = _retry(service.retry)
    return found


def _retry(retry: ServiceRetry) -> dict[str, int]:
    base, longest = 25, 250
    if retry.backoff is not None:
        base = int(retry.backoff.base_interval)
        longest = int(retry.backoff.max_interval or base * 10)
    return {
        "attempts": retry.attempts,
        "base_interval_ms": base,
        "max_interval_ms": longest,
    }


def _redis(server: RedisServer, state: ExtensionState, context: PolicyContext) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "redis",
        "cluster": context.cluster(state.backend(server.backend_ref)),
        "database": server.database,
        "key_prefix": server.key_prefix,
        "limits": [
            {
                "entries": [
                    {"key": entry.key, **({} if entry.value is None else {"value": entry.value})}
                    for entry in limit.descriptor
                ],
                "limit": _limit(limit),
            }
            for limit in server.limits
        ],
    }
    if server.secret_ref is not None:
        named = (state.extension.namespace, server.secret_ref.name)
        secret = context.attachment.index.secrets[named]
        for key in (USERNAME, PASSWORD):
            content = secret.read(key)
            if content is not None:
                found[key] = content.decode()
    if server.local_fallback is not None:
        # Routes that share the server's buckets share these.
        bucket = f"{state.extension.namespace}/{state.extension.name}"
        found["local_fallback"] = {"bucket": bucket, "percent": server.local_fallback.percent}
    return found


def _descriptor(descriptor: Descriptor) -> dict[str, Any]:
    named = zip(keys(descriptor), descriptor.entries, strict=True)
    found: dict[str, Any] = {"entries": [_entry(key, entry) for key, entry in named]}
    if descriptor.limit is not None:
        found["limit"] = _limit(descriptor.limit)
    return found | _hits(descriptor.hits_addend)


def _entry(key: str, entry: DescriptorEntry) -> dict[str, Any]:
    found: dict[str, Any] = {"key": key, "value": _value(entry)}
    if entry.values == "Each":
        found["each"] = True
    return found


def _value(entry: DescriptorEntry) -> dict[str, Any]:
    match entry.type:
        case "Generic":
            assert entry.generic is not None  # a rule of the model
            return {"type": "generic", "value": entry.generic.value}
        case "Header":
            return {"type": "header", "name": entry.header}
        case "RemoteAddress":
            found: dict[str, Any] = {"type": "remote_address"}
            if entry.remote_address is not None:
                found["ipv4_prefix"] = entry.remote_address.ipv4_prefix_length
                found["ipv6_prefix"] = entry.remote_address.ipv6_prefix_length
            return found
        case "Path":
            return {"type": "path", "query": entry.path is None or entry.path.query}
        case "Query":
            return {"type": "query", "name": entry.query}
        case "Cookie":
            return {"type": "cookie", "name": entry.cookie}
        case "Metadata":
            assert entry.metadata is not None  # a rule of the model
            where = entry.metadata
            return {"type": "metadata", "namespace": where.namespace, "path": list(where.path)}
        case _:
            return {"type": entry.type.lower()}


def _limit(limit: Limit) -> dict[str, Any]:
    found: dict[str, Any] = {"requests": limit.requests, "unit": limit.unit.lower()}
    if limit.burst is not None:
        found["burst"] = limit.burst
    if limit.name is not None:
        found["name"] = limit.name
    return found


def _hits(hits: HitsAddend | None) -> dict[str, Any]:
    if hits is None:
        return {}
    if hits.header is not None:
        return {"hits": {"type": "header", "name": hits.header}}
    return {"hits": {"type": "constant", "value": hits.value}}
