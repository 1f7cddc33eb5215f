"""The configuration that both proxies run, as kgw's IR; ``bootstrap`` renders it for Envoy.

A lane is one set of listeners with upstreams and an access log of its own, so that cases of
different lanes can run side by side. Rules stand in Gateway API precedence, which is the order that
Envoy tries.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.waypoint_log import TEN_KEYS

from . import certificates, tokens

Json = dict[str, Any]

OPERATORS_FILE = Path(__file__).parents[1] / "data" / "access_log_operators.json"
TEXT_MARK = "TEXT "
TEXT_SEPARATOR = " | "
VIP = "10.9.8.7"
VIP6 = "fd00::7"

LOG = {
    **TEN_KEYS,
    "flags_long": "%RESPONSE_FLAGS_LONG%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "connection_end": "%CONNECTION_TERMINATION_DETAILS%",
    "upstream_failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "upstream_host": "%UPSTREAM_HOST%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "route": "%ROUTE_NAME%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "remote": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "direct_remote": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
    "local": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "peer": "%FILTER_STATE(io.istio.peer_principal:PLAIN)%",
}


PEER = (
    "SUBJECT", "ISSUER", "URI_SAN", "DNS_SAN", "IP_SAN", "EMAIL_SAN", "FINGERPRINT_256",
    "FINGERPRINT_1", "CHAIN_FINGERPRINTS_256", "SERIAL", "CHAIN_SERIALS", "CERT_V_START",
    "CERT_V_END", "CERT",
)  # fmt: skip
LOCAL = ("SUBJECT", "URI_SAN", "DNS_SAN", "IP_SAN")
TLS_LOG = LOG | {
    operator: f"%{operator}%"
    for operator in [
        "DOWNSTREAM_TLS_VERSION",
        "DOWNSTREAM_TLS_CIPHER",
        "REQUESTED_SERVER_NAME",
        "FILTER_CHAIN_NAME",
        *[f"DOWNSTREAM_PEER_{it}" for it in PEER],
        *[f"DOWNSTREAM_LOCAL_{it}" for it in LOCAL],
    ]
}
TCP_LOG = LOG | {
    operator: f"%{operator}%"
    for operator in [
        "BYTES_RECEIVED",
        "BYTES_SENT",
        "UPSTREAM_HOSTS_ATTEMPTED",
        "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
        "UPSTREAM_WIRE_BYTES_SENT",
        "DOWNSTREAM_DETECTED_CLOSE_TYPE",
        "UPSTREAM_DETECTED_CLOSE_TYPE",
        "DOWNSTREAM_LOCAL_CLOSE_REASON",
        "UPSTREAM_LOCAL_CLOSE_REASON",
        "ACCESS_LOG_TYPE",
        "LISTENER_NAME",
    ]
}


@dataclass(frozen=True)
class Lane:
    """One lane: its number, the access log's path, and the addresses of its upstreams by name."""

    number: int
    log: str
    upstreams: dict[str, str]

    def named(self, name: str) -> str:
        """The id of a listener, route table or cluster of this lane."""
        return f"{name}.{self.number}"

    def config(self) -> Json:
        """This lane's part of the IR."""
        routes: Json = {}
        tables = {
            self.named(name): {"hosts": [_host(self, routes, *host) for host in hosts]}
            for name, hosts in _tables(self).items()
        }
        return {
            "version": 1,
            "listeners": _listeners(self),
            "route_tables": tables,
            "routes": routes,
            "clusters": _clusters(self),
        }


def merged(lanes: list[Lane]) -> Json:
    """The IR of all lanes."""
    whole: Json = {
        "version": 1,
        "listeners": [],
        "route_tables": {},
        "routes": {},
        "clusters": {},
    }
    for part in (lane.config() for lane in lanes):
        whole["listeners"] += part["listeners"]
        for key in ("route_tables", "routes", "clusters"):
            whole[key] |= part[key]
    return whole


def operators() -> list[str]:
    """The access log operators that are compared: all that kgw has."""
    recorded = json.loads(OPERATORS_FILE.read_text())["requests"][0]["operators"]
    return [operator for operator in recorded if "CEL(" not in operator]


# === listeners ===


