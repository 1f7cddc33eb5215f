"""What was configured for a request, field by field, and where each field was written.

A field is a leaf of a manifest: a rule's, a policy's, an annotation of a Gateway. Of several
policies that set the same field one counts, and of the others it is told why they do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kgw.api import Opaque, ResourceKey
from kgw.api.kinds import GATEWAY_GROUP
from kgw.attach.effects import settings_fields, written
from kgw.attach.index import REQUEST_KINDS
from kgw.attach.policies import Place, Via
from kgw.explaining.candidates import object_of, objects
from kgw.translate import delegated
from kgw.translate import settings as listener_settings
from kgw.translate.retries import DEFAULT_TIMEOUT_MS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgw.api import Resource
    from kgw.attach.effective import Effective
    from kgw.attach.gateways import GatewayState
    from kgw.attach.routes import RouteState
    from kgw.config import Config
    from kgw.explaining.candidates import Candidate
    from kgw.explaining.taking import Taking
    from kgw.source.memory import FieldPath
    from kgw.translate.records import RouteRecord

__all__ = ["Setting", "faults", "place_of", "settings", "sharing"]

_TARGETS: Final = frozenset({"targetRefs", "targetSelectors"})

#: What a rule is found by, and where its requests go: shown elsewhere.
_APART: Final = frozenset({"matches", "name"})


@dataclass(frozen=True, slots=True)
class Setting:
    """A field, and where it was written."""

    scope: str
    """What it is about: ``rule``, ``request``, ``listener``, or ``backend`` and the Service."""
    field: str
    """The field, as ``rateLimit.local.tokenBucket.maxTokens``."""
    value: Any
    """Its value, as JSON data."""
    source: str
    """``Kind namespace/name`` of the object that says so, or who else does."""
    place: str | None
    """``file:line:column``, if the object was read from a file."""
    unused: str | None = None
    """Why it does not count, if so."""

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as JSON data."""
        return {
            "scope": self.scope,
            "field": self.field,
            "value": self.value,
            "source": self.source,
            "place": self.place,
            "unused": self.unused,
        }


def settings(config: Config, taking: Taking, chosen: Candidate | None) -> tuple[Setting, ...]:
    """Returns what was configured for the requests of a route on a listener."""
    if taking.gateway is None:
        return ()
    found: list[Setting] = []
    if chosen is not None:
        found += _rule(config, chosen)
        found += _traffic(config, taking, chosen)
    found += _listener(config, taking.gateway, taking.section)
    if chosen is not None:
        found += _backends(config, chosen)
    return tuple(found)


# === Fields ===


def _leaves(value: Any, path: FieldPath = ()) -> Iterator[tuple[FieldPath, Any]]:
    """The leaves of JSON data; a list of scalars is one."""
    if isinstance(value, dict) and value:
        for key, one in value.items():
            yield from _leaves(one, (*path, key))
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        for number, one in enumerate(value):
            yield from _leaves(one, (*path, number))
    else:
        yield path, value


