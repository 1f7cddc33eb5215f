"""Which routes look at which objects: the way back from what has changed to what depends on it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from kgw.attach.parents import asks_for_default
from kgw.attach.routes import filter_refs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kgw.api import ResourceKey
    from kgw.api.gateway.backend_object import BackendObjectReference
    from kgw.attach.frontends import ServiceAddress
    from kgw.attach.routes import RouteState

#: What is looked at: a kind, a namespace and a name.
Key = tuple[str, str, str]

GRANTS: Final = "ReferenceGrant"
"""The kind of a key that stands for all grants of a namespace."""

UNRESOLVED: Final[Key] = ("", "", "")
"""What routes look at that miss something: what appears or goes may be what they mean."""


class Readers:
    """What each route looks at, and who looks at each thing."""

    def __init__(self) -> None:
        self._reads: dict[ResourceKey, frozenset[Key]] = {}
        self._readers: dict[Key, set[ResourceKey]] = defaultdict(set)

    def put(self, route: ResourceKey, state: RouteState | None) -> None:
        """Notes what a route looks at, in place of what the one of that name did."""
        before = self._reads.pop(route, frozenset())
        after = frozenset() if state is None else frozenset(_reads(state))
        if state is not None:
            self._reads[route] = after
        for key in before - after:
            readers = self._readers[key]
            readers.discard(route)
            if not readers:
                del self._readers[key]
        for key in after - before:
            self._readers[key].add(route)

    def of(self, keys: Iterable[Key]) -> set[ResourceKey]:
        """The routes that look at any of these."""
        found: set[ResourceKey] = set()
        for key in keys:
            found |= self._readers.get(key, set())
        return found

    def of_kind(self, kind: str) -> set[ResourceKey]:
        """The routes that look at any object of a kind."""
        return self.of([one for one in self._readers if one[0] == kind])


def key(of: ResourceKey) -> Key:
    """What those look at who depend on an object."""
    match of.kind:
        case "ReferenceGrant":
            return (GRANTS, of.namespace, "")
        case "Namespace":
            return ("Namespace", "", of.name)
        case _:
            return (of.kind, of.namespace, of.name)


def listener(ident: str) -> Key:
    """What the routes look at that are attached to a listener."""
    return ("listener", "", ident)


def port(address: ServiceAddress) -> Key:
    """What the routes look at that are attached to a Service's port."""
    return ("port", "", address.name)


def _reads(state: RouteState) -> Iterator[Key]:
    route = state.route
    own = route.namespace
    yield ("Namespace", "", own)
    if asks_for_default(route):
        yield UNRESOLVED  # any Gateway may become one
    for one in state.parents:
        yield (one.ref.kind, one.ref.namespace or own, one.ref.name)
        if not one.accepted.ok:
            yield UNRESOLVED
        if one.gateway is not None:
            yield ("Gateway", *one.gateway.named)
        for attached, _ in one.listeners:
            yield listener(attached.id)
    for address in state.ports:
        yield port(address)
    if state.refusal is not None or any(one.problem is not None for one in state.all_backends):
        yield UNRESOLVED
    for ref in _references(state):
        namespace = ref.namespace or own
        yield (ref.kind, namespace, ref.name)
        if namespace != own:
            yield (GRANTS, namespace, "")
    for rule in state.rules:
        for given in rule.filters:
            if given.extension_ref is not None:
                yield (given.extension_ref.kind, own, given.extension_ref.name)


def _references(state: RouteState) -> Iterator[BackendObjectReference]:
    """The references to backends, those of filters as well."""
    for rule in state.rules:
        for filter_ in rule.filters:
            for _, asked in filter_refs(filter_):
                yield asked
        for ref in rule.backend_refs:
            yield ref
            for filter_ in ref.filters:
                for _, asked in filter_refs(filter_):
                    yield asked