def _listeners(lane: Lane) -> list[Json]:
    def listener(name: str, table: str = "all", log: Json | None = None, **http: Any) -> Json:
        return {
            "id": lane.named(name),
            "bind": ["127.0.0.1:0"],
            "traffic": {"type": "http", "route_table": lane.named(table)},
            "http": http,
            "access_logs": [{"path": lane.log, "format": {"json": log or LOG}}],
        }

    def passing(name: str, cluster: str, **more: Any) -> Json:
        made = listener(name, log=TCP_LOG)
        made["traffic"] = {"type": "tcp", "forward": _passed(lane, cluster) | more}
        return made

    def encrypted(name: str, *chains: Json) -> Json:
        made = listener(name, log=TLS_LOG)
        made["traffic"] = {"type": "tls", "chains": list(chains)}
        return made

    def chain(name: str, **tls: Any) -> Json:
        server = {"certificates": [certificates.certificate(name)]} | tls
        action = {"type": "http", "tls": server, "route_table": lane.named("all")}
        return {"name": f"chain-{name}", "server_names": [name], "action": action}

    def behind(name: str, **header: Any) -> Json:
        options = {"header_timeout_ms": 500, "max_header_bytes": 65_535} | header
        return listener(name, "main") | {"proxy_protocol": options}

    validation = {"ca": certificates.trusted()}
    known = operators()
    ops = listener("ops", log={operator: operator for operator in known})
    text = TEXT_MARK + TEXT_SEPARATOR.join(known) + "\n"
    ops["access_logs"].append({"path": lane.log, "format": {"text": text}})
    waypoint = listener("waypoint")
    waypoint["traffic"] = {
        "type": "waypoint",
        "header_timeout_ms": 500,
        "max_header_bytes": 65_535,
        "destinations": [
            _destination(lane, VIP, "svc-a"),
            _destination(lane, VIP6, "svc-c"),
        ],
    }
    return [
        listener("main", "main"),
        listener(
            "timeouts",
            request_head_timeout_ms=400,
            stream_idle_timeout_ms=800,
            idle_timeout_ms=500,
        ),
        listener("limits", max_head_bytes=8192, max_fields=20),
        listener("bare", use_remote_address=False, normalize_path=False, merge_slashes=False),
        ops,
        waypoint,
        *_with_options(listener),
        passing("tcp", "a"),
        passing("tcp-refused", "refused"),
        passing("tcp-empty", "empty"),
        passing("tcp-idle", "a", idle_timeout_ms=400),
        encrypted(
            "tls",
            chain("one.test"),
            chain("old.test", parameters={"max_version": "1.2"}),
            chain("h1.test", alpn=["http/1.1"]),
            chain("mutual.test", client_validation=validation),
            chain("optional.test", client_validation=validation | {"mode": "optional"}),
        ),
        behind("behind", optional=True, accept_v1=True),
        behind("behind-strict"),
        listener("mark", "mark", log={"mark": "%REQ(:PATH)%"}),
    ]


def _with_options(listener: Any) -> list[Json]:
    return [
        listener("hops", xff_trusted_hops=1, underscores="reject", escaped_slashes="reject"),
        listener("two-hops", xff_trusted_hops=2, underscores="drop"),
        listener("internal-hops", use_remote_address=False, xff_trusted_hops=1),
        listener("skip", skip_xff_append=True, escaped_slashes="unescape_and_forward"),
        listener(
            "keep",
            request_id={"preserve_external": True, "in_response": True},
            server_header="pass_through",
            escaped_slashes="unescape_and_redirect",
        ),
        listener("no-id", request_id={"generate": False}, server_header="append_if_absent"),
        listener("unmerged", merge_slashes=False),
        listener("old", accept_http_10=True, default_host_for_http_10="default.test"),
        listener("old-nohost", accept_http_10=True),
        listener("twice", max_requests_per_connection=2),
        listener("overall", request_timeout_ms=400),
        listener("h1-only", codec="http1"),
        listener("h2-only", codec="http2"),
        listener("switching", "upgrades", upgrades=["websocket"]),
    ]


def _passed(lane: Lane, cluster: str) -> Json:
    return {"name": "passed", "backends": [{"cluster": lane.named(cluster), "weight": 1}]}


