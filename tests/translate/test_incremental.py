"""One change after another: translated from what was there, or from scratch, it is all the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.translate.certificates import secret

from kgw.api import Resource, ResourceKey, parse
from kgw.source.memory import from_objects
from kgw.translate import Translation, Translator, translate
from kgw.translate.delta import difference

GATEWAY_API = "gateway.networking.k8s.io/v1"
KGATEWAY_API = "gateway.kgateway.dev/v1alpha1"
X_GATEWAY = "gateway.networking.x-k8s.io"
SERVICE_LABEL = "kubernetes.io/service-name"

#: Few names, so that objects are about one another.
NAMESPACES = ("a", "b")
NAMES = ("one", "two", "three")
HOSTS = ("*.x.test", "a.x.test", "b.x.test", "y.test")

names = st.sampled_from(NAMES)
namespaces = st.sampled_from(NAMESPACES)
labels = st.sampled_from([{}, {"app": "web"}, {"app": "api"}])


def objects(version: str, kind: str, spec: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects of a kind, with whatever labels."""

    def build(name: str, namespace: str, own: dict[str, str], spec: Any) -> dict[str, Any]:
        metadata = {"name": name, "namespace": namespace, "labels": own}
        return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}

    return st.builds(build, names, namespaces, labels, spec)


def some(
    one: st.SearchStrategy[Any], least: int = 0, most: int = 2
) -> st.SearchStrategy[list[Any]]:
    return st.lists(one, min_size=least, max_size=most)


def fields(required: dict[str, Any], **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional=optional)


# === Routes ===

