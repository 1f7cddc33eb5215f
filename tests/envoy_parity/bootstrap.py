"""Renders kgw's IR as an Envoy bootstrap, the way kgateway configures Envoy."""

from __future__ import annotations

import re
from typing import Any

from . import cel

Json = dict[str, Any]

TYPES = "type.googleapis.com/envoy."
LIMIT = "ratelimit/local"
WEB = "envoy.filters.http.grpc_web"
CORS = "envoy.filters.http.cors"
JWT = "envoy.filters.http.jwt_authn"
RBAC = "envoy.filters.http.rbac"
UPSTREAM_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
IDENTITY = "peer_principal"
REDIRECTS = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}


def render(config: Json) -> Json:
    """The bootstrap of an Envoy that does what ``config`` says."""
    return {
        "node": {"id": "parity", "cluster": "parity"},
        "admin": {"address": _address("127.0.0.1:0")},
        "static_resources": {
            "listeners": [_listener(config, listener) for listener in config["listeners"]],
            "clusters": [_cluster(name, it) for name, it in config["clusters"].items()],
        },
    }


def _address(text: str) -> Json:
    host, _, port = text.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}


def _typed(name: str, kind: str, **fields: Any) -> Json:
    return {"name": name, "typed_config": {"@type": TYPES + kind} | fields}


def _ms(milliseconds: int) -> str:
    return f"{milliseconds / 1000}s"


def _cluster(name: str, cluster: Json) -> Json:
    endpoints = [{"endpoint": {"address": _address(it)}} for it in cluster["endpoints"]]
    more: Json = {}
    if "proxy_protocol" in cluster:
        more["transport_socket"] = _proxied(cluster["proxy_protocol"])
    protocols: dict[str, Json] = {
        "http1": {"explicit_http_config": {"http_protocol_options": {}}},
        "http2": {"explicit_http_config": {"http2_protocol_options": {"allow_connect": True}}},
        "auto": {"use_downstream_protocol_config": {"http2_protocol_options": {}}},
    }
    protocol = protocols[cluster.get("protocol", "http1")]
    if "max_requests_per_connection" in cluster:
        limit = {"max_requests_per_connection": cluster["max_requests_per_connection"]}
        protocol["common_http_protocol_options"] = limit
    kind = "extensions.upstreams.http.v3.HttpProtocolOptions"
    options = {"@type": TYPES + kind} | protocol
    more["typed_extension_protocol_options"] = {UPSTREAM_OPTIONS: options}
    return more | {
        "name": name,
        "type": "STATIC",
        "connect_timeout": _ms(cluster.get("connect_timeout_ms", 5000)),
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": endpoints}] if endpoints else [],
        },
    }