def _destination(lane: Lane, address: str, name: str) -> Json:
    table = lane.named(name)
    return {"address": address, "port": 80, "service": f"default/{name}", "route_table": table}


def _clusters(lane: Lane) -> Json:
    clusters: Json = {
        lane.named(name): {"endpoints": [address]} for name, address in lane.upstreams.items()
    }
    clusters[lane.named("hang")]["connect_timeout_ms"] = 300
    clusters[lane.named("empty")] = {"endpoints": []}
    others: list[tuple[str, str, Json]] = [
        ("h2", "a", {"protocol": "http2"}),
        ("h2-d", "d", {"protocol": "http2"}),
        ("h2-refused", "refused", {"protocol": "http2"}),
        ("auto", "a", {"protocol": "auto"}),
        ("pp1", "d", {"proxy_protocol": {"version": 1}}),
        ("pp2", "d", {"proxy_protocol": {"version": 2}}),
        ("pp2-tlv", "d", {"proxy_protocol": {"version": 2, "pass_tlvs": [0xEA]}}),
        ("pp2-h2", "d", {"proxy_protocol": {"version": 2}, "protocol": "http2"}),
        ("twice", "a", {"max_requests_per_connection": 2}),
    ]
    for name, upstream, more in others:
        clusters[lane.named(name)] = {"endpoints": [lane.upstreams[upstream]]} | more
    return clusters


# === routes ===

Host = tuple[str, list[Json]]


def _host(lane: Lane, routes: Json, hostname: str, rules: list[Json]) -> Json:
    compiled = []
    for number, rule in enumerate(rules):
        name = rule["name"]
        key = lane.named(f"{hostname}/{name}")
        routes[key] = {
            "name": name,
            "filters": rule.get("filters", []),
            "action": rule["action"],
        }
        match = {key: rule[key] for key in ("path", "method", "headers", "query") if key in rule}
        rank = {"name": f"default/{name}", "rule": number}
        compiled.append(match | {"rank": rank, "route": key})
    return {"hostname": hostname, "rules": compiled}


def _tables(lane: Lane) -> dict[str, list[Host]]:
    def to(*clusters: str | None, ms: int = 15_000, **more: Any) -> Json:
        backends = [
            {"cluster": cluster and lane.named(cluster), "weight": 1} for cluster in clusters
        ]
        action = {"type": "forward", "backends": backends, "request_timeout_ms": ms}
        return action | more

    def rule(name: str, path: Json | str = "/", action: Json | None = None, **more: Any) -> Json:
        predicate = {"prefix": path} if isinstance(path, str) else path
        return {"name": name, "path": predicate, "action": action or to("a")} | more

    def any_host(name: str, cluster: str) -> list[Host]:
        return [("*", [rule(name, action=to(cluster))])]

    return {
        "main": [
            ("match.test", _matches(rule)),
            *[(host, [rule(f"at-{host}")]) for host in WILDCARDS],
            ("rw.test", _rewrites(rule, to)),
            ("rd.test", _redirects(rule)),
            ("dr.test", _direct(rule)),
            ("mirror.test", _mirrored(rule, to, lane)),
            ("cors.test", _shared(rule)),
            ("rbac.test", _conditions(rule)),
            ("jwt.test", _issuers(rule)),
            ("hd.test", _modifiers(rule, to)),
            ("tr.test", _splits(rule, lane)),
            ("err.test", _errors(rule, to)),
            ("rl.test", _limits(rule, lane)),
            ("plain.test", [rule("plain")]),
            ("h2.test", _http2(rule, to)),
            ("grpc.test", _grpc(rule, to)),
            ("web.test", _grpc_web(rule, to)),
            ("up.test", _upgrades(rule, to)),
            ("connect.test", [rule("connect", action=to("a", upgrades=["connect"]))]),
            ("pp.test", [rule(name, f"/{name}", to(name)) for name in PROXIED]),
        ],
        "upgrades": [("*", [rule("switching")])],
        "all": any_host("all", "a"),
        "svc-a": any_host("svc-a", "a"),
        "svc-c": any_host("svc-c", "c"),
        "mark": [("*", [rule("mark", action={"type": "direct", "status": 200})])],
    }


