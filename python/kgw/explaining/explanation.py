"""What becomes of a request, and why: the whole of it."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from kgw.api import Secret
from kgw.explaining import trial
from kgw.explaining.candidates import Candidate, Unattached, candidates, hosts_of, unattached
from kgw.explaining.origins import Setting, faults, settings
from kgw.explaining.question import Question
from kgw.explaining.taking import Considered, take

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from kgw.config import Config
    from kgw.explaining.taking import Taking
    from kgw.explaining.trial import Received, Trial

__all__ = ["Answer", "Branch", "Explanation", "Sent", "explain"]

#: Fields of an answer that a fake backend causes, or that differ from one run to the next.
_OF_THE_TRIAL: Final = frozenset({"connection", "content-length", "date"})

_RANDOM: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

RANDOM: Final = "<random>"
"""Stands for a value that is another for each request."""

SECRET: Final = "<secret>"
"""Stands for what is in a Secret."""

#: The characters that what is not shown has at least, as a whole and as a part of a text.
_SHORTEST: Final = 4
_LONG: Final = 8

#: What the access log says of an answer that is there because of a fault in the configuration.
_OF_FAULTS: Final = frozenset({"cluster_not_found", "direct_response"})

#: Why the proxy itself answered, in words, by what the access log says.
_REASONS: Final[Mapping[str, str]] = {
    "direct_response": "the route is a fixed answer",
    "no_healthy_upstream": "the backend has no endpoint that is ready",
    "request_rate_limited": "a rate limit refuses it",
    "route_not_found": "no route matches",
}


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that leaves the proxy."""

    backend: str
    """The Service, as ``namespace/name:port``; else the id of the cluster."""
    method: str
    target: str
    fields: tuple[tuple[str, str], ...]
    """Its header fields."""
    added: tuple[tuple[str, str], ...]
    """Fields that the client did not send, or not with this value."""
    removed: tuple[tuple[str, str], ...]
    """Fields that the client sent, and that are gone or have another value."""

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as JSON data."""
        return {
            "backend": self.backend,
            "method": self.method,
            "target": self.target,
            "headers": [list(one) for one in self.fields],
            "added": [list(one) for one in self.added],
            "removed": [list(one) for one in self.removed],
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that the proxy gives itself."""

    status: int
    why: str
    """Why, in words."""
    details: str
    """Why, as the access log says it (``%RESPONSE_CODE_DETAILS%``)."""
    flags: str
    """The response flags; ``-`` for none."""
    headers: tuple[tuple[str, str], ...]
    """Its header fields, other than those about the connection."""
    body: str
    """Its body."""

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as JSON data."""
        return {
            "status": self.status,
            "why": self.why,
            "details": self.details,
            "flags": self.flags,
            "headers": [list(one) for one in self.headers],
            "body": self.body,
        }


@dataclass(frozen=True, slots=True)
class Branch:
    """What becomes of the share of a backend."""

    backend: str | None
    """The Service, as ``namespace/name:port``; none for a reference that cannot be used."""
    weight: int
    share: float
    """The part of the requests that go there, from 0 to 1."""
    endpoints: tuple[str, ...] = ()
    """The addresses that take turns."""
    connection: Mapping[str, Any] = field(default_factory=dict)
    """How connections are made, as the IR has it; certificates are left out."""
    filters: tuple[Mapping[str, Any], ...] = ()
    """What filters of this backend alone do, as the IR has it."""
    sent: Sent | None = None
    """The request that the backend gets, if it gets one."""
    response_headers: tuple[tuple[str, str], ...] = ()
    """Header fields that the proxy adds to an answer that has none."""
    answer: Answer | None = None
    """The answer in place of the backend's, if so."""
    copies: tuple[Sent, ...] = ()
    """What else is sent: mirrored requests."""

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as JSON data."""
        return {
            "backend": self.backend,
            "weight": self.weight,
            "share": round(self.share, 6),
            "endpoints": list(self.endpoints),
            "connection": dict(self.connection),
            "filters": [dict(one) for one in self.filters],
            "sent": None if self.sent is None else self.sent.to_json(),
            "response_headers": [list(one) for one in self.response_headers],
            "answer": None if self.answer is None else self.answer.to_json(),
            "copies": [one.to_json() for one in self.copies],
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """What becomes of a request, and why."""

    question: Question
    listeners: tuple[Considered, ...]
    """The listeners that could have taken it."""
    service: str | None
    """The service of the mesh that is called, ``namespace/name``."""
    path: str | None
    """The path as it is matched, in its canonical form; none if no route is looked for."""
    candidates: tuple[Candidate, ...]
    """The routes for the host, in order of precedence."""
    other_hosts: tuple[str, ...]
    """The hostnames that this listener has routes for, other than those of the candidates."""
    unattached: tuple[Unattached, ...]
    """The routes that name the Gateway or service as a parent, and are not attached to it."""
    route: Candidate | None
    """The one that is used."""
    closed: str | None
    """Why the connection is closed or not taken, if so."""
    passed_on: tuple[Branch, ...]
    """Where a connection goes that nobody looks into."""
    branches: tuple[Branch, ...]
    """Where a request that is forwarded goes."""
    answer: Answer | None
    """The answer, of a request that is not forwarded."""
    action: Mapping[str, Any] | None
    """What the route does, as the IR has it, without the backends."""
    filters: tuple[Mapping[str, Any], ...]
    """What the route's filters do, as the IR has it, in their order."""
    asked: tuple[Mapping[str, Any], ...]
    """The filters that ask somebody else, who is taken to agree."""
    faults: tuple[str, ...]
    """What is wrong with the route: why it, or some of its backends, answers with an error."""
    settings: tuple[Setting, ...]
    """What was configured, field by field, and where it was written."""

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as JSON data."""
        asked = self.question
        return {
            "request": {
                "method": asked.method,
                "url": asked.url,
                "headers": [list(one) for one in asked.fields],
                "path": self.path,
            },
            "listeners": [one.to_json() for one in self.listeners],
            "service": self.service,
            "candidates": [one.to_json() for one in self.candidates],
            "other_hosts": list(self.other_hosts),
            "unattached": [one.to_json() for one in self.unattached],
            "route": None if self.route is None else self.route.name,
            "closed": self.closed,
            "passed_on": [one.to_json() for one in self.passed_on],
            "branches": [one.to_json() for one in self.branches],
            "answer": None if self.answer is None else self.answer.to_json(),
            "action": None if self.action is None else dict(self.action),
            "filters": [dict(one) for one in self.filters],
            "asked": [dict(one) for one in self.asked],
            "faults": list(self.faults),
            "settings": [one.to_json() for one in self.settings],
        }

    def __str__(self) -> str:
        """Returns it in lines for people, as ``kgw explain`` prints it."""
        from kgw.explaining.words import describe

        return "\n".join(describe(self))


def explain(config: Config, question: Question) -> Explanation:
    """Explains what becomes of a request, without a socket that anyone could reach.

    What is in Secrets is not shown, wherever it would be.

    Raises:
        ValueError: it depends on something that was not told; the message says what.
    """
    found: Explanation = _blind(_explained(config, question), _secrets(config))
    return found


def _secrets(config: Config) -> re.Pattern[str] | None:
    """Finds what is in Secrets, other than certificates: these are no secret."""
    texts: set[str] = set()
    for resource in config.resources:
        if isinstance(resource, Secret):
            for key in resource.keys:
                if key not in ("tls.crt", "ca.crt"):
                    texts.update(_parts((resource.read(key) or b"").decode("utf-8", "replace")))
    # Short ones would be found everywhere: a text that is one is hidden, and no part of a text.
    found = [
        re.escape(one) if len(one) >= _LONG else rf"\A{re.escape(one)}\Z"
        for one in sorted(texts, key=len, reverse=True)
        if len(one) >= _SHORTEST
    ]
    return re.compile("|".join(found)) if found else None


def _parts(text: str) -> Iterator[str]:
    """What of a value is used by itself: lines, what follows a name there, and texts in JSON."""
    for line in [text.strip(), *text.splitlines()]:
        yield line
        yield line.partition(":")[2].strip()
    try:
        left = [json.loads(text)]
    except (ValueError, RecursionError):
        return
    while left:
        one = left.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, (dict, list)):
            left += one.values() if isinstance(one, dict) else one


def _blind(data: Any, secrets: re.Pattern[str] | None) -> Any:
    """Data without what is in Secrets; the question stays as it was asked."""
    if secrets is None or isinstance(data, Question):
        return data
    if isinstance(data, str):
        return secrets.sub(SECRET, data)
    if isinstance(data, dict):
        return {key: _blind(one, secrets) for key, one in data.items()}
    if isinstance(data, (list, tuple)):
        return type(data)(_blind(one, secrets) for one in data)
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        names = [one.name for one in dataclasses.fields(data)]
        return replace(data, **{name: _blind(getattr(data, name), secrets) for name in names})
    return data


def _explained(config: Config, question: Question) -> Explanation:
    taking = take(config, question)
    closed = taking.why
    passed_on: tuple[Branch, ...] = ()
    if closed is None and taking.table is None:
        assert taking.forward is not None  # a connection is routed, passed on or closed
        passed_on = _connections(config, taking.forward)
        if not passed_on:
            closed = "the connection is closed: no route says where it goes"
    if closed is not None or taking.table is None:
        return Explanation(
            question=question,
            listeners=taking.considered,
            service=taking.service,
            path=None,
            candidates=(),
            other_hosts=(),
            unattached=_unattached(config, taking),
            route=None,
            closed=closed,
            passed_on=passed_on,
            branches=(),
            answer=None,
            action=None,
            filters=(),
            asked=(),
            faults=(),
            settings=settings(config, taking, None),
        )
    return _routed(config, question, taking, taking.table)


def _routed(config: Config, question: Question, taking: Taking, table: str) -> Explanation:
    """Explains a request that a route table is asked about."""
    hosts = hosts_of(config, table, question.authority)
    scene = trial.scene(config, taking, hosts)
    first = trial.run(scene, question, taking)
    every: tuple[Candidate, ...] = ()
    looked_for = first.route is not None or first.details == "route_not_found"
    if looked_for:
        every = candidates(
            config, table, question.method, first.path, question.authority, question.fields
        )
    chosen = next((one for one in every if one.selected), None)
    if (None if chosen is None else chosen.name) != first.route:
        raise RuntimeError(
            f"the engine has chosen {first.route}, and the explanation says "
            f"{None if chosen is None else chosen.name}: this is a defect of kgw"
        )
    route = None if chosen is None else config.ir["routes"][chosen.route]
    wrong = () if chosen is None else faults(config, chosen)
    branches = () if chosen is None else _branches(config, question, taking, scene, chosen, wrong)
    answers = {one.answer for one in branches if one.weight}
    answer = None
    if not answers:
        answer = _answer(first, wrong)
    elif len(answers) == 1:
        # Something that comes before the backends has answered for all of them.
        (answer,) = answers
        branches = tuple(replace(one, answer=None) for one in branches)
    tables = config.ir["route_tables"][table]["hosts"]
    chain = () if route is None else tuple(route.get("filters", ()))
    action = None if route is None else route["action"]
    return Explanation(
        question=question,
        listeners=taking.considered,
        service=taking.service,
        path=first.path if looked_for else None,
        candidates=every,
        other_hosts=tuple(
            one["hostname"] for one in tables if one["rules"] and one["hostname"] not in hosts
        ),
        unattached=_unattached(config, taking),
        route=chosen,
        closed=None,
        passed_on=(),
        branches=branches,
        answer=answer,
        action=None if action is None else {k: v for k, v in action.items() if k != "backends"},
        filters=tuple(
            _without_secrets(one) for one in chain if not trial.asks(one, config.ir["clusters"])
        ),
        asked=tuple(
            _without_secrets(one) for one in chain if trial.asks(one, config.ir["clusters"])
        ),
        faults=wrong,
        settings=settings(config, taking, chosen),
    )


def _unattached(config: Config, taking: Taking) -> tuple[Unattached, ...]:
    """The routes that could have been candidates."""
    parents: list[tuple[str, str, str]] = []
    if taking.gateway is not None:
        parents.append(("Gateway", *taking.gateway.named))
        parents += [("ListenerSet", *one.named) for one in taking.gateway.sets]
    if taking.service is not None:
        namespace, _, name = taking.service.partition("/")
        parents.append(("Service", namespace, name))
    return unattached(config, parents)


# === Backends ===


def _branches(
    config: Config,
    question: Question,
    taking: Taking,
    scene: Mapping[str, Any],
    chosen: Candidate,
    wrong: tuple[str, ...],
) -> tuple[Branch, ...]:
    """What becomes of the share of each backend: a trial for each that has one."""
    action = config.ir["routes"][chosen.route]["action"]
    if action["type"] != "forward":
        return ()
    found = []
    total = sum(one["weight"] for one in action["backends"])
    for number, backend in enumerate(action["backends"]):
        about = _about(config, backend, total)
        if backend["weight"] == 0:
            found.append(Branch(**about))
            continue
        came = trial.run(trial.alone(scene, chosen.route, number), question, taking)
        mine = [one for one in came.received if not one.is_copy]
        sent = mine[-1] if came.forwarded and mine else None
        copies = [one for one in came.received if one.is_copy]
        found.append(
            Branch(
                **about,
                sent=None if sent is None else _sent(sent, question),
                response_headers=_fields(came.answer) if came.forwarded else (),
                answer=None if came.forwarded else _answer(came, wrong),
                copies=tuple(_sent(one, question) for one in copies),
            )
        )
    return tuple(found)


def _connections(config: Config, forward: Mapping[str, Any]) -> tuple[Branch, ...]:
    """Where the bytes of a connection go."""
    total = sum(one["weight"] for one in forward["backends"])
    return tuple(Branch(**_about(config, one, total)) for one in forward["backends"])


def _about(config: Config, backend: Mapping[str, Any], total: int) -> dict[str, Any]:
    """What is known of a backend without a trial."""
    cluster = None if backend["cluster"] is None else config.ir["clusters"][backend["cluster"]]
    kept = {} if cluster is None else {k: v for k, v in cluster.items() if k != "endpoints"}
    return {
        "backend": None if cluster is None else _service(backend["cluster"]),
        "weight": backend["weight"],
        "share": backend["weight"] / total if total else 0.0,
        "endpoints": () if cluster is None else tuple(cluster.get("endpoints", ())),
        "connection": _without_keys(kept),
        "filters": tuple(backend.get("filters", ())),
    }


def _without_secrets(data: Any) -> Any:
    """JSON data of a filter without what it logs in with."""
    if isinstance(data, dict):
        return {key: _without_secrets(one) for key, one in data.items() if key != "password"}
    if isinstance(data, list):
        return [_without_secrets(one) for one in data]
    return data


def _without_keys(data: Any) -> Any:
    """JSON data of the IR without what is in certificates and keys."""
    if isinstance(data, dict):
        return {key: _without_keys(one) for key, one in data.items() if key not in ("chain", "key")}
    if isinstance(data, str) and data.startswith("-----BEGIN "):
        return "PEM"
    return data


def _service(cluster: str) -> str:
    from kgw.inprocess import backend_of

    return backend_of(cluster) or cluster


# === Messages ===


def _sent(received: Received, question: Question) -> Sent:
    """A request at a backend, and how it differs from the client's."""
    fields = tuple((name, _steady(name, value)) for name, value in received.fields)
    return Sent(
        _service(received.cluster),
        received.method,
        received.target,
        fields,
        _more(fields, question.fields),
        _more(question.fields, fields),
    )