def _proxied(header: Json) -> Json:
    raw = _typed(
        "envoy.transport_sockets.raw_buffer",
        "extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    )
    config: Json = {"version": f"V{header['version']}"}
    if header.get("pass_tlvs"):
        passed = {"match_type": "INCLUDE", "tlv_type": header["pass_tlvs"]}
        config["pass_through_tlvs"] = passed
    return _typed(
        "envoy.transport_sockets.upstream_proxy_protocol",
        "extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
        config=config,
        transport_socket=raw,
    )


# === listeners ===


def _listener(config: Json, listener: Json) -> Json:
    rendered = {"name": listener["id"], "address": _address(listener["bind"][0])}
    traffic = listener["traffic"]
    if "proxy_protocol" in listener:
        rendered |= _behind(listener["proxy_protocol"])
    if traffic["type"] == "http":
        chain = _http_chain(config, listener, traffic["route_table"])
        return rendered | {"filter_chains": [{"name": listener["id"], "filters": [chain]}]}
    if traffic["type"] == "tcp":
        chain = _tcp_chain(listener, traffic["forward"])
        return rendered | {"filter_chains": [{"name": listener["id"], "filters": [chain]}]}
    if traffic["type"] == "tls":
        inspector = _typed(
            "envoy.filters.listener.tls_inspector",
            "extensions.filters.listener.tls_inspector.v3.TlsInspector",
        )
        chains = [_tls_chain(config, listener, it) for it in traffic["chains"]]
        return rendered | {"listener_filters": [inspector], "filter_chains": chains}
    header = _typed(
        "envoy.filters.listener.proxy_protocol",
        "extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
        rules=[{"tlv_type": 0xD0, "on_tlv_present": {"key": IDENTITY}}],
    )
    chains = [_waypoint_chain(config, listener, it) for it in traffic["destinations"]]
    timeout = _ms(traffic["header_timeout_ms"])
    return rendered | {
        "listener_filters": [header],
        "listener_filters_timeout": timeout,
        "filter_chains": chains,
    }


def _behind(options: Json) -> Json:
    header = _typed(
        "envoy.filters.listener.proxy_protocol",
        "extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
        allow_requests_without_proxy_protocol=options.get("optional", False),
        disallowed_versions=[] if options.get("accept_v1") else ["V1"],
        pass_through_tlvs={"match_type": "INCLUDE_ALL"},
    )
    timeout = _ms(options["header_timeout_ms"])
    return {"listener_filters": [header], "listener_filters_timeout": timeout}


def _tcp_chain(listener: Json, forward: Json) -> Json:
    (backend,) = forward["backends"]
    return _typed(
        "envoy.filters.network.tcp_proxy",
        "extensions.filters.network.tcp_proxy.v3.TcpProxy",
        stat_prefix=forward["name"],
        cluster=backend["cluster"],
        idle_timeout=_ms(forward.get("idle_timeout_ms", 3_600_000)),
        access_log=[_access_log(log) for log in listener["access_logs"]],
    )


def _tls_chain(config: Json, listener: Json, chain: Json) -> Json:
    action = chain["action"]
    tls = action["tls"]
    common: Json = {
        "alpn_protocols": tls.get("alpn", ["h2", "http/1.1"]),
        "tls_certificates": [
            {
                "certificate_chain": {"inline_string": it["chain"]},
                "private_key": {"inline_string": it["key"]},
            }
            for it in tls["certificates"]
        ],
    }
    # kgw speaks the versions that are not obsolete; kgateway sets none of these by default.
    versions = {"min_version": "1.2", "max_version": "1.3"} | tls.get("parameters", {})
    common["tls_params"] = {
        "tls_minimum_protocol_version": "TLSv" + versions["min_version"].replace(".", "_"),
        "tls_maximum_protocol_version": "TLSv" + versions["max_version"].replace(".", "_"),
    }
    validation = tls.get("client_validation")
    if validation is not None:
        common["validation_context"] = {"trusted_ca": {"inline_string": validation["ca"]}}
    required = validation is not None and validation.get("mode", "require") == "require"
    socket = _typed(
        "envoy.transport_sockets.tls",
        "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        common_tls_context=common,
        require_client_certificate=required,
    )
    return {
        "name": chain["name"],
        "filter_chain_match": {"server_names": chain["server_names"]},
        "transport_socket": socket,
        "filters": [_http_chain(config, listener, action["route_table"])],
    }


def _waypoint_chain(config: Json, listener: Json, destination: Json) -> Json:
    address = destination["address"]
    principal = f"%DYNAMIC_METADATA(envoy.filters.listener.proxy_protocol:{IDENTITY})%"
    identity = _typed(
        "proxy_protocol_authority",
        "extensions.filters.network.set_filter_state.v3.Config",
        on_new_connection=[
            {
                "object_key": "io.istio.peer_principal",
                "factory_key": "envoy.string",
                "format_string": {"text_format_source": {"inline_string": principal}},
                "shared_with_upstream": "ONCE",
            }
        ],
    )
    bits = 128 if ":" in address else 32
    return {
        "name": f"{listener['id']}/{destination['service']}",
        "filter_chain_match": {
            "destination_port": destination["port"],
            "prefix_ranges": [{"address_prefix": address, "prefix_len": bits}],
        },
        "filters": [identity, _http_chain(config, listener, destination["route_table"])],
    }


def _http_chain(config: Json, listener: Json, table: str) -> Json:
    http = listener["http"]
    edge = http.get("use_remote_address", True)
    options: Json = {
        "normalize_path": http.get("normalize_path", True),
        "merge_slashes": http.get("merge_slashes", True),
        "use_remote_address": edge,
        # A refused request's connection lingers this long for unread bytes; 1 s is slow to test.
        "delayed_close_timeout": "0.2s",
        # An idle connection is closed this long after its time-out.
        "drain_timeout": "0.1s",
    }
    common: Json = {}
    if "request_head_timeout_ms" in http:
        options["request_headers_timeout"] = _ms(http["request_head_timeout_ms"])
    if "stream_idle_timeout_ms" in http:
        options["stream_idle_timeout"] = _ms(http["stream_idle_timeout_ms"])
    if "idle_timeout_ms" in http:
        common["idle_timeout"] = _ms(http["idle_timeout_ms"])
    if "max_head_bytes" in http:
        options["max_request_headers_kb"] = http["max_head_bytes"] // 1024
    if "max_fields" in http:
        common["max_headers_count"] = http["max_fields"]
    if "underscores" in http:
        common["headers_with_underscores_action"] = UNDERSCORES[http["underscores"]]
    if "max_requests_per_connection" in http:
        common["max_requests_per_connection"] = http["max_requests_per_connection"]
    options |= _further_options(http)
    return _typed(
        "envoy.filters.network.http_connection_manager",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="http",
        common_http_protocol_options=common,
        http_filters=[
            _typed(CORS, "extensions.filters.http.cors.v3.Cors"),
            _jwt_authn(config),
            _typed(RBAC, "extensions.filters.http.rbac.v3.RBAC"),
            _local_rate_limit(None) | {"disabled": True},
            _typed(WEB, "extensions.filters.http.grpc_web.v3.GrpcWeb") | {"disabled": True},
            _typed("envoy.filters.http.router", "extensions.filters.http.router.v3.Router"),
        ],
        route_config={
            "name": table,
            "ignore_port_in_host_matching": True,
            "validate_clusters": False,
            "virtual_hosts": [_host(config, it) for it in config["route_tables"][table]["hosts"]],
        },
        access_log=[_access_log(log) for log in listener["access_logs"]],
        **options,
    )


UNDERSCORES = {"reject": "REJECT_REQUEST", "drop": "DROP_HEADER"}


def _further_options(http: Json) -> Json:
    options: Json = {"http2_protocol_options": {"allow_connect": True}}
    if "codec" in http:
        options["codec_type"] = http["codec"].upper()
    if http.get("accept_http_10"):
        options["http_protocol_options"] = {
            "accept_http_10": True,
            "default_host_for_http_10": http.get("default_host_for_http_10", ""),
        }
    options["upgrade_configs"] = [{"upgrade_type": it} for it in http.get("upgrades", [])]
    if "request_timeout_ms" in http:
        options["request_timeout"] = _ms(http["request_timeout_ms"])
    if "server_header" in http:
        options["server_header_transformation"] = http["server_header"].upper()
    if "escaped_slashes" in http:
        options["path_with_escaped_slashes_action"] = SLASHES[http["escaped_slashes"]]
    names = {
        "xff_trusted_hops": "xff_num_trusted_hops",
        "skip_xff_append": "skip_xff_append",
    }
    options |= {theirs: http[ours] for ours, theirs in names.items() if ours in http}
    names = {
        "generate": "generate_request_id",
        "preserve_external": "preserve_external_request_id",
        "in_response": "always_set_request_id_in_response",
    }
    request_id = http.get("request_id", {})
    return options | {names[ours]: value for ours, value in request_id.items()}


SLASHES = {
    "reject": "REJECT_REQUEST",
    "unescape_and_forward": "UNESCAPE_AND_FORWARD",
    "unescape_and_redirect": "UNESCAPE_AND_REDIRECT",
}


def _access_log(log: Json) -> Json:
    form = log["format"]
    if "json" in form:
        line = {"json_format": form["json"]}
    else:
        line = {"text_format_source": {"inline_string": form["text"]}}
    line["formatters"] = [
        _typed(
            "envoy.formatter.req_without_query",
            "extensions.formatter.req_without_query.v3.ReqWithoutQuery",
        ),
        _typed("envoy.formatter.metadata", "extensions.formatter.metadata.v3.Metadata"),
    ]
    kind = "extensions.access_loggers.file.v3.FileAccessLog"
    return _typed("envoy.access_loggers.file", kind, path=log["path"], log_format=line)


# === routes ===


def _host(config: Json, host: Json) -> Json:
    routes = [
        route
        for rule in host["rules"]
        for route in _with_connect(rule, config["routes"][rule["route"]])
    ]
    return {"name": host["hostname"], "domains": [host["hostname"]], "routes": routes}


def _with_connect(rule: Json, route: Json) -> list[Json]:
    """A route, and another one for CONNECT where kgw has that as an upgrade."""
    rendered = _route(rule, route)
    if "connect" not in route["action"].get("upgrades", []):
        return [rendered]
    forward = rendered["route"] | {
        "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]
    }
    return [rendered | {"match": {"connect_matcher": {}}, "route": forward}, rendered]


def _route(rule: Json, route: Json) -> Json:
    rendered: Json = {"name": route["name"], "match": _match(rule)} | _headers(route["filters"])
    for it in route["filters"]:
        if it["type"] == "local_rate_limit":
            bucket = _local_rate_limit(it)["typed_config"]
            rendered["typed_per_filter_config"] = {LIMIT: bucket}
        elif it["type"] == "grpc_web":
            enabled = {"@type": TYPES + "config.route.v3.FilterConfig", "config": {}}
            rendered["typed_per_filter_config"] = {WEB: enabled}
        elif it["type"] == "rbac":
            rendered["typed_per_filter_config"] = {RBAC: _rbac(it)}
        elif it["type"] == "jwt_auth":
            kind = "extensions.filters.http.jwt_authn.v3.PerRouteConfig"
            named = {"@type": TYPES + kind, "requirement_name": route["name"]}
            rendered["typed_per_filter_config"] = {JWT: named}
        elif it["type"] == "cors":
            rendered["typed_per_filter_config"] = {CORS: _cors(it)["typed_config"]}
    action = route["action"]
    if action["type"] == "redirect":
        return rendered | {"redirect": _redirect(action)}
    if action["type"] == "direct":
        answer = {"status": action["status"]}
        if "body" in action:
            answer["body"] = {"inline_string": action["body"]}
        return rendered | {"direct_response": answer}
    mirrors = [_mirror(it) for it in route["filters"] if it["type"] == "mirror"]
    forward = _forward(action) | ({"request_mirror_policies": mirrors} if mirrors else {})
    return rendered | {"route": forward}


def _rbac(rbac: Json) -> Json:
    """Conditions as kgateway makes a matcher of them."""

    def action(name: str) -> Json:
        kind = "config.rbac.v3.Action"
        made = {"name": f"{name}-request", "action": name.upper()}
        return {"action": {"name": "action", "typed_config": {"@type": TYPES + kind} | made}}

    predicates = [
        {
            "single_predicate": {
                "input": {
                    "name": "envoy.matching.inputs.cel_data_input",
                    "typed_config": {"@type": XDS + "HttpAttributesCelMatchInput"},
                },
                "custom_match": {
                    "name": "envoy.matching.matchers.cel_matcher",
                    "typed_config": {
                        "@type": XDS + "CelMatcher",
                        "expr_match": {"cel_expr_parsed": cel.parsed(condition)},
                    },
                },
            }
        }
        for condition in rbac["conditions"]
    ]
    one, *others = predicates
    predicate = {"or_matcher": {"predicate": predicates}} if others else one
    matcher = {"predicate": predicate, "on_match": action(rbac["action"])}
    return {
        "@type": TYPES + "extensions.filters.http.rbac.v3.RBACPerRoute",
        "rbac": {
            "matcher": {
                "matcher_list": {"matchers": [matcher]},
                "on_no_match": action("deny" if rbac["action"] == "allow" else "allow"),
            }
        },
    }


XDS = "type.googleapis.com/xds.type.matcher.v3."


def _jwt_authn(config: Json) -> Json:
    """The issuers of all routes, as kgateway names what a route requires of them."""
    providers: Json = {}
    requirements: Json = {}
    for route in config["routes"].values():
        for it in route["filters"]:
            if it["type"] != "jwt_auth":
                continue
            every: list[Json] = []
            for number, provider in enumerate(it["providers"]):
                name = f"{route['name']}_{number}"
                providers[name] = _issuer(provider)
                every.append({"provider_name": name})
            if it.get("allow_missing"):
                every.append({"allow_missing": {}})
            one = {"requires_any": {"requirements": every}} if len(every) > 1 else every[0]
            requirements[route["name"]] = one
    kind = "extensions.filters.http.jwt_authn.v3.JwtAuthentication"
    return _typed(JWT, kind, providers=providers, requirement_map=requirements)


def _issuer(provider: Json) -> Json:
    claims = provider.get("claims_to_headers", [])
    made: Json = {
        "forward": provider.get("forward", False),
        "audiences": provider.get("audiences", []),
        "payload_in_metadata": "payload",
        "local_jwks": {"inline_string": provider["keys"]["local"]},
        "claim_to_headers": [{"claim_name": it[0], "header_name": it[1]} for it in claims],
        "clear_route_cache": bool(claims),
    }
    if "issuer" in provider:
        made["issuer"] = provider["issuer"]
    place = provider.get("token", {})
    if "header" in place:
        header = place["header"]
        made["from_headers"] = [{"name": header["name"], "value_prefix": header["prefix"]}]
    elif "query" in place:
        made["from_params"] = [place["query"]]
    return made


def _match(rule: Json) -> Json:
    ((kind, path),) = rule["path"].items()
    if kind == "exact":
        match: Json = {"path": path}
    elif kind == "regex":
        match = {"safe_regex": {"regex": path}}
    elif path == "/":
        match = {"prefix": "/"}
    else:
        match = {"path_separated_prefix": path}
    headers = [_predicate(it) for it in rule.get("headers", [])]
    if "method" in rule:
        headers.append({"name": ":method", "string_match": {"exact": rule["method"]}})
    if headers:
        match["headers"] = headers
    if "query" in rule:
        match["query_parameters"] = [_predicate(it) for it in rule["query"]]
    return match


def _predicate(predicate: Json) -> Json:
    value = predicate["value"]
    if value == "present":
        return {"name": predicate["name"], "present_match": True}
    ((kind, text),) = value.items()
    match = {"safe_regex": {"regex": text}} if kind == "regex" else {"exact": text}
    return {"name": predicate["name"], "string_match": match}


def _forward(action: Json) -> Json:
    route: Json = {
        "timeout": _ms(action["request_timeout_ms"]),
        "cluster_not_found_response_code": "INTERNAL_SERVER_ERROR",
    }
    if action["request_timeout_ms"] == 0:
        # Beside a time-out of the route, Envoy would not look at that one any more.
        route["max_stream_duration"] = {"grpc_timeout_header_max": "0s"}
    upgrades = [it for it in action.get("upgrades", []) if it != "connect"]
    if upgrades:
        route["upgrade_configs"] = [{"upgrade_type": it} for it in upgrades]
    backends = [
        {"name": it["cluster"] or "blackhole", "weight": it["weight"]}
        | _headers(it.get("filters", []))
        for it in action["backends"]
    ]
    if len(backends) == 1 and len(backends[0]) == 2:
        route["cluster"] = backends[0]["name"]
    else:
        route["weighted_clusters"] = {"clusters": backends}
    rewrite = action.get("rewrite", {})
    if "hostname" in rewrite:
        route["host_rewrite_literal"] = rewrite["hostname"]
    path = rewrite.get("path", {})
    if "full" in path:
        route["regex_rewrite"] = _rewrite("^/[^?]*", path["full"])
    elif "prefix" in path:
        source, target = path["prefix"]["from"], path["prefix"]["to"]
        if target == "/":
            route["regex_rewrite"] = _rewrite(f"^{re.escape(source)}\\/*", "/")
        else:
            route["prefix_rewrite"] = target
    return route


def _rewrite(pattern: str, substitution: str) -> Json:
    return {"pattern": {"regex": pattern}, "substitution": substitution}


def _redirect(action: Json) -> Json:
    redirect: Json = {"response_code": REDIRECTS[action["status"]]}
    names = {"scheme": "scheme_redirect", "hostname": "host_redirect", "port": "port_redirect"}
    for name, field in names.items():
        if name in action:
            redirect[field] = action[name]
    path = action.get("path", {})
    if "full" in path:
        redirect["path_redirect"] = path["full"]
    elif "prefix" in path:
        redirect["prefix_rewrite"] = path["prefix"]["to"]
    return redirect


# === filters ===


def _headers(filters: list[Json]) -> Json:
    rendered: Json = {}
    for mutation in filters:
        if mutation["type"] not in ("request_headers", "response_headers"):
            continue
        fields = mutation["type"]
        added = [
            {"header": {"key": name, "value": value}, "append_action": append}
            for operation, append in APPEND_ACTIONS.items()
            for name, value in mutation.get(operation, [])
        ]
        if added:
            rendered[f"{fields}_to_add"] = added
        if "remove" in mutation:
            rendered[f"{fields}_to_remove"] = mutation["remove"]
    return rendered


APPEND_ACTIONS = {"set": "OVERWRITE_IF_EXISTS_OR_ADD", "add": "APPEND_IF_EXISTS_OR_ADD"}


def _mirror(mirror: Json) -> Json:
    assert mirror["denominator"] == 100
    share = {"default_value": {"numerator": mirror["numerator"], "denominator": "HUNDRED"}}
    return {"cluster": mirror["cluster"], "runtime_fraction": share}


def _cors(cors: Json) -> Json:
    return _typed(
        CORS,
        "extensions.filters.http.cors.v3.CorsPolicy",
        allow_origin_string_match=[
            {"safe_regex": {"regex": re.escape(it).replace(r"\*", ".*")}}
            for it in cors["allow_origins"]
        ],
        allow_credentials=cors["allow_credentials"],
        allow_methods=", ".join(cors["allow_methods"]),
        allow_headers=", ".join(cors["allow_headers"]),
        expose_headers=", ".join(cors["expose_headers"]),
        max_age=str(cors["max_age_s"]),
    )


def _local_rate_limit(limit: Json | None) -> Json:
    kind = "extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
    filter_ = _typed(LIMIT, kind, stat_prefix="http_local_rate_limiter")
    if limit is not None:
        filter_["typed_config"] |= {
            "token_bucket": _token_bucket(limit),
            "filter_enabled": _percent(limit.get("percent_enabled", 100)),
            "filter_enforced": _percent(limit.get("percent_enforced", 100)),
        } | _limit_options(limit)
    return filter_


def _token_bucket(bucket: Json) -> Json:
    return {
        "max_tokens": bucket["max_tokens"],
        "tokens_per_fill": bucket["tokens_per_fill"],
        "fill_interval": f"{bucket['fill_interval_ns'] / 1e9}s",
    }


def _percent(share: int) -> Json:
    return {"default_value": {"numerator": share}}


def _limit_options(limit: Json) -> Json:
    options: Json = {}
    if "draft_03" in limit.get("headers", []):
        options["enable_x_ratelimit_headers"] = "DRAFT_VERSION_03"
    if "status" in limit:
        options["status"] = {"code": limit["status"]}
    names = {
        "response_headers": "response_headers_to_add",
        "not_enforced_headers": "request_headers_to_add_when_not_enforced",
    }
    for ours, theirs in names.items():
        fields = [{"header": {"key": key, "value": value}} for key, value in limit.get(ours, [])]
        options |= {theirs: fields} if fields else {}
    descriptors = limit.get("descriptors", [])
    if descriptors:
        options["rate_limits"] = [
            {"actions": [_limit_action(it["source"]) for it in descriptor["entries"]]}
            for descriptor in descriptors
        ]
        options["descriptors"] = [
            {
                # Without a value, each that comes has a bucket of its own.
                "entries": [
                    {"key": it["source"]["name"], "value": it.get("value", "")}
                    for it in descriptor["entries"]
                ],
                "token_bucket": _token_bucket(descriptor),
            }
            for descriptor in descriptors
        ]
        options["always_consume_default_token_bucket"] = not limit.get("only_unmatched", False)
    return options


def _limit_action(source: Json) -> Json:
    name = source["name"]
    return {"request_headers": {"header_name": name, "descriptor_key": name}}