parents = st.one_of(
    fields({"name": names}, namespace=namespaces, sectionName=st.sampled_from(["http", "tls"])),
    fields(
        {"name": names, "kind": st.just("Service"), "group": st.just("")},
        port=st.just(80),
        namespace=namespaces,
    ),
    fields(
        {"name": names, "kind": st.just("ListenerSet")},
        namespace=namespaces,
        sectionName=st.sampled_from(["http", "wide"]),
    ),
    st.builds(
        lambda name: {
            "name": name,
            "kind": "ServiceImport",
            "group": "multicluster.x-k8s.io",
        },
        names,
    ),
)
backends = st.one_of(
    fields(
        {"name": names, "port": st.sampled_from([80, 81, 82, 99])},
        namespace=namespaces,
        weight=st.integers(0, 2),
    ),
    st.builds(
        lambda name: {
            "name": name,
            "port": 80,
            "kind": "ServiceImport",
            "group": "multicluster.x-k8s.io",
        },
        names,
    ),
    fields(
        {"name": names, "kind": st.just("XBackend"), "group": st.just(X_GATEWAY)},
        namespace=namespaces,
    ),
)
#: References to routes, which hand on requests to them.
delegates = st.one_of(
    fields(
        {
            "name": st.sampled_from([*NAMES, "*"]),
            "group": st.just("gateway.networking.k8s.io"),
            "kind": st.just("HTTPRoute"),
        },
        namespace=namespaces,
    ),
    fields(
        {
            "name": st.sampled_from(["web", "api"]),
            "group": st.just("delegation.kgateway.dev"),
            "kind": st.just("label"),
        },
        namespace=st.sampled_from(["a", "all"]),
    ),
)
header = st.just({"name": "x-header", "value": "%PROTOCOL%"})
route_filters = st.one_of(
    st.builds(
        lambda name: {
            "type": "ExtensionRef",
            "extensionRef": {
                "group": "gateway.kgateway.dev",
                "kind": "TrafficPolicy",
                "name": name,
            },
        },
        names,
    ),
    st.builds(
        lambda one: {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [one]}},
        header,
    ),
    st.just({"type": "CORS", "cors": {}}),
    st.builds(
        lambda name: {
            "type": "RequestMirror",
            "requestMirror": {"backendRef": {"name": name, "port": 80}},
        },
        names,
    ),
    st.builds(
        lambda ref: {
            "type": "ExternalAuth",
            "externalAuth": {
                "protocol": "GRPC",
                "backendRef": {key: one for key, one in ref.items() if key != "weight"},
                "grpc": {},
            },
        },
        backends,
    ),
)
matches = fields(
    {
        "path": st.sampled_from(
            [
                {"value": "/"},
                {"value": "/v1", "type": "Exact"},
                {"value": "/(", "type": "RegularExpression"},
                {"value": "no slash"},
            ]
        )
    },
    method=st.sampled_from(["GET", "BREW"]),
)
rules = fields(
    {"backendRefs": some(backends)},
    name=st.sampled_from(["r", "s"]),
    matches=some(matches, 1),
    filters=some(route_filters, most=1),
)
http_routes = objects(
    GATEWAY_API,
    "HTTPRoute",
    fields(
        {"parentRefs": some(parents), "rules": some(rules, 1, 2)},
        hostnames=some(st.sampled_from(HOSTS)),
        useDefaultGateways=st.sampled_from(["All", "None"]),
    ),
)
delegating_routes = st.builds(
    lambda one, own: {**one, "metadata": {**one["metadata"], **own}},
    objects(
        GATEWAY_API,
        "HTTPRoute",
        fields(
            {
                "rules": some(
                    fields(
                        {"backendRefs": some(st.one_of(delegates, backends), 1)},
                        name=st.sampled_from(["r", "s"]),
                        matches=some(matches, 1),
                        filters=some(route_filters, most=1),
                    ),
                    1,
                )
            },
            parentRefs=some(
                st.one_of(parents, fields({"name": names, "kind": st.just("HTTPRoute")})), most=1
            ),
            hostnames=some(st.sampled_from(HOSTS), most=1),
        ),
    ),
    fields(
        {},
        labels=st.sampled_from([{"delegation.kgateway.dev/label": "web"}]),
        annotations=st.sampled_from(
            [
                {"delegation.kgateway.dev/inherit-parent-matcher": "true"},
                {"kgateway.dev/inherited-policy-priority": "DeepMergePreferParent"},
            ]
        ),
    ),
)
grpc_routes = objects(
    GATEWAY_API,
    "GRPCRoute",
    fields(
        {
            "parentRefs": some(parents),
            "rules": some(
                fields(
                    {"backendRefs": some(backends)},
                    name=st.sampled_from(["r", "s"]),
                    matches=some(
                        st.sampled_from(
                            [
                                {},
                                {"method": {"service": "a.B"}},
                                {"method": {"method": "C"}},
                                {"method": {"service": "a/b"}},
                            ]
                        )
                    ),
                    filters=some(route_filters, most=1),
                ),
                1,
                2,
            ),
        },
        hostnames=some(st.sampled_from(HOSTS)),
    ),
)
tcp_routes = objects(
    "gateway.networking.k8s.io/v1alpha2",
    "TCPRoute",
    fields(
        {"parentRefs": some(parents), "rules": some(fields({"backendRefs": some(backends)}), 1)}
    ),
)
udp_routes = objects(
    "gateway.networking.k8s.io/v1alpha2",
    "UDPRoute",
    fields(
        {"parentRefs": some(parents), "rules": some(fields({"backendRefs": some(backends)}), 1)}
    ),
)

# === What they stand on ===

