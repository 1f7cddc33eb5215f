"""The resources of one configuration, by what they are looked up by."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from kgw.api import (
    EndpointSlice,
    Gateway,
    HTTPListenerPolicy,
    HTTPRoute,
    Namespace,
    Opaque,
    Resource,
    ResourceKey,
    Service,
    TrafficPolicy,
    loaded,
    remains,
)
from kgw.api.kinds import KGATEWAY_GROUP, MULTICLUSTER_GROUP
from kgw.attach.options import PolicyOptions
from kgw.diagnostics import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any, TypeAlias

    from kgw.api import (
        Backend,
        GRPCRoute,
        ListenerPolicy,
        ReferenceGrant,
        ServiceImport,
        TCPRoute,
        TLSRoute,
        UDPRoute,
    )
    from kgw.source.memory import FieldPath

    #: A route of requests.
    RequestRoute: TypeAlias = HTTPRoute | GRPCRoute

    #: A Service of the cluster, or one of a set of clusters.
    MeshService: TypeAlias = Service | ServiceImport

    #: What requests go to: one of these, or hosts that are listed.
    AnyService: TypeAlias = MeshService | Backend

R = TypeVar("R", bound=Resource)

#: Kinds that are looked at without a model: group and kind.
GATEWAY_PARAMETERS: Final = (KGATEWAY_GROUP, "GatewayParameters")
CRD: Final = ("apiextensions.k8s.io", "CustomResourceDefinition")

#: A namespace and a name.
Named = tuple[str, str]

_OPTIONS: Final = PolicyOptions()

#: Group and kind of the Services of the mesh.
SERVICE_KINDS: Final = (("", "Service"), (MULTICLUSTER_GROUP, "ServiceImport"))

#: Group and kind of what requests go to.
BACKEND_KINDS: Final = (*SERVICE_KINDS, (KGATEWAY_GROUP, "Backend"))

#: The kinds of routes of requests.
REQUEST_KINDS: Final = ("GRPCRoute", "HTTPRoute")


class Index:
    """Look-ups over a set of resources, and the findings about them."""

    def __init__(self, resources: Iterable[Resource], options: PolicyOptions = _OPTIONS) -> None:
        self.options = options
        self._kinds: dict[type[Resource], dict[Named, Resource]] = {}
        self._slices: dict[ResourceKey, list[EndpointSlice]] = {}
        self._grants: dict[str, list[ReferenceGrant]] = {}
        #: Objects of a known kind that are not valid; they count where ignoring them is unsafe.
        self.refused: dict[ResourceKey, Opaque] = {}
        #: Objects of kinds without a model that something looks at all the same.
        self._consulted: dict[ResourceKey, Opaque] = {}
        self.findings: list[Finding] = []
        for resource in sorted(resources, key=lambda one: one.key):
            self._add(resource)
        self._look_up()

    def renewed(
        self, changes: Mapping[ResourceKey, tuple[Resource | None, Resource | None]]
    ) -> Index:
        """The index of resources that differ in some: of each key the one before and after.

        This one stays as it is. What does not change is shared.
        """
        new = Index((), self.options)
        new._kinds = {kind: dict(every) for kind, every in self._kinds.items()}
        new._slices, new._grants = dict(self._slices), dict(self._grants)
        new.refused = dict(self.refused)
        new._consulted = dict(self._consulted)
        for before, after in changes.values():
            if before is not None:
                new._remove(before)
            if after is not None:
                new._add(after)
        for kind in {type(one) for change in changes.values() for one in change}:
            if kind in new._kinds:
                new._kinds[kind] = dict(sorted(new._kinds[kind].items()))
        new.refused = dict(sorted(new.refused.items()))
        new._look_up()
        return new

    def _add(self, resource: Resource) -> None:
        if isinstance(resource, Opaque):
            if resource.refused:
                self.refused[resource.key] = resource
            elif is_consulted(resource.key):
                self._consulted[resource.key] = resource
            return
        named = (resource.namespace, resource.name)
        self._kinds.setdefault(type(resource), {})[named] = resource
        if isinstance(resource, EndpointSlice):
            for owner in resource.owners:
                others = _without(self._slices.get(owner, ()), resource)
                self._slices[owner] = [*others, resource]
        elif isinstance(resource, loaded.ReferenceGrant):
            self._grants[named[0]] = [*self._grants.get(named[0], ()), resource]

    def _remove(self, resource: Resource) -> None:
        if isinstance(resource, Opaque):
            self.refused.pop(resource.key, None)
            self._consulted.pop(resource.key, None)
            return
        named = (resource.namespace, resource.name)
        self._kinds.get(type(resource), {}).pop(named, None)
        if isinstance(resource, EndpointSlice):
            for owner in resource.owners:
                self._slices[owner] = _without(self._slices.get(owner, ()), resource)
        elif isinstance(resource, loaded.ReferenceGrant):
            self._grants[named[0]] = _without(self._grants.get(named[0], ()), resource)

    def _look_up(self) -> None:
        """Finds everything that is looked up by more than its kind and name."""
        self.gateways: dict[Named, Gateway] = self._of(Gateway)
        self.listener_sets: dict[Named, loaded.ListenerSet] = self._of(loaded.ListenerSet)
        self.classes: dict[str, loaded.GatewayClass] = {
            name: one for (_, name), one in self._of(loaded.GatewayClass).items()
        }
        self.meshes: dict[Named, loaded.XMesh] = self._of(loaded.XMesh)
        self.namespaces: dict[str, Namespace] = {
            name: one for (_, name), one in self._of(Namespace).items()
        }
        self.services: dict[Named, Service] = self._of(Service)
        self.imports: dict[Named, loaded.ServiceImport] = self._of(loaded.ServiceImport)
        self.backends: dict[Named, loaded.Backend] = self._of(loaded.Backend)
        self.secrets: dict[Named, loaded.Secret] = self._of(loaded.Secret)
        self.config_maps: dict[Named, loaded.ConfigMap] = self._of(loaded.ConfigMap)
        self.refused_gateways: list[Opaque] = [
            one for one in self.refused.values() if _is_gateway(one.key)
        ]
        #: The routes of requests by kind, with what can be read of refused ones.
        self.routes: dict[str, dict[Named, RequestRoute]] = {
            "GRPCRoute": self._routes(loaded.GRPCRoute, "GRPCRoute"),
            "HTTPRoute": self._routes(HTTPRoute, "HTTPRoute"),
        }
        self.backend_config_policies: dict[Named, loaded.BackendConfigPolicy] = self._of(
            loaded.BackendConfigPolicy
        )
        self.backend_tls_policies: dict[Named, loaded.BackendTLSPolicy] = self._of(
            loaded.BackendTLSPolicy
        )
        self.external_backends: dict[Named, loaded.XBackend] = self._of(loaded.XBackend)
        self.backend_traffic_policies: dict[Named, loaded.XBackendTrafficPolicy] = self._of(
            loaded.XBackendTrafficPolicy
        )
        self.stream_routes: list[TCPRoute | TLSRoute | UDPRoute] = self._stream_routes()
        self.direct_responses: dict[Named, loaded.DirectResponse] = self._of(loaded.DirectResponse)
        self.extensions: dict[Named, loaded.GatewayExtension] = self._of(loaded.GatewayExtension)
        self.traffic_policies: dict[Named, TrafficPolicy] = self._of(TrafficPolicy)
        self.listener_policies: list[HTTPListenerPolicy | ListenerPolicy] = [
            *self._of(HTTPListenerPolicy).values(),
            *self._of(loaded.ListenerPolicy).values(),
        ]

    def _of(self, model: type[R]) -> dict[Named, R]:
        return self._kinds.get(model, {})  # type: ignore[return-value]  # keyed by the type itself

    def _routes(self, model: type[RequestRoute], kind: str) -> dict[Named, RequestRoute]:
        """The routes of a kind, with what can be read of refused ones."""
        found: dict[Named, RequestRoute] = dict(self._of(model))
        for key, one in self.refused.items():
            if (key.group, key.kind) == (HTTPRoute.group, kind):
                found[key.namespace, key.name] = remains.route(one)
        return dict(sorted(found.items()))

    def _stream_routes(self) -> list[TCPRoute | TLSRoute | UDPRoute]:
        """The routes of connections and datagrams by age, with what is readable of refused ones."""
        found: list[TCPRoute | TLSRoute | UDPRoute] = [
            *self._of(loaded.TCPRoute).values(),
            *self._of(loaded.TLSRoute).values(),
            *self._of(loaded.UDPRoute).values(),
        ]
        found += [
            remains.stream_route(one)
            for key, one in self.refused.items()
            if key.group == Gateway.group and key.kind in ("TCPRoute", "TLSRoute", "UDPRoute")
        ]
        return sorted(found, key=lambda one: (one.age(), one.kind))

    # === Changes ===

    def put_route(self, key: ResourceKey, resource: Resource | None) -> RequestRoute | None:
        """Puts a route of requests, or one that was refused, in the place of what has its key.

        Returns what is looked up from now on, if anything.
        """
        named = (key.namespace, key.name)
        routes = self.routes[key.kind]
        before = routes.pop(named, None)
        self.refused.pop(key, None)
        if before is not None:
            self._kinds.get(type(before), {}).pop(named, None)
        if resource is not None:
            self._add(resource)
        if isinstance(resource, Opaque):
            routes[named] = remains.route(resource)
        elif isinstance(resource, (HTTPRoute, loaded.GRPCRoute)):
            routes[named] = resource
        return routes.get(named)

    def put_slice(
        self, before: EndpointSlice | None, after: EndpointSlice | None
    ) -> set[ResourceKey]:
        """Puts an EndpointSlice in the place of another; returns the Services they are about."""
        services: set[ResourceKey] = set()
        for one, change in ((before, self._remove), (after, self._add)):
            if one is not None:
                change(one)
                services.update(one.owners)
        return services

    # === Look-ups ===

    def refusal(self, key: ResourceKey) -> str | None:
        """Why an object is not valid, if it was refused."""
        refused = self.refused.get(key)
        if refused is None:
            return None
        return "; ".join(f"{one.field}: {one.message}" for one in refused.defects)

    def absence(self, kind: str, named: Named) -> str:
        """Why there is no Gateway or HTTPRoute of a name: nobody made it, or it is not valid."""
        refused = self.refused.get(ResourceKey(Gateway.group, kind, *named))
        if refused is None:
            return f"{kind} {'/'.join(named)} not found"
        codes = self.refusal_codes(Gateway.group, kind, named)
        return f"{kind} {'/'.join(named)} is not valid ({codes})"

    def refusal_codes(self, group: str, kind: str, named: Named) -> str | None:
        """The codes of what is wrong with an object that is not valid, if there is one."""
        refused = self.refused.get(ResourceKey(group, kind, *named))
        if refused is None:
            return None
        return ", ".join(dict.fromkeys(one.code for one in refused.defects))

    def is_refused(self, kind: str, named: tuple[str, ...]) -> bool:
        """Whether there is a Gateway or route of a name, but it is not valid."""
        return (Gateway.group, kind, *named) in self.refused

    def consulted(self, kind: tuple[str, str]) -> dict[Named, Opaque]:
        """The objects of a kind, as group and kind, that is `is_consulted`."""
        return {
            (key.namespace, key.name): one
            for key, one in self._consulted.items()
            if (key.group, key.kind) == kind
        }

    def service(self, key: ResourceKey) -> MeshService | None:
        """A Service or ServiceImport by its key."""
        named = (key.namespace, key.name)
        return self.services.get(named) if key.kind == "Service" else self.imports.get(named)

    def destination(self, key: ResourceKey) -> AnyService | None:
        """A Service, ServiceImport or Backend by its key."""
        return self._services(key.kind).get((key.namespace, key.name))

    def route(self, key: ResourceKey) -> RequestRoute | None:
        """A route of requests by its key."""
        return self.routes[key.kind].get((key.namespace, key.name))

    def named(self, kind: str) -> Iterable[Named]:
        """The names of all Services, of all ServiceImports or of all Backends."""
        return self._services(kind)

    def _services(self, kind: str) -> Mapping[Named, AnyService]:
        match kind:
            case "Service":
                return self.services
            case "ServiceImport":
                return self.imports
            case _:
                return self.backends

    def slices(self, service: AnyService) -> list[EndpointSlice]:
        """The EndpointSlices of a Service."""
        return self._slices.get(service.key, [])

    def namespace_labels(self, name: str) -> dict[str, str]:
        """The labels of a namespace, with the one that Kubernetes sets."""
        namespace = self.namespaces.get(name)
        labels = namespace.metadata.labels if namespace else {}
        return {"kubernetes.io/metadata.name": name, **labels}

    def granted(self, referrer: tuple[str, str, str], target: tuple[str, str, str, str]) -> bool:
        """Whether a ReferenceGrant permits a reference into another namespace, or none has to.

        Args:
            referrer: group, kind and namespace.
            target: group, kind, namespace and name.
        """
        if self.options.reference_grants == "OFF":
            return True
        group, kind, namespace, name = target
        return any(
            any((one.group, one.kind, one.namespace) == referrer for one in grant.spec.from_)
            and any(
                (one.group, one.kind) == (group, kind) and one.name in (None, name)
                for one in grant.spec.to
            )
            for grant in self._grants.get(namespace, ())
        )

    # === Findings ===

    @contextmanager
    def reporting_to(self, findings: list[Finding]) -> Iterator[None]:
        """Records what is reported meanwhile in a list of the caller's."""
        before, self.findings = self.findings, findings
        try:
            yield
        finally:
            self.findings = before

    def report(
        self,
        resource: Resource,
        code: str,
        severity: Severity,
        message: str,
        path: FieldPath = (),
        **more: Any,
    ) -> Finding:
        """Records a finding about a resource."""
        finding = Finding(
            code, severity, message, str(resource.key), path, source=resource.origin, **more
        )
        self.findings.append(finding)
        return finding


def _without(several: Iterable[R], one: R) -> list[R]:
    return [other for other in several if other is not one]


def is_consulted(key: ResourceKey) -> bool:
    """Whether an object is of a kind that kgw has no model of, and yet looks at."""
    return (key.group, key.kind) in (GATEWAY_PARAMETERS, CRD)


def _is_gateway(key: ResourceKey) -> bool:
    """Whether a key is of a Gateway, its class or its ListenerSets: a refused one has a status."""
    kinds = ("Gateway", "GatewayClass", "ListenerSet")
    return key.group == Gateway.group and key.kind in kinds