PROXIED = ["pp1", "pp2", "pp2-tlv", "pp2-h2"]
WILDCARDS = ["w.dom.test", "*.dom.test", "*.b.dom.test"]


def _value(name: str, kind: str, text: str | None = None) -> Json:
    return {"name": name, "value": "present" if text is None else {kind: text}}


def _matches(rule: Any) -> list[Json]:
    def header(name: str, *predicates: Json) -> Json:
        found: Json = rule(f"h-{name}", f"/h/{name}", headers=list(predicates))
        return found

    def query(name: str, *predicates: Json) -> Json:
        found: Json = rule(f"q-{name}", f"/q/{name}", query=list(predicates))
        return found

    return [
        rule("exact", {"exact": "/exact"}),
        rule("encoded", {"exact": "/a%20b"}),
        rule("regex", {"regex": "/re/[0-9]+"}),
        header("exact", _value("x-t", "exact", "v1")),
        header("present", _value("x-t", "present")),
        header("regex", _value("x-t", "regex", "v[0-9]")),
        header("cookie", _value("cookie", "regex", r".*\buser=bob\b.*")),
        header("two", _value("x-t", "exact", "1"), _value("x-u", "exact", "2")),
        query("exact", _value("a", "exact", "1")),
        query("present", _value("a", "present")),
        query("regex", _value("a", "regex", "[0-9]+")),
        query("empty", _value("a", "exact", "")),
        query("space", _value("a", "exact", "x y")),
        query("two", _value("a", "exact", "1"), _value("b", "exact", "2")),
        rule("method-post", "/method", method="POST"),
        rule("method-any", "/method"),
        rule("psp", "/psp"),
        rule("h-fallback", "/h"),
        rule("q-fallback", "/q"),
        rule("slash", {"exact": "/"}),
    ]


def _rewrites(rule: Any, to: Any) -> list[Json]:
    def rewrite(name: str, matched: str, **rewrite: Any) -> Json:
        found: Json = rule(name, matched, to("a", rewrite=rewrite))
        return found

    def prefix(path: str, target: str) -> Json:
        return {"prefix": {"from": path, "to": target}}

    return [
        rewrite("prefix", "/old", path=prefix("/old", "/new")),
        rewrite("prefix-slash", "/olds", path=prefix("/olds", "/")),
        rewrite("full", "/full", path={"full": "/replaced"}),
        rewrite("host", "/hlit", hostname="lit.example"),
        rule("any"),
    ]


def _redirects(rule: Any) -> list[Json]:
    def redirect(name: str, status: int = 301, **target: Any) -> Json:
        action = {"type": "redirect", "status": status} | target
        found: Json = rule(f"rd-{name}", f"/{name}", action)
        return found

    return [
        redirect("https", scheme="https"),
        redirect("https443", scheme="https", port=443),
        redirect("host", hostname="other.test"),
        redirect("hostport", hostname="other.test", port=8443),
        redirect("port", port=8080),
        redirect("path", path={"full": "/newpath"}),
        redirect("prefix", path={"prefix": {"from": "/prefix", "to": "/np"}}),
        *[redirect(f"c{status}", status, hostname="o.test") for status in (302, 303, 307, 308)],
        redirect("all", scheme="https", hostname="h.test", port=444, path={"full": "/p"}),
    ]


def _mirrored(rule: Any, to: Any, lane: Lane) -> list[Json]:
    def mirror(share: int) -> Json:
        cluster = lane.named("c")
        return {"type": "mirror", "cluster": cluster, "numerator": share, "denominator": 100}

    change = _modify(set="new")
    rewrite = {"hostname": "new.test", "path": {"prefix": {"from": "/changed", "to": "/new"}}}
    return [
        rule("changed", "/changed", to("a", rewrite=rewrite), filters=[*change, mirror(100)]),
        rule("never", "/never", filters=[mirror(0)]),
        rule("mirrored", filters=[mirror(100)]),
    ]


def _shared(rule: Any) -> list[Json]:
    cors = {
        "type": "cors",
        "allow_origins": ["https://www.foo.com", "https://*.bar.com"],
        "allow_credentials": True,
        "allow_methods": ["GET", "PUT"],
        "allow_headers": ["x-1", "x-2"],
        "expose_headers": ["x-3"],
        "max_age_s": 60,
    }
    return [rule("shared", filters=[cors, *_modify(set="new")])]