allowed = st.sampled_from(
    [
        {"namespaces": {"from": "All"}},
        {"namespaces": {"from": "Selector", "selector": {"matchLabels": {"app": "web"}}}},
        {},
    ]
)
listeners = st.one_of(
    fields(
        {"name": st.just("http"), "port": st.just(80), "protocol": st.just("HTTP")},
        hostname=st.sampled_from(HOSTS),
        allowedRoutes=allowed,
    ),
    fields(
        {"name": st.just("wide"), "port": st.just(80), "protocol": st.just("HTTP")},
        allowedRoutes=allowed,
    ),
    fields(
        {
            "name": st.just("tls"),
            "port": st.just(443),
            "protocol": st.just("HTTPS"),
            "tls": st.just({"certificateRefs": [{"name": "cert"}]}),
        },
        hostname=st.sampled_from(HOSTS),
        allowedRoutes=allowed,
    ),
    fields({"name": st.just("tcp"), "port": st.just(90), "protocol": st.just("TCP")}),
    fields({"name": st.just("udp"), "port": st.just(90), "protocol": st.just("UDP")}),
)
gateways = objects(
    GATEWAY_API,
    "Gateway",
    st.one_of(
        st.builds(
            lambda several, more: {"gatewayClassName": "kgateway", "listeners": several, **more},
            st.lists(listeners, min_size=1, max_size=3, unique_by=lambda one: one["name"]),
            fields(
                {},
                allowedListeners=st.sampled_from(
                    [
                        {"namespaces": {"from": "All"}},
                        {"namespaces": {"from": "Same"}},
                        {
                            "namespaces": {
                                "from": "Selector",
                                "selector": {"matchLabels": {"app": "web"}},
                            }
                        },
                    ]
                ),
                defaultScope=st.sampled_from(["All", "None"]),
                addresses=st.sampled_from([[{"type": "Hostname", "value": "x"}], []]),
            ),
        ),
        st.builds(
            lambda namespaces: {
                "gatewayClassName": "kgateway-waypoint",
                "listeners": [
                    {
                        "name": "http",
                        "port": 15088,
                        "protocol": "istio.io/PROXY",
                        "allowedRoutes": namespaces,
                    }
                ],
            },
            allowed,
        ),
    ),
)
listener_sets = objects(
    GATEWAY_API,
    "ListenerSet",
    fields(
        {
            "parentRef": fields({"name": names}, namespace=namespaces),
            "listeners": st.lists(
                listeners, min_size=1, max_size=2, unique_by=lambda one: one["name"]
            ),
        }
    ),
)
service_ports = st.sampled_from(
    [
        [{"name": "http", "port": 80}],
        [{"name": "http", "port": 80, "protocol": "UDP"}],
        [{"name": "http", "port": 80}, {"name": "grpc-web", "port": 81}],
        [{"name": "any", "port": 80}, {"name": "mysql", "port": 82}, {"name": "tls-x", "port": 81}],
    ]
)
waypoint_labels = st.builds(
    lambda own, name: {**own, "istio.io/use-waypoint": name} if name else own,
    labels,
    st.one_of(st.none(), names),
)


def _service(name: str, namespace: str, own: Any, ports: Any, address: int) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "labels": own}
    spec = {"clusterIP": f"10.0.0.{address}" if address else "None", "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


services = st.builds(_service, names, namespaces, waypoint_labels, service_ports, st.integers(0, 9))


imports = st.builds(
    lambda name, namespace, own: {
        "apiVersion": "multicluster.x-k8s.io/v1alpha1",
        "kind": "ServiceImport",
        "metadata": {"name": name, "namespace": namespace, "labels": own},
        "spec": {"ips": ["10.2.0.1"], "ports": [{"name": "http", "port": 80}]},
    },
    names,
    namespaces,
    waypoint_labels,
)


def _slice(
    name: str, namespace: str, label: str, service: str, addresses: Any, port: Any
) -> dict[str, Any]:
    own = {label: service}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": namespace, "labels": own},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [one]} for one in addresses],
        "ports": [{"name": port, "port": 8080}],
    }


slices = st.builds(
    _slice,
    names,
    namespaces,
    st.sampled_from([SERVICE_LABEL, f"multicluster.{SERVICE_LABEL}"]),
    names,
    some(st.sampled_from(["10.1.0.1", "10.1.0.2", "nowhere", 5]), most=3),
    st.sampled_from(["http", "any", "grpc-web"]),
)
namespace_objects = st.builds(
    lambda name, own: {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": own},
    },
    namespaces,
    waypoint_labels,
)
grants = objects(
    "gateway.networking.k8s.io/v1beta1",
    "ReferenceGrant",
    fields(
        {
            "from": st.builds(
                lambda one: [{"group": GATEWAY_API[:-3], "kind": "HTTPRoute", "namespace": one}],
                namespaces,
            ),
            "to": some(fields({"group": st.just(""), "kind": st.just("Service")}, name=names), 1),
        }
    ),
)

# === Policies ===