def _more(
    fields: Iterable[tuple[str, str]], known: Iterable[tuple[str, str]]
) -> tuple[tuple[str, str], ...]:
    """The fields that are not among others, where names are compared in any case."""
    left = [(name.lower(), value) for name, value in known]
    found = []
    for name, value in fields:
        try:
            left.remove((name.lower(), value))
        except ValueError:
            found.append((name, value))
    return tuple(found)


def _steady(name: str, value: str) -> str:
    """A value that is the same for each run."""
    return RANDOM if name.lower() == "x-request-id" and _RANDOM.fullmatch(value) else value


def _fields(fields: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The fields of an answer, without those of the trial."""
    return tuple(
        (name, _steady(name, value)) for name, value in fields if name.lower() not in _OF_THE_TRIAL
    )


def _answer(came: Trial, wrong: tuple[str, ...]) -> Answer:
    location = next((value for name, value in came.answer if name.lower() == "location"), None)
    if came.status == 421:
        why = "the host belongs to another listener than the connection"
    elif came.details in _OF_FAULTS and came.status >= 500 and wrong:
        why = "; ".join(wrong)
    elif location is not None and 300 <= came.status < 400:
        why = f"a redirect to {location}"
    elif came.status == 500 and came.cluster is None and came.details != "direct_response":
        why = "the rule has no backend"
    else:
        why = _REASONS.get(came.details, came.details.replace("_", " "))
    return Answer(
        came.status,
        why,
        came.details,
        came.flags,
        _fields(came.answer),
        came.body.decode("utf-8", "replace"),
    )
