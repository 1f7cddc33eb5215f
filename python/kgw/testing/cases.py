"""Runs Tests: requests that YAML declares, and what it expects of them.

Each Test has a gateway of its own, so tokens, time and backends are new. Its steps are taken in
order; the first that fails ends it, for those behind it build on what it should have done.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kgw.errors import ConfigError
from kgw.testing.answer import ANY, Expectation, Mismatch, NoAnswer
from kgw.testing.backends import Backend, echo
from kgw.testing.gateway import Gateway

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kgw.api.kgw import test as api
    from kgw.config import Config
    from kgw.source import FieldPath
    from kgw.testing.answer import Answer

__all__ = ["Case", "Failure", "Taken", "cases", "run"]


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that is not as a Test expects it."""

    message: str
    path: FieldPath
    """The field of the Test that says what is expected."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A step that was taken."""

    what: str
    """The step, in words."""
    outcome: str = ""
    """What came of it, in words."""
    failures: tuple[Failure, ...] = ()
    details: tuple[str, ...] = ()
    """All that is known about the answer that failed."""


@dataclass(slots=True)
class Case:
    """A Test that was run."""

    test: api.Test
    steps: list[Taken] = field(default_factory=list)
    seconds: float = 0.0
    """Real seconds that it took."""

    @property
    def name(self) -> str:
        """``namespace/name``."""
        return f"{self.test.namespace}/{self.test.name}"

    @property
    def failed(self) -> bool:
        """Whether something was not as expected."""
        return any(step.failures for step in self.steps)

    @property
    def skipped(self) -> int:
        """Steps that were not taken, because one before them failed."""
        return max(0, len(self.test.spec.steps) - len(self.steps))

    def place(self, path: FieldPath) -> str:
        """Returns ``file:line:column`` of a field of the Test; without a file the field alone."""
        if self.test.origin is None:
            return ".".join(map(str, path))
        place: str = self.test.origin.describe(path)
        return place


def cases(config: Config) -> list[api.Test]:
    """Returns the Tests of a configuration, by name."""
    from kgw.api.kgw.test import Test

    return sorted(
        (one for one in config.resources if isinstance(one, Test)), key=lambda one: one.key
    )


def run(config: Config, tests: Iterable[api.Test]) -> Iterator[Case]:
    """Runs Tests of a configuration, and yields each when it is done."""
    for test in tests:
        case = Case(test)
        begin = time.perf_counter()
        try:
            with Gateway(config, strict=not test.spec.allow_errors) as gateway:
                _take(case, gateway)
        except ConfigError as error:
            case.steps.append(Taken("start the gateway", "", (Failure(str(error), ("spec",)),)))
        case.seconds = time.perf_counter() - begin
        yield case


def _take(case: Case, gateway: Gateway) -> None:
    """Takes the steps of a Test."""
    for number, script in enumerate(case.test.spec.backends):
        taken = _backend(gateway, script, ("spec", "backends", number))
        if taken.failures:
            case.steps.append(taken)
            return
    for number, step in enumerate(case.test.spec.steps):
        path: FieldPath = ("spec", "steps", number)
        if step.advance is not None:
            gateway.clock.advance(step.advance / 1000)
            taken = Taken(_named(step, f"advance {step.advance.as_written()}"))
        elif step.backend is not None:
            taken = _backend(gateway, step.backend, (*path, "backend"), step)
        else:
            taken = _request(gateway, step, path)
        case.steps.append(taken)
        if taken.failures:
            return


def _named(step: api.Step | None, what: str) -> str:
    return what if step is None or step.name is None else f"{step.name}: {what}"


# === Backends ===


def _backend(
    gateway: Gateway, script: api.Script, path: FieldPath, step: api.Step | None = None
) -> Taken:
    words = {"Echo": "echoes", "Hang": "hangs", "Reset": "resets", "Refuse": "refuses"}
    does = words.get(script.action) or _reply_words(script)
    what = _named(step, f"backend {script.service} {does}")
    try:
        backend = gateway.backend(script.service)
    except LookupError as error:
        return Taken(what, "", (Failure(str(error.args[0]), (*path, "service")),))
    _tell(backend, script)
    return Taken(what)