#: Conditions by the names of their paths.
CONDITIONS = {
    "method": "request.method == 'POST'",
    "path": "request.url_path.endsWith('/x') && request.query == 'a=1'",
    "header": "request.headers['x-role'] == 'admin'",
    "header-not": "request.headers['x-role'] != 'admin'",
    "header-has": "has(request.headers.cookie) || 'x-role' in request.headers",
    "header-two": "request.headers['x-two'] == '1,2'",
    "header-host": "request.headers['host'] == 'rbac.test' && request.host == 'rbac.test'",
    "header-pseudo": "request.headers[':path'] == request.path",
    "size": "request.size == 5 && request.total_size > 5",
    "type": "request.path > 1 || request.size == 'a'",
    "error-or": "request.headers['x-none'] == 'a' || request.method == 'GET'",
    "error-and": "request.headers['x-none'] == 'a' && request.method == 'GET'",
    "regex": "request.path.matches('^/regex/[0-9]+$')",
    "source": "source.address.startsWith('127.0.0.1:') && source.port > 0",
    "destination": "destination.port > 0 && destination.address.contains(':')",
    "protocol": "request.protocol == 'HTTP/1.1' && request.scheme == 'http'",
    "time": "request.time > timestamp('2020-01-01T00:00:00Z')",
    "id": "size(request.id) == 36",
    "mtls": "connection.mtls || connection.requested_server_name != ''",
    "tls": "has(connection.tls_version)",
    "text": "request.path",
    "in-list": "request.method in ['GET', 'HEAD']",
    "agent": "request.useragent == 'a' && request.referer == 'b'",
    "arithmetic": "size(request.path) * 2 + 1 == 23 && 7 / 2 == 3",
    "condition": "request.method == 'GET' ? request.path.contains('y') : false",
    "state": "'io.istio.peer_principal' in filter_state",
    "no-metadata": "metadata.filter_metadata['a']['b'] == 'c'",
}


def _conditions(rule: Any) -> list[Json]:
    def rbac(action: str, *conditions: str) -> list[Json]:
        return [{"type": "rbac", "action": action, "conditions": list(conditions)}]

    allowed = [
        rule(f"rbac-{name}", f"/{name}", filters=rbac("allow", condition))
        for name, condition in CONDITIONS.items()
    ]
    denied = [
        rule(f"deny-{name}", f"/deny/{name}", filters=rbac("deny", condition))
        for name, condition in CONDITIONS.items()
    ]
    several = ("request.method == 'PUT'", "request.headers['x-none'] == 'a'", "request.path != ''")
    return [*denied, *allowed, rule("rbac-several", "/several", filters=rbac("allow", *several))]


CLAIMS = (
    "sub", "name", "admin", "level", "ratio", "debt", "groups", "org.unit.id", "org.unit",
    "org.list", "nothing", "empty", "missing", "org.missing", "aud", "exp",
)  # fmt: skip


def _issuers(rule: Any) -> list[Json]:
    def provider(issuer: str | None = tokens.ISSUER, **more: Any) -> Json:
        found: Json = {"keys": {"local": tokens.keys()}} | more
        return found if issuer is None else {"issuer": issuer} | found

    def jwt(name: str, *providers: Json, **more: Any) -> Json:
        filters = [{"type": "jwt_auth", "providers": list(providers)} | more]
        found: Json = rule(f"jwt-{name}", f"/{name}", filters=filters)
        return found

    audiences = ["api.test"]
    header = {"header": {"name": "x-token", "prefix": "Token "}}
    second = provider("https://second.test", audiences=["second"])
    claims = [[claim, f"x-claim-{claim.replace('.', '-')}"] for claim in CLAIMS]
    return [
        jwt("plain", provider()),
        jwt("any", provider(None)),
        jwt("audience", provider(audiences=audiences)),
        jwt("forward", provider(forward=True)),
        jwt("header", provider(token=header)),
        jwt("whole", provider(token={"header": {"name": "x-token", "prefix": ""}})),
        jwt("query", provider(token={"query": "key"})),
        jwt("claims", provider(claims_to_headers=claims)),
        jwt("missing", provider(audiences=audiences), allow_missing=True),
        jwt("two", provider(audiences=audiences), second),
        jwt("two-missing", provider(audiences=audiences), second, allow_missing=True),
        jwt("two-places", provider(token=header), second),
    ]