def _data(value: Any) -> Any:
    """A part of a model as it was given, as JSON data."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if isinstance(value, tuple | list):
        return [_data(one) for one in value]
    if hasattr(value, "as_written"):
        return value.as_written()
    return value


def _named(path: FieldPath) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _setting(
    scope: str,
    owner: Resource,
    base: FieldPath,
    path: FieldPath,
    value: Any,
    unused: str | None = None,
) -> Setting:
    place = None if owner.origin is None else owner.origin.describe((*base, *path))
    return Setting(scope, _named(path), value, str(owner.key), place, unused)


def _set_by(winner: str, own: str) -> str | None:
    """Why a field of a policy does not count, given the policy whose field does."""
    return None if winner == own else f"{winner} sets it"


# === Routes ===


def _rule(config: Config, chosen: Candidate) -> Iterator[Setting]:
    """What the rule itself says, other than what it matches."""
    resource = objects(config).get(object_of(chosen.route))
    if resource is None:
        return
    number = chosen.rule["rank"]["rule"]
    rules = _spec(resource).get("rules") or [{}]
    rule = rules[number] if number < len(rules) else {}
    base: FieldPath = ("spec", "rules", number)
    for path, value in _leaves({key: one for key, one in rule.items() if key not in _APART}):
        if path:
            yield _setting("rule", resource, base, path, value)


def _spec(resource: Resource) -> dict[str, Any]:
    spec = resource.spec if isinstance(resource, Opaque) else _data(getattr(resource, "spec", {}))
    return spec if isinstance(spec, dict) else {}


def _traffic(config: Config, taking: Taking, chosen: Candidate) -> Iterator[Setting]:
    """What the policies for requests say, the most specific first."""
    assert taking.gateway is not None
    policies = config.translation.base.attachment.policies
    place = place_of(config, taking.gateway, taking.section or "", chosen.route)
    winners = _winners(policies.valid(place))
    timed = _has_timeout(config, chosen)
    for state in policies.traffic(place):
        own = str(state.policy.key)
        broken = f"the policy is not valid: {state.accepted.message}" if state.errors else None
        fields = {key: one for key, one in _spec(state.policy).items() if key not in _TARGETS}
        for path, value in _leaves(fields):
            if not path:
                continue
            name = _named(path)
            tried = state.is_in_shadow(str(path[0]))
            holders = (
                by
                for (field, of_tried), by in winners.items()
                if of_tried is tried and f"{name}.".startswith(f"{field}.")
            )
            by = next(holders, [own])
            unused = broken or (None if own in by else f"{by[0]} sets it")
            if unused is None and tried:
                unused = "it is tried out only: what it refuses is counted"
            if unused is None and timed and name == "timeouts.request":
                unused = "the rule says itself how long its requests may take"
            yield _setting("request", state.policy, ("spec",), path, value, unused)
    forwards = config.ir["routes"][chosen.route]["action"]["type"] == "forward"
    calls = chosen.route.startswith("grpcroute/")  # which may take any time
    effective = policies.effective(place)
    timeouts = None if isinstance(effective, str) else effective.value("timeouts")
    timed = timed or (timeouts is not None and timeouts.request is not None)
    if forwards and not calls and not timed:
        text = f"{DEFAULT_TIMEOUT_MS // 1000}s"
        yield Setting("request", "timeouts.request", text, "default, as kgateway's", None)


def _winners(effective: Effective) -> dict[tuple[str, bool], list[str]]:
    """Whose fields count, by their names as written and whether they are tried out only."""
    return {
        (written(name), tried): [str(one.policy.key) for one in several]
        for fields, tried in ((effective.fields, False), (effective.shadow, True))
        for name, several in fields.items()
    }


def _has_timeout(config: Config, chosen: Candidate) -> bool:
    """Whether a rule says itself how long its requests may take."""
    state = _state(config, chosen.route)
    number = chosen.rule["rank"]["rule"]
    if state is None or number >= len(state.rules):
        return False
    timeouts = state.rules[number].timeouts
    return timeouts.request is not None or bool(timeouts.backend_request)


def _state(config: Config, route: str) -> RouteState | None:
    """The state of the route object that a route of the IR is of."""
    record = _record(config, route)
    return None if record is None else record.state


def _record(config: Config, route: str) -> RouteRecord | None:
    """The record of the object that a route of the IR is of, by the route's id."""
    word, *named = delegated.plain(route).split("/")
    kind = next((one for one in REQUEST_KINDS if one.lower() == word), None)
    if kind is None or len(named) != 4:
        return None
    return config.translation.records.get(ResourceKey(GATEWAY_GROUP, kind, named[0], named[1]))


def place_of(config: Config, gateway: GatewayState, section: str, route: str) -> Place:
    """Where a route of the IR is served, which is what policies are attached to.

    Args:
        config: the configuration.
        gateway: the Gateway.
        section: the listener, or one that shares its port.
        route: the route's id, with or without the table behind ``@``.
    """
    ident = route.partition("@")[0]
    record = _record(config, ident)
    if record is None:
        return Place(gateway.named, section)
    resource = record.state.route
    label = delegated.plain(route).split("/")[3]
    own = _via(config, record.state, label)
    via = []
    for key, of in delegated.steps(route):
        record = config.translation.records[key]  # of the route that is attached, in the end
        via.append(_via(config, record.state, of))
    # Listeners that share a port are one for the engine; the route is attached to one of them.
    sharers = sharing(gateway, section)
    prefix = "/".join(gateway.named)
    attached = [
        part.listener.removeprefix(f"{prefix}/")
        for part in record.parts
        if part.listener.startswith(f"{prefix}/")
        and any(one["route"].partition("@")[0] == ident for one in part.rules)
    ]
    on_port = next((one for one in attached if one in sharers), section)
    listener = section if section in attached else on_port
    return Place(
        gateway.named,
        listener,
        resource.key,
        own.rule,
        own.referred,
        tuple(via),
    )


def _via(config: Config, state: RouteState, label: str) -> Via:
    """A rule of a route by its name or place, and the policies that its filters refer to."""
    rules = enumerate(state.rules)
    rule = next((one for number, one in rules if label in (one.name, str(number))), None)
    referred = []
    for one in rule.filters if rule is not None else ():
        if one.extension_ref is not None:
            found = config.translation.base.attachment.policies.named(
                one.extension_ref.name, state.route.key
            )
            referred += [found] if found is not None else []
    return Via(state.route.key, rule.name if rule is not None else None, tuple(referred))