kinds = st.sampled_from(["Gateway", "HTTPRoute", "HTTPRoute", "GRPCRoute", "ListenerSet"])
targets = st.builds(
    lambda kind, name, section: {"group": GATEWAY_API[:-3], "kind": kind, "name": name, **section},
    kinds,
    names,
    st.sampled_from([{}, {}, {"sectionName": "r"}, {"sectionName": "http"}]),
)
selectors = st.builds(
    lambda kind: {"group": GATEWAY_API[:-3], "kind": kind, "matchLabels": {"app": "web"}}, kinds
)
limits = st.builds(
    lambda most, share: {
        "local": {
            "tokenBucket": {"maxTokens": most, "fillInterval": "1s"},
            **({} if share is None else {"percentEnabled": share}),
        }
    },
    st.integers(1, 3),
    st.sampled_from([None, None, None, 50]),
)
traffic_policies = objects(
    KGATEWAY_API,
    "TrafficPolicy",
    st.one_of(
        fields(
            {"targetRefs": some(targets)}, rateLimit=limits, timeouts=st.just({"request": "3s"})
        ),
        fields({"targetSelectors": some(selectors, 1)}, rateLimit=limits),
        fields({"targetRefs": some(targets), "rateLimit": st.just({"local": 1})}),
    ),
)
backend_targets = st.builds(lambda name: {"group": "", "kind": "Service", "name": name}, names)
backend_policies = st.one_of(
    objects(
        KGATEWAY_API,
        "BackendConfigPolicy",
        fields({"targetRefs": some(backend_targets, 1)}, connectTimeout=st.just("2s")),
    ),
    objects(
        "gateway.networking.k8s.io/v1",
        "BackendTLSPolicy",
        st.builds(
            lambda refs, which: {
                "targetRefs": refs,
                "validation": {"hostname": "y.test", "wellKnownCACertificates": which},
            },
            some(backend_targets, 1),
            st.sampled_from(["System", "Other"]),
        ),
    ),
    objects(
        "gateway.networking.x-k8s.io/v1alpha1",
        "XBackendTrafficPolicy",
        fields(
            {"targetRefs": some(backend_targets, 1)},
            retryConstraint=st.sampled_from([{}, {"budget": {"percent": 101}}]),
            sessionPersistence=st.just({"sessionName": "s"}),
        ),
    ),
)
listener_policies = objects(
    KGATEWAY_API,
    "HTTPListenerPolicy",
    fields({"targetRefs": some(targets, 1)}, serverHeaderTransformation=st.just("PassThrough")),
)
certificates = st.builds(
    lambda namespace, own: {
        **own,
        "metadata": {**own["metadata"], "namespace": namespace},
    },
    namespaces,
    st.sampled_from([json.loads(secret("cert", "a.x.test")), json.loads(secret("cert", "y.test"))]),
)
unknown = objects("apps/v1", "Deployment", st.just({}))

external_backends = objects(
    f"{X_GATEWAY}/v1alpha1",
    "XBackend",
    fields(
        {
            "type": st.just("ExternalHostname"),
            "externalHostname": st.sampled_from([{"hostname": host} for host in HOSTS[1:]]),
            "port": st.just({"port": 443}),
        },
        protocol=st.sampled_from(["HTTP", "HTTP2", "TCP"]),
        tls=st.one_of(
            st.just({"mode": "ServerOnly"}),
            st.builds(
                lambda name: {"mode": "ClientAndServer", "clientCertificateRef": {"name": name}},
                st.sampled_from(["cert", "one"]),
            ),
        ),
    ),
)
resources = st.one_of(
    http_routes,
    http_routes,
    http_routes,
    http_routes,
    grpc_routes,
    grpc_routes,
    tcp_routes,
    udp_routes,
    gateways,
    gateways,
    listener_sets,
    listener_sets,
    services,
    imports,
    slices,
    slices,
    namespace_objects,
    grants,
    traffic_policies,
    backend_policies,
    external_backends,
    listener_policies,
    certificates,
    unknown,
)

# === Steps ===

#: Objects to put, by name in the place of others, and places of objects to take away. Most changes
#: are of what is done by itself, so that these follow one another.
steps = st.one_of(
    st.tuples(some(st.one_of(http_routes, http_routes, grpc_routes, slices), 1, 3), st.just([])),
    st.tuples(some(http_routes, 1, 1), st.just([])),
    st.tuples(st.just([]), some(st.integers(0, 20), 1, 1)),
    st.tuples(some(resources, most=3), some(st.integers(0, 20), most=1)),
)