def _direct(rule: Any) -> list[Json]:
    def answer(name: str, status: int, body: str = "") -> Json:
        found: Json = rule(
            f"dr-{name}",
            f"/{name}",
            {"type": "direct", "status": status} | ({"body": body} if body else {}),
        )
        return found

    return [
        answer("body", 200, "hello"),
        answer("nobody", 404),
        answer(
            "s503", 503, "invalid route configuration detected and replaced with a direct response."
        ),
    ]


def _modify(**changes: Any) -> list[Json]:
    """Request and response modifiers that do the same to ``x-q`` and ``x-r``."""

    def of(name: str) -> Json:
        mutation: Json = {}
        for operation, value in changes.items():
            mutation[operation] = [name] if operation == "remove" else [[name, value]]
        return mutation

    return [{"type": "request_headers"} | of("x-q"), {"type": "response_headers"} | of("x-r")]


def _modifiers(rule: Any, to: Any) -> list[Json]:
    return [
        rule("h-gone", "/gone", to("d"), filters=_modify(set="new")),
        rule("h-append", "/append", filters=_modify(add="new")),
        rule("h-over", "/over", filters=_modify(set="new")),
        rule("h-remove", "/remove", filters=_modify(remove=True)),
        rule(
            "h-on-redirect",
            "/redirect",
            {"type": "redirect", "status": 302, "hostname": "o.test"},
            filters=_modify(set="new"),
        ),
        rule(
            "h-on-direct",
            "/direct",
            {"type": "direct", "status": 200, "body": "hi"},
            filters=_modify(set="new"),
        ),
        rule("h-any"),
    ]


def _splits(rule: Any, lane: Lane) -> list[Json]:
    def split(*backends: Json) -> Json:
        return {"type": "forward", "backends": list(backends), "request_timeout_ms": 15_000}

    def backend(name: str, weight: int, filters: list[Json] | None = None) -> Json:
        return {"cluster": lane.named(name), "weight": weight, "filters": filters or []}

    return [
        rule("w0", "/w0", split(backend("a", 0), backend("b", 1))),
        rule("whdr", "/whdr", split(backend("a", 1, _modify(set="backend")))),
    ]


def _errors(rule: Any, to: Any) -> list[Json]:
    return [
        rule("refused", "/refused", to("refused")),
        rule("empty", "/empty", to("empty")),
        rule("nocluster", "/nocluster", to(None)),
        rule("connect-timeout", "/cto", to("hang")),
        rule("gone", "/gone", to("d")),
        rule("timeout", "/to", to("a", ms=400)),
        rule("no-timeout", "/zero", to("a", ms=0)),
        rule("any"),
    ]


