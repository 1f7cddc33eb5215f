"""What came of a request, and what a test may expect of it."""

from __future__ import annotations

import json as jsonlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from kgw.testing.aim import Aim
    from kgw.testing.backends import Received
    from kgw.testing.headers import Headers

__all__ = ["ANY", "Answer", "Expectation", "Mismatch", "NoAnswer"]


class _Any:
    def __repr__(self) -> str:
        return "ANY"


ANY: Final = _Any()
"""Stands for a field that is not looked at."""


class NoAnswer(AssertionError):
    """The gateway gave no answer: it closed or reset the connection, or was silent.

    An `AssertionError`, because a test that does not expect it has failed.
    """


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """The answer to a request, and what happened behind it."""

    method: str
    aim: Aim = field(repr=False)
    status: int
    reason: str
    headers: Headers
    body: bytes
    log: Mapping[str, Any]
    """What the access log knows about the request; `kgw.testing.overlay.RECORD` has the keys."""
    access_log: tuple[dict[str, Any] | str, ...]
    """What each of the policies' own access logs says, in its own form."""
    received: Received | None
    """The request as the backend received it, of several attempts the last; none if none did."""
    policies: tuple[str, ...]
    """The policies that count for the request: ``"TrafficPolicy default/ratelimit"``."""
    at: float
    """Seconds of the gateway's clock when it was over."""
    explanation: Callable[[], list[str]] = field(repr=False)
    """Says of each route that could have served the request why it did, or did not."""

    def __repr__(self) -> str:
        flags = f" {self.flags}" if self.flags else ""
        return (
            f"<Answer {self.status}{flags} to {self.method} {self.aim.url}: "
            f"route {self.route or 'none'}, backend {self.backend or 'none'}>"
        )

    @property
    def url(self) -> str:
        """What was asked for."""
        return self.aim.url

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """Returns what the body says as JSON. Raises `ValueError`."""
        return jsonlib.loads(self.body)

    @property
    def route(self) -> str | None:
        """The route that served the request: ``namespace/name/rule/match`` of an HTTPRoute, or
        ``namespace/service:port`` where a waypoint's service has none. ``%ROUTE_NAME%``."""
        return self.log["route_name"] or None

    @property
    def backend(self) -> str | None:
        """``namespace/name`` of the Service whose endpoint the request was sent to; none if the
        gateway answered by itself."""
        from kgw.testing.overlay import cluster_backend

        if not self.log["upstream_host"]:
            return None
        return cluster_backend(self.log["upstream_cluster"]).backend

    @property
    def flags(self) -> str:
        """How the request ended, as ``%RESPONSE_FLAGS%`` says it; empty if it was nothing
        special."""
        flags = self.log["response_flags"]
        return "" if flags in (None, "-") else str(flags)

    @property
    def details(self) -> str | None:
        """Who decided about the status and why, as ``%RESPONSE_CODE_DETAILS%`` says it."""
        details = self.log["response_code_details"]
        return None if details is None else str(details)

    def expect(
        self,
        *,
        status: Any = ANY,
        route: Any = ANY,
        backend: Any = ANY,
        flags: Any = ANY,
        details: Any = ANY,
        headers: Mapping[str, str | None] | None = None,
        body: Any = ANY,
        contains: str | None = None,
        json: Any = ANY,
        log: Mapping[str, Any] | None = None,
        policies: Any = ANY,
        received: Mapping[str, Any] | None = None,
    ) -> Self:
        """Asserts several things at once, and says of all that are not so; returns the answer.

        Args:
            status: the status code.
            route: `route`; ``None`` for no route.
            backend: `backend`, its namespace may be left out if it is ``default``; ``None`` if the
                gateway must have answered by itself.
            flags: `flags`.
            details: `details`.
            headers: header fields of the answer; ``None`` for one that must not be there.
            body: the body, bytes or text.
            contains: text that is somewhere in the body.
            json: what the body says as JSON.
            log: members of `log`.
            policies: all of `policies`, in any order.
            received: of the request as the backend received it, any of ``method``, ``target``,
                ``path``, ``query`` (members), ``headers`` (as above), ``body``, ``contains`` and
                ``json``.

        Raises:
            AssertionError: with everything that is known about the request.
        """
        expectation = Expectation(
            status=status,
            route=route,
            backend=backend,
            flags=flags,
            details=details,
            headers=headers or {},
            body=body,
            contains=contains,
            json=json,
            log=log or {},
            policies=policies,
            received=received or {},
        )
        wrong = expectation.mismatches(self)
        if wrong:
            head = f"{self.method} {self.url} is not answered as expected:"
            raise AssertionError("\n".join([head, *map(str, wrong), "", *self.describe()]))
        return self

    def describe(self) -> list[str]:
        """Returns everything that is known about the request, in lines for people."""
        by = self.backend or f"none, the gateway answered itself ({self.details})"
        lines = [
            f"{self.method} {self.url} -> {self.status}",
            f"  listener  {self.aim.listener['id']}",
            f"  route     {self.route or 'none'}",
            f"  policies  {', '.join(self.policies) or 'none'}",
            f"  backend   {by}",
            f"  flags     {self.flags or 'none'}",
            f"  clock     {self.at:g} s",
            "the answer:",
            *_indented([f"{self.status} {self.reason}".rstrip()]),
            *_indented(f"{name}: {value}" for name, value in self.headers.pairs),
        ]
        if self.body:
            lines += ["", *_indented(_cut(self.text).splitlines())]
        if self.received is not None:
            lines += ["the request as the backend received it:"]
            lines += _indented(self.received.describe())
        lines += ["routes, in order of precedence:", *_indented(self.explanation())]
        known = {name: value for name, value in self.log.items() if value is not None}
        lines += ["the log record:"]
        lines += _indented(f"{name}: {jsonlib.dumps(value)}" for name, value in known.items())
        return lines