def parsed(one: dict[str, Any]) -> Resource:
    ((raw,), _) = from_objects([one]).objects, ()
    resource, _ = parse(raw)
    assert resource is not None
    return resource


def shown(translation: Translation) -> str:
    """All that a translation says, as text."""
    return json.dumps(
        {
            "ir": translation.ir,
            "findings": [one.to_json() for one in translation.findings],
            "statuses": {str(key): one.to_json() for key, one in translation.statuses.items()},
            "counts": [
                translation.route_count,
                translation.listeners == translation.ir["listeners"],
            ],
        },
        indent=1,
    )


def applied(ir: dict[str, Any], delta: dict[str, Any]) -> dict[str, Any]:
    """What an engine makes of a delta, in the words of `docs/ir.md`."""
    after: dict[str, Any] = json.loads(json.dumps(ir))
    delta = json.loads(json.dumps(delta))
    for member in ("routes", "clusters"):
        for name, value in delta[member].items():
            if value is None:
                del after[member][name]
            else:
                after[member][name] = value
    tables = after["route_tables"]
    for name, change in delta["route_tables"].items():
        if change is None:
            del tables[name]
            continue
        hosts = {one["hostname"]: one["rules"] for one in tables.get(name, {"hosts": []})["hosts"]}
        for one in change["hosts"]:
            if one.get("removed"):
                del hosts[one["hostname"]]
                continue
            gone = {*one.get("removed_rules", ()), *(rule["route"] for rule in one["rules"])}
            kept = [rule for rule in hosts.get(one["hostname"], ()) if rule["route"] not in gone]
            hosts[one["hostname"]] = kept + one["rules"]
        tables[name] = {"hosts": [{"hostname": k, "rules": v} for k, v in hosts.items()]}
    return after


def unordered(ir: dict[str, Any]) -> dict[str, Any]:
    """A representation without its listeners, in which the order of rules does not count."""
    found = {name: ir[name] for name in ("routes", "clusters")}
    found["route_tables"] = {
        name: {
            one["hostname"]: sorted(json.dumps(rule, sort_keys=True) for rule in one["rules"])
            for one in table["hosts"]
        }
        for name, table in ir["route_tables"].items()
    }
    return found


def start() -> list[dict[str, Any]]:
    """Something that works, to be changed."""
    web: dict[str, Any] = {"name": "http", "port": 80, "protocol": "HTTP"}
    https: dict[str, Any] = {"name": "tls", "port": 443, "protocol": "HTTPS"}
    https["tls"] = {"certificateRefs": [{"name": "cert"}]}
    way = {"name": "http", "port": 15088, "protocol": "istio.io/PROXY"}
    made: list[dict[str, Any]] = [
        _gateway("one", "kgateway", [web, https]),
        _gateway("two", "kgateway-waypoint", [way]),
        _object(
            GATEWAY_API,
            "ListenerSet",
            "one",
            {"parentRef": {"name": "one"}, "listeners": [{**web, "hostname": "a.x.test"}]},
        ),
        # One that only filters of routes refer to.
        _object(KGATEWAY_API, "TrafficPolicy", "one", {"timeouts": {"request": "3s"}}),
        _service("one", "a", {}, [{"name": "http", "port": 80}], 1),
        _service("two", "a", {"istio.io/use-waypoint": "two"}, [{"name": "http", "port": 80}], 2),
        _slice("one", "a", SERVICE_LABEL, "one", ["10.1.0.1"], "http"),
        json.loads(secret("cert", "a.x.test")),
    ]
    made[-1]["metadata"]["namespace"] = "a"
    made[0]["spec"]["allowedListeners"] = {"namespaces": {"from": "Same"}}
    made[0]["spec"]["defaultScope"] = "All"
    return made


def _gateway(name: str, gateway_class: str, own: list[dict[str, Any]]) -> dict[str, Any]:
    spec = {"gatewayClassName": gateway_class, "listeners": own}
    return _object(GATEWAY_API, "Gateway", name, spec)


def _object(version: str, kind: str, name: str, spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "a"}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