def _reply_words(script: api.Script) -> str:
    assert script.respond is not None  # it would have no action else
    after = f" after {script.respond.delay.as_written()}" if script.respond.delay else ""
    return f"responds {script.respond.status}{after}"


def _tell(backend: Backend, script: api.Script) -> None:
    match script.action:
        case "Hang":
            backend.hangs(times=script.times)
        case "Reset":
            backend.resets()
        case "Refuse":
            backend.refuses()
        case "Echo":
            backend.handles(echo)
        case _:
            assert script.respond is not None  # the model has seen to it
            reply = script.respond
            backend.responds(
                reply.status,
                reply.headers,
                reply.body or "",
                json=reply.json_body,
                delay=reply.delay / 1000,
                times=script.times,
            )


# === Requests ===


def _request(gateway: Gateway, step: api.Step, path: FieldPath) -> Taken:
    """Sends the request of a step as often as it says, until an answer is not as expected."""
    request, expected = step.request, step.expect
    assert request is not None  # the other kinds of steps are not for here
    assert expected is not None  # the model has seen to it
    what = _named(step, f"{request.method} {request.url}")
    if step.times > 1:
        what += f" ({step.times} times)"
    answer = None
    for number in range(step.times):
        nth = f"request {number + 1}: " if step.times > 1 else ""
        try:
            answer = _send(gateway, request)
        except NoAnswer as error:
            if expected.no_answer:
                continue
            head, *details = str(error).splitlines()
            return Taken(what, "no answer", (Failure(nth + head, path),), tuple(details))
        except ValueError as error:
            return Taken(what, "", (Failure(str(error), (*path, "request")),))
        if expected.no_answer:
            failure = Failure(f"{nth}expected no answer, got {answer.status}", path)
            return Taken(what, _outcome(answer), (failure,), tuple(answer.describe()))
        wrong = expectation(expected).mismatches(answer)
        if wrong:
            failures = tuple(
                Failure(f"{nth}{str(one).strip()}", (*path, "expect", *_place(one)))
                for one in wrong
            )
            return Taken(what, _outcome(answer), failures, tuple(answer.describe()))
    return Taken(what, "no answer" if answer is None else _outcome(answer))


def _send(gateway: Gateway, request: api.Request) -> Answer:
    return gateway.request(
        request.method,
        request.url,
        headers=request.headers,
        body=request.body,
        json=request.json_body,
        host=request.host,
        identity=request.identity,
        source=request.source,
        to=request.to,
        listener=request.listener,
    )


def _outcome(answer: Answer) -> str:
    flags = f" {answer.flags}" if answer.flags else ""
    backend = f" -> {answer.backend}" if answer.backend else ""
    return f"{answer.status}{flags}, {answer.route or 'no route'}{backend}"


def expectation(expected: api.Expectation) -> Expectation:
    """Returns what a Test expects of an answer as `Answer.expect` would."""
    received: dict[str, Any] = {}
    if expected.received is not None:
        given = expected.received
        for name in ("method", "target", "path", "body", "contains"):
            if (value := getattr(given, name)) is not None:
                received[name] = value
        if given.json_body is not None:
            received["json"] = given.json_body
        received["query"] = given.query
        received["headers"] = _headers(given.headers, given.absent_headers)
    return Expectation(
        status=_if_given(expected.status),
        route=None if expected.no_route else _if_given(expected.route),
        backend=None if expected.no_backend else _if_given(expected.backend),
        flags=_if_given(expected.flags),
        details=_if_given(expected.details),
        headers=_headers(expected.headers, expected.absent_headers),
        body=_if_given(expected.body),
        contains=expected.contains,
        json=_if_given(expected.json_body),
        log=expected.log,
        policies=_if_given(expected.policies),
        received=received,
    )


def _if_given(value: Any) -> Any:
    return ANY if value is None else value


def _headers(present: dict[str, str], absent: Iterable[str]) -> dict[str, str | None]:
    return {**present, **dict.fromkeys(absent)}


def _place(mismatch: Mismatch) -> FieldPath:
    """The field of an expectation that a mismatch is about, as the manifest names it."""
    return mismatch.what