def sharing(gateway: GatewayState, section: str) -> list[str]:
    """The listeners of a Gateway that share the port of one of them."""
    ports = {one.section: one.spec.port for one in gateway.listeners}
    return [name for name, port in ports.items() if port == ports.get(section)]


def faults(config: Config, chosen: Candidate) -> tuple[str, ...]:
    """Returns why the rule of a route answers with an error, or a part of its backends does."""
    state = _state(config, chosen.route)
    if state is None:
        return ()
    number = chosen.rule["rank"]["rule"]
    found = [] if state.refusal is None else [state.refusal]
    found += [why for rule, what, why in state.faults if rule == number and what == "Replaced"]
    found += [why for rule, why in state.replaced if rule == number]
    mesh = chosen.route.partition("@")[2].startswith("service/")
    backends = list(state.backends[number]) if number < len(state.backends) else []
    in_rule = ("spec", "rules", number)
    backends += [one for path, one in state.filter_backends.items() if path[:3] == in_rule]
    failures = [one.failure(mesh) for one in backends]
    found += [one.message for one in failures if one is not None]
    return tuple(dict.fromkeys(found))


# === Listeners ===


def _listener(config: Config, gateway: GatewayState, section: str | None) -> Iterator[Setting]:
    """What policies and annotations say about the listeners of a port."""
    own = [one for one in gateway.listeners if one.section == section] or gateway.listeners[:1]
    if not own:
        return
    port = own[0].spec.port
    names = sharing(gateway, own[0].section)
    policies = config.translation.base.attachment.policies
    winners: dict[str, str] = {}
    so_far: dict[str, Any] = {"http": {}}
    for state in policies.listener_settings(gateway.named, names):
        key = str(state.policy.key)
        for name, (value, path) in settings_fields(state, port).items():
            unused = _set_by(winners.setdefault(name, key), key)
            if unused is None and name in listener_settings.POLICY:
                if listener_settings.displaced(name, so_far["http"]):
                    unused = "it contradicts a setting of a policy with precedence"
                else:
                    field, convert = listener_settings.POLICY[name]
                    listener_settings.put(so_far, field, convert(value))
            base = path[:1] if path[:1] == ("spec",) else ()
            for rest, leaf in _leaves(_data(value)):
                whole = (*path[len(base) :], *rest)
                yield _setting("listener", state.policy, base, whole, leaf, unused)
    for name, one in gateway.options(names).items():
        where = ("metadata", "annotations", one.annotation)
        origin = gateway.gateway.origin
        yield Setting(
            "listener",
            name,
            gateway.gateway.metadata.annotations[one.annotation],
            str(gateway.gateway.key),
            None if origin is None else origin.describe(where),
        )


# === Backends ===


def _backends(config: Config, chosen: Candidate) -> Iterator[Setting]:
    """What policies say about the connections to the backends of a rule."""
    route = _state(config, chosen.route)
    number = chosen.rule["rank"]["rule"]
    if route is None or number >= len(route.backends):
        return
    upstreams = config.translation.base.attachment.upstreams
    seen: set[tuple[str, str, int]] = set()
    for one in route.backends[number]:
        service, port = one.service, one.port
        if service is None or port is None or (key := (*service.key[2:], port.port)) in seen:
            continue
        seen.add(key)
        scope = f"backend {service.namespace}/{service.name}:{port.port}"
        tls = upstreams.tls.of(service, port)
        winners: dict[str, str] = {}
        if tls is not None:
            winners["tls"] = str(tls.policy.key)
            broken = None if tls.accepted.ok else tls.accepted.message
            yield from _policy(scope, tls.policy, {}, broken)
        for state in upstreams.config.by_service.get(service.key, ()):
            broken = state.accepted.message if state.errors else None
            yield from _policy(scope, state.policy, winners, broken)
        traffic = upstreams.traffic.slots.get(service.key)
        if traffic is not None:
            source = route.rules[number] if number < len(route.rules) else None
            own = None if source is None else source.session_persistence
            # The rule's own sessions go before a policy's.
            held = {} if own is None else {"sessionPersistence": str(route.route.key)}
            yield from _policy(scope, traffic.policy, held, None)


def _policy(
    scope: str, policy: Resource, winners: dict[str, str], broken: str | None
) -> Iterator[Setting]:
    """The fields of a policy about backends.

    Args:
        scope: the backend.
        policy: the policy.
        winners: who has set each field before; this policy's are added.
        broken: why the policy is not valid, if so.
    """
    key = str(policy.key)
    for name, part in _spec(policy).items():
        if name in _TARGETS:
            continue
        invalid = f"the policy is not valid: {broken}" if broken is not None else None
        unused = invalid or _set_by(winners.setdefault(name, key), key)
        for rest, leaf in _leaves(part):
            yield _setting(scope, policy, ("spec",), (name, *rest), leaf, unused)