@pytest.mark.timeout(300)
@settings(max_examples=60, deadline=None)
@given(some(resources, most=12), st.lists(steps, min_size=4, max_size=12))
def test_whatever_changes_it_is_as_if_translated_from_scratch(
    more: list[dict[str, Any]], several: list[tuple[list[dict[str, Any]], list[int]]]
) -> None:
    check_changes(more, several)


handing_on = st.one_of(
    st.tuples(some(delegating_routes, 1, 3), st.just([])),
    st.tuples(some(st.one_of(http_routes, slices), 1, 1), st.just([])),
    st.tuples(st.just([]), some(st.integers(0, 20), 1, 1)),
    st.tuples(some(resources, most=2), some(st.integers(0, 20), most=1)),
)


@pytest.mark.timeout(300)
@settings(max_examples=60, deadline=None)
@given(
    some(st.one_of(delegating_routes, resources), most=8),
    st.lists(handing_on, min_size=4, max_size=10),
)
def test_the_same_of_routes_that_hand_on_requests(
    more: list[dict[str, Any]], several: list[tuple[list[dict[str, Any]], list[int]]]
) -> None:
    check_changes(more, several)


def check_changes(
    more: list[dict[str, Any]], several: list[tuple[list[dict[str, Any]], list[int]]]
) -> None:
    """Compares what comes of changes one by one with what comes of all at once.

    Args:
        more: objects that there are from the beginning.
        several: what is put there each time, and the places of what is taken away.
    """
    translator = Translator()
    live = {one.key: one for one in map(parsed, [*start(), *more])}
    before = translator.translate(live.values())
    kept: list[tuple[Translation, str]] = []
    for put, taken in several:
        for place in taken:
            if place < len(live):
                del live[list(live)[place]]
        for one in map(parsed, put):
            live.pop(one.key, None)
            live[one.key] = one
        after = translator.translate(live.values())
        scratch = translate(live.values())
        assert shown(after) == shown(scratch)
        changed = difference(before, after)
        assert unordered(applied(before.ir, changed)) == unordered(after.ir)
        kept.append((after, shown(scratch)))
        before = after
    # What is made later does not touch what was made before, even if nobody has looked at it yet.
    for first, text in kept:
        again = Translation(
            first.base,
            first.records,
            first.clusters,
            first.hosts,
            first.route_count,
            first.noted,
        )
        assert shown(again) == text
        if first.base is before.base:
            changed = difference(first, before)
            assert unordered(applied(first.ir, changed)) == unordered(before.ir)


ROUTE: dict[str, Any] = _object(
    GATEWAY_API,
    "HTTPRoute",
    "one",
    {"parentRefs": [{"name": "one"}], "rules": [{"backendRefs": [{"name": "one", "port": 80}]}]},
)