class Mismatch(NamedTuple):
    """Something that is not as it was expected."""

    what: tuple[str, ...]
    """The field: ``("headers", "server")``."""
    expected: str
    actual: str

    def __str__(self) -> str:
        return f"  {'.'.join(self.what)}: expected {self.expected}, got {self.actual}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What is expected of an answer; see `Answer.expect`."""

    status: Any = ANY
    route: Any = ANY
    backend: Any = ANY
    flags: Any = ANY
    details: Any = ANY
    headers: Mapping[str, str | None] = field(default_factory=dict)
    body: Any = ANY
    contains: str | None = None
    json: Any = ANY
    log: Mapping[str, Any] = field(default_factory=dict)
    policies: Any = ANY
    received: Mapping[str, Any] = field(default_factory=dict)

    def mismatches(self, answer: Answer) -> list[Mismatch]:
        """Returns what of an answer is not as expected."""
        found: list[Mismatch] = []
        backend = self.backend
        if isinstance(backend, str) and "/" not in backend:
            backend = f"default/{backend}"
        for name, expected in (
            ("status", self.status),
            ("route", self.route),
            ("backend", backend),
            ("flags", self.flags),
            ("details", self.details),
        ):
            found += _compare((name,), expected, getattr(answer, name))
        if self.policies is not ANY and sorted(self.policies) != sorted(answer.policies):
            shown = _shown(list(self.policies)), _shown(list(answer.policies))
            found.append(Mismatch(("policies",), *shown))
        found += _headers(("headers",), self.headers, answer.headers)
        found += _body((), self.body, self.contains, answer.body)
        found += _json((), self.json, answer.body)
        for name, expected in self.log.items():
            if name in answer.log:
                found += _compare(("log", name), expected, answer.log[name])
            else:
                found.append(Mismatch(("log", name), _shown(expected), "no such key in the record"))
        if self.received:
            found += _received(self.received, answer.received)
        return found


def _received(expected: Mapping[str, Any], actual: Received | None) -> list[Mismatch]:
    """What of the request that a backend received is not as expected."""
    unknown = expected.keys() - _RECEIVED
    if unknown:
        raise ValueError(f"a request that was received has no {', '.join(sorted(unknown))}")
    if actual is None:
        return [Mismatch(("received",), "a request", "none, no backend received it")]
    found: list[Mismatch] = []
    for name in ("method", "target", "path"):
        found += _compare(("received", name), expected.get(name, ANY), getattr(actual, name))
    for name, value in expected.get("query", {}).items():
        found += _compare(("received", "query", name), value, actual.query.get(name))
    found += _headers(("received", "headers"), expected.get("headers", {}), actual.headers)
    contains = expected.get("contains")
    found += _body(("received",), expected.get("body", ANY), contains, actual.body)
    return found + _json(("received",), expected.get("json", ANY), actual.body)


_RECEIVED: Final = frozenset(
    {"method", "target", "path", "query", "headers", "body", "contains", "json"}
)


def _compare(what: tuple[str, ...], expected: Any, actual: Any) -> list[Mismatch]:
    if expected is ANY or expected == actual:
        return []
    return [Mismatch(what, _shown(expected), _shown(actual))]


def _headers(
    what: tuple[str, ...], expected: Mapping[str, str | None], actual: Headers
) -> list[Mismatch]:
    found: list[Mismatch] = []
    for name, value in expected.items():
        found += _compare((*what, name), value, actual.get(name))
    return found


def _body(
    what: tuple[str, ...], expected: Any, contains: str | None, body: bytes
) -> list[Mismatch]:
    found: list[Mismatch] = []
    if expected is not ANY:
        wanted = expected.encode() if isinstance(expected, str) else expected
        if wanted != body:
            found.append(Mismatch((*what, "body"), _text(wanted), _text(body)))
    if contains is not None and contains.encode() not in body:
        found.append(Mismatch((*what, "contains"), f"{contains!r} in the body", _text(body)))
    return found


def _json(what: tuple[str, ...], expected: Any, body: bytes) -> list[Mismatch]:
    if expected is ANY:
        return []
    try:
        actual = jsonlib.loads(body)
    except ValueError:
        return [Mismatch((*what, "json"), _shown(expected), f"no JSON, but {_text(body)}")]
    return _compare((*what, "json"), expected, actual)


def _shown(value: Any) -> str:
    return "none" if value is None else repr(value)


def _text(body: bytes) -> str:
    return _cut(repr(body.decode("utf-8", "backslashreplace")), 400)


def _cut(text: str, most: int = 2_000) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def _indented(lines: Any) -> list[str]:
    return [f"  {line}".rstrip() for line in lines]