def _limits(rule: Any, lane: Lane) -> list[Json]:
    def limit(name: str, tokens: int, interval_s: float = 600, action: Json | None = None) -> Json:
        bucket = {
            "type": "local_rate_limit",
            "bucket": lane.named(f"bucket-{name}"),
            "max_tokens": tokens,
            "tokens_per_fill": tokens,
            "fill_interval_ns": int(interval_s * 1e9),
        }
        found: Json = rule(name, f"/{name}", action, filters=[bucket])
        return found

    def special(name: str, tokens: int = 1, **more: Any) -> Json:
        found = limit(name, tokens)
        found["filters"] = [found["filters"][0] | {"retry_after": False} | more]
        return found

    def descriptor(case: str, number: int, tokens: int, interval_s: float, **by: Any) -> Json:
        entries = [
            {"source": {"type": "header", "name": name}} | ({"value": value} if value else {})
            for name, value in by.items()
        ]
        return {
            "bucket": lane.named(f"bucket-{case}-{number}"),
            "name": f"{case} {number}",
            "entries": entries,
            "max_tokens": tokens,
            "tokens_per_fill": tokens,
            "fill_interval_ns": int(interval_s * 1e9),
        }

    def described(name: str, tokens: int, *found: tuple[int, float, Json], **more: Any) -> Json:
        descriptors = [
            descriptor(name, number, count, interval_s, **by)
            for number, (count, interval_s, by) in enumerate(found)
        ]
        return special(name, tokens, descriptors=descriptors, headers=["draft_03"], **more)

    one = {"a": "1"}, {"b": "1"}
    names = ("r3", "post", "late", "head", "pipeline", "gone", "h2")
    return [
        special("enabled0", percent_enabled=0),
        special("enforced0", percent_enforced=0, not_enforced_headers=[["x-over", "yes"]]),
        special("silent"),
        special("told", 3, headers=["draft_03"]),
        special("told0", percent_enforced=0, headers=["draft_03"]),
        special("custom", status=503, response_headers=[["x-over", "yes"]]),
        described("two", 5, (2, 600, one[0]), (4, 600, one[1])),
        described("all", 5, (2, 600, {"a": "1", "b": "2"})),
        described("each", 9, (1, 600, {"a": ""})),
        described("slow-first", 50, (10, 600, one[0]), (1, 60, one[1])),
        described("fast-first", 50, (10, 1, one[0]), (1, 600, one[1])),
        described("then-default", 1, (9, 600, one[0])),
        described("only-unmatched", 1, (2, 600, one[0]), only_unmatched=True),
        *[limit(name, 3 if name == "r3" else 1) for name in names],
        limit("refill", 1, 0.25),
        limit("direct", 1, action={"type": "direct", "status": 200, "body": "hello"}),
        limit("redirect", 1, action={"type": "redirect", "status": 302, "hostname": "o.test"}),
        rule("unlimited"),
    ]


def _http2(rule: Any, to: Any) -> list[Json]:
    return [
        rule("h2-gone", "/gone", to("h2-d")),
        rule("h2-refused", "/refused", to("h2-refused")),
        rule("h2-timeout", "/to", to("h2", ms=400)),
        rule("h2-auto", "/auto", to("auto")),
        rule("h2-limited", "/limited", to("twice")),
        rule("h2", "/", to("h2")),
    ]


def _grpc(rule: Any, to: Any) -> list[Json]:
    statuses = (200, 400, 401, 403, 404, 429, 500, 502, 503, 504)
    return [
        rule("g-refused", "/refused", to("h2-refused")),
        rule("g-refused-h1", "/refused1", to("refused")),
        rule("g-empty", "/empty", to("empty")),
        rule("g-nocluster", "/nocluster", to(None)),
        rule("g-timeout", "/to", to("h2", ms=400)),
        rule("g-gone", "/gone", to("h2-d")),
        rule("g-h1", "/h1", to("a", ms=0)),
        rule("g-redirect", "/redirect", {"type": "redirect", "status": 302, "hostname": "o.test"}),
        *[
            rule(f"g-{it}", f"/s{it}", {"type": "direct", "status": it, "body": f"50 % of {it}\n"})
            for it in statuses
        ],
        rule("g-empty-body", "/nobody", {"type": "direct", "status": 503}),
        rule("g", "/g", to("h2", ms=0)),
    ]


def _grpc_web(rule: Any, to: Any) -> list[Json]:
    web = [{"type": "grpc_web"}]
    return [
        rule("web-503", "/s503", {"type": "direct", "status": 503, "body": "no"}, filters=web),
        rule("web-gone", "/gone", to("h2-d"), filters=web),
        rule("web-timeout", "/to", to("h2", ms=400), filters=web),
        rule("web-off", "/off", to("h2")),
        rule("web", "/", to("h2"), filters=web),
    ]


def _upgrades(rule: Any, to: Any) -> list[Json]:
    return [
        rule("ws", "/ws", to("a", ms=0, upgrades=["websocket"])),
        rule("ws-timeout", "/wsto", to("a", ms=400, upgrades=["websocket"])),
        rule("ws-refused", "/wsref", to("refused", upgrades=["websocket"])),
        rule("ws-h2", "/wsh2", to("h2", ms=0, upgrades=["websocket"])),
        rule("none", "/nows"),
        rule("up-any", "/"),
    ]