def with_spec(one: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {**one, "spec": {**one["spec"], **spec}}


@pytest.mark.parametrize(
    "change",
    [
        with_spec(ROUTE, hostnames=["y.test"]),
        with_spec(ROUTE, rules=[{"matches": [{"path": {"value": "/v1"}}]}]),
        with_spec(ROUTE, rules="none"),
        _object(GATEWAY_API, "HTTPRoute", "two", ROUTE["spec"]),
        _slice("one", "a", SERVICE_LABEL, "one", ["10.1.0.2", "10.1.0.3"], "http"),
        _slice("two", "a", SERVICE_LABEL, "one", ["10.1.0.2"], "http"),
        {**ROUTE, "apiVersion": "apps/v1", "kind": "Deployment"},
        _object(GATEWAY_API, "GRPCRoute", "one", {"parentRefs": [{"name": "none"}], "rules": [{}]}),
    ],
    ids=[
        "hostnames",
        "rules",
        "refused",
        "another",
        "endpoints",
        "another slice",
        "unknown",
        "another kind elsewhere",
    ],
)
def test_what_nothing_else_sees_is_done_alone(change: dict[str, Any]) -> None:
    translator = Translator()
    live = {one.key: one for one in map(parsed, [*start(), ROUTE])}
    before = translator.translate(live.values())
    (resource,) = [parsed(change)]
    after = translator.translate((live | {resource.key: resource}).values())
    assert after.base is before.base
    back = translator.translate(live.values())
    assert back.base is before.base
    assert shown(back) == shown(before)
    assert difference(before, back) == {"routes": {}, "clusters": {}, "route_tables": {}}


#: Of another namespace, Gateway and Service than `ROUTE`.
ELSEWHERE: list[dict[str, Any]] = [
    {**one, "metadata": {**one["metadata"], "namespace": "b"}}
    for one in (
        _gateway("three", "kgateway", [{"name": "http", "port": 90, "protocol": "HTTP"}]),
        _service("one", "b", {}, [{"name": "http", "port": 80}], 4),
        with_spec(ROUTE, parentRefs=[{"name": "three"}]),
    )
]


@pytest.mark.parametrize(
    "change",
    [
        _service("one", "a", {}, [{"name": "http", "port": 81}], 3),
        _object(
            KGATEWAY_API,
            "TrafficPolicy",
            "two",
            {
                "targetRefs": [{"group": GATEWAY_API[:-3], "kind": "HTTPRoute", "name": "one"}],
                "timeouts": {"request": "3s"},
            },
        ),
        _object(
            "gateway.networking.k8s.io/v1",
            "BackendTLSPolicy",
            "two",
            {
                "targetRefs": [{"group": "", "kind": "Service", "name": "one"}],
                "validation": {"hostname": "y.test", "wellKnownCACertificates": "System"},
            },
        ),
        _gateway("one", "kgateway", [{"name": "other", "port": 80, "protocol": "HTTP"}]),
        with_spec(ROUTE, parentRefs=[{"name": "two"}]),
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "labels": {"a": "b"}}},
        _object(GATEWAY_API, "GRPCRoute", "one", {"parentRefs": [{"name": "one"}], "rules": [{}]}),
    ],
    ids=[
        "its service",
        "its policy",
        "its upstream",
        "its gateway",
        "its first",
        "its namespace",
        "its rival",
    ],
)
def test_what_others_see_makes_only_those_anew_that_look(change: dict[str, Any]) -> None:
    translator = Translator()
    live = {one.key: one for one in map(parsed, [*start(), *ELSEWHERE, ROUTE])}
    before = translator.translate(live.values())
    resource = parsed(change)
    after = translator.translate((live | {resource.key: resource}).values())
    assert after.base is not before.base
    here, there = (ResourceKey(GATEWAY_API[:-3], "HTTPRoute", one, "one") for one in "ab")
    assert after.records[here] is not before.records[here]
    assert after.records[there] is before.records[there]
    assert set(after.renewed(before)) == {here, *({resource.key} & after.records.keys())}


@pytest.mark.parametrize(
    "change",
    [
        _service("three", "a", {"istio.io/use-waypoint": "two"}, [{"name": "x", "port": 80}], 3),
        _object(KGATEWAY_API, "TrafficPolicy", "two", {"timeouts": {"request": "3s"}}),
        json.loads(secret("cert", "b.x.test")),
    ],
    ids=["another service", "another policy", "a certificate"],
)
def test_what_no_route_looks_at_makes_none_anew(change: dict[str, Any]) -> None:
    translator = Translator()
    live = {one.key: one for one in map(parsed, [*start(), *ELSEWHERE, ROUTE])}
    before = translator.translate(live.values())
    change["metadata"]["namespace"] = "a"
    resource = parsed(change)
    after = translator.translate((live | {resource.key: resource}).values())
    assert after.base is not before.base
    assert after.records == before.records
    assert set(after.renewed(before)) == set()


def _referring(name: str) -> dict[str, Any]:
    """A route with a filter that refers to the policy `one`."""
    ref = {"group": KGATEWAY_API.partition("/")[0], "kind": "TrafficPolicy", "name": "one"}
    rule = {"filters": [{"type": "ExtensionRef", "extensionRef": ref}]}
    return _object(GATEWAY_API, "HTTPRoute", name, {"parentRefs": [], "rules": [rule]})


@pytest.mark.parametrize("names", [("one", "two"), ("two", "one")])
def test_a_policy_has_the_routes_that_refer_to_it_in_their_order(names: tuple[str, str]) -> None:
    translator = Translator()
    live = {one.key: one for one in map(parsed, start())}
    translator.translate(live.values())
    for name in names:
        route = parsed(_referring(name))
        live[route.key] = route
        after = translator.translate(live.values())
        assert shown(after) == shown(translate(live.values()))
