"""Envoy with the listener, filter chain, filters and routes that kgateway generates."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from benches.load.peers.base import Peer
from benches.load.spec import LOG_FIELDS, SERVICE_VIP

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benches.load.programs import Programs
    from benches.load.spec import Route, Spec

Message = dict[str, Any]

RATE_LIMIT = "ratelimit/local"
LOCAL_RATE_LIMIT = "extensions.filters.http.local_ratelimit.v3.LocalRateLimit"


class Envoy(Peer):
    """Routes are in its bootstrap, or in a file that it watches where they are to be replaced."""

    name = program = "envoy"

    def command(self, programs: Programs, spec: Spec, directory: Path) -> list[str]:
        if spec.version:
            _prepare_routes(spec, directory)()
        config = directory / "envoy.json"
        config.write_text(json.dumps(bootstrap(spec, directory)))
        options = ["--concurrency", str(spec.workers), "--log-level", "error"]
        return [programs.need("envoy"), "-c", str(config), *options, "--disable-hot-restart"]

    def change(self, spec: Spec, directory: Path, pid: int) -> Callable[[], object]:
        return _prepare_routes(spec, directory)


def bootstrap(spec: Spec, directory: Path) -> Message:
    """Returns the static configuration."""
    endpoint = {"endpoint": {"address": _address(spec.backend)}}
    cluster = {
        "name": "backend",
        "connect_timeout": "5s",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "backend",
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
    }
    resources = {"listeners": [_listener(spec, directory)], "clusters": [cluster]}
    return {"node": {"id": "bench", "cluster": "bench"}, "static_resources": resources}


def _any(kind: str, **fields: Any) -> Message:
    return {"@type": f"type.googleapis.com/envoy.{kind}", **fields}


def _address(port: int) -> Message:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _listener(spec: Spec, directory: Path) -> Message:
    manager = _connection_manager(spec, directory)
    chain: Message = {
        "name": "chain",
        "filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
        ],
    }
    listener: Message = {"name": "listener", "address": _address(spec.port)}
    if spec.proxy_protocol:
        rule = {"tlv_type": 0xD0, "on_tlv_present": {"key": "peer_principal"}}
        reader = _any("extensions.filters.listener.proxy_protocol.v3.ProxyProtocol", rules=[rule])
        listener["listener_filters"] = [
            {"name": "envoy.filters.listener.proxy_protocol", "typed_config": reader}
        ]
        chain["filter_chain_match"] = {
            "destination_port": 80,
            "prefix_ranges": [{"address_prefix": SERVICE_VIP, "prefix_len": 32}],
        }
        chain["filters"].insert(0, _principal())
    listener["filter_chains"] = [chain]
    return listener


def _principal() -> Message:
    """Returns the filter that keeps the caller's identity from the PROXY header."""
    text = "%DYNAMIC_METADATA(envoy.filters.listener.proxy_protocol:peer_principal)%"
    state = {
        "object_key": "io.istio.peer_principal",
        "factory_key": "envoy.string",
        "shared_with_upstream": "ONCE",
        "format_string": {"text_format_source": {"inline_string": text}},
    }
    config = _any(
        "extensions.filters.network.set_filter_state.v3.Config", on_new_connection=[state]
    )
    return {"name": "proxy_protocol_authority", "typed_config": config}


def _connection_manager(spec: Spec, directory: Path) -> Message:
    filters: list[Message] = []
    if spec.waypoint or spec.bucket:
        off = _any(LOCAL_RATE_LIMIT, stat_prefix="http_local_rate_limiter")
        filters.append({"name": RATE_LIMIT, "disabled": True, "typed_config": off})
    router = _any("extensions.filters.http.router.v3.Router")
    filters.append({"name": "envoy.filters.http.router", "typed_config": router})
    manager = _any(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="http",
        use_remote_address=True,
        normalize_path=True,
        merge_slashes=True,
        http_filters=filters,
    )
    if spec.version:
        file = directory / "rds" / "routes.json"
        watch = {"path": str(file), "watched_directory": {"path": str(file.parent)}}
        source = {"resource_api_version": "V3", "path_config_source": watch}
        manager["rds"] = {"route_config_name": "routes", "config_source": source}
    else:
        manager["route_config"] = _route_configuration(spec)
    if spec.waypoint:
        log = _any(
            "extensions.access_loggers.file.v3.FileAccessLog",
            path=str(directory / "access.log"),
            log_format={"json_format": LOG_FIELDS},
        )
        manager["access_log"] = [{"name": "envoy.access_loggers.file", "typed_config": log}]
    return manager


def _prepare_routes(spec: Spec, directory: Path) -> Callable[[], object]:
    """Writes a file of routes; returns what renames it, which is what Envoy looks for."""
    routes = _any("config.route.v3.RouteConfiguration", **_route_configuration(spec))
    fresh = directory / "routes.fresh"
    fresh.write_text(json.dumps({"resources": [routes]}))
    (directory / "rds").mkdir(exist_ok=True)
    return partial(fresh.rename, directory / "rds" / "routes.json")


def _route_configuration(spec: Spec) -> Message:
    by_host: dict[str, list[Message]] = {}
    rules = spec.rules()
    for number, rule in enumerate(rules):
        route = _route(spec, rule, f"route-{number}", is_last=number == len(rules) - 1)
        by_host.setdefault(rule.host, []).append(route)
    hosts = [
        {"name": f"host-{number}", "domains": [host], "routes": routes}
        for number, (host, routes) in enumerate(by_host.items())
    ]
    return {"name": "routes", "ignore_port_in_host_matching": True, "virtual_hosts": hosts}


def _route(spec: Spec, rule: Route, name: str, *, is_last: bool) -> Message:
    action: Message = {
        "cluster": "backend",
        "cluster_not_found_response_code": "INTERNAL_SERVER_ERROR",
    }
    route: Message = {"match": _match(rule), "name": name, "route": action}
    if spec.waypoint:
        action["timeout"] = "180s"
        header = {"key": "x-waypoint", "value": "kgw"}
        route["request_headers_to_add"] = [
            {"header": header, "append_action": "APPEND_IF_EXISTS_OR_ADD"}
        ]
    if spec.is_limited(rule):
        route["typed_per_filter_config"] = {RATE_LIMIT: _bucket()}
    if spec.version and is_last:
        header = {"key": "x-version", "value": spec.version}
        route["response_headers_to_add"] = [
            {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        ]
    return route


def _match(rule: Route) -> Message:
    match: Message
    if rule.regex is not None:
        match = {"safe_regex": {"regex": rule.regex}}
    elif rule.prefix == "/":
        match = {"prefix": "/"}
    else:
        match = {"path_separated_prefix": rule.prefix}
    if rule.header is not None:
        name, value = rule.header
        match["headers"] = [{"name": name, "string_match": {"exact": value}}]
    return match


def _bucket() -> Message:
    always = {"numerator": 100}
    return _any(
        LOCAL_RATE_LIMIT,
        stat_prefix="http_local_rate_limiter",
        filter_enabled={"default_value": always, "runtime_key": "local_rate_limit_enabled"},
        filter_enforced={"default_value": always, "runtime_key": "local_rate_limit_enforced"},
        token_bucket={
            "max_tokens": 10_000_000,
            "tokens_per_fill": 10_000_000,
            "fill_interval": "1s",
        },
    )
