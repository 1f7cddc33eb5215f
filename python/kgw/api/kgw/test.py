"""Test: requests, and what is expected of them. `kgw test` runs it; nothing else acts on it.

`docs/testing.md` describes it; `kgw.testing.cases` is what runs it.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from kgw.api.base import Bool, Int, Model, contradiction
from kgw.api.duration import Duration
from kgw.api.kinds import KGW_GROUP
from kgw.api.meta import Resource

Text = Annotated[str, StringConstraints(max_length=1 << 20)]
Texts = dict[str, Text]
Times = Annotated[Int, Field(ge=1, le=10_000)]


class Reply(Model):
    """What a fake backend answers."""

    status: Annotated[Int, Field(ge=200, le=599)] = 200
    """The status code."""
    headers: Texts = Field(default_factory=dict)
    """Header fields; the length of the body is added."""
    body: Text | None = None
    """The body, as text."""
    json_body: Any = None
    """What the body says as JSON."""
    delay: Duration = Duration("0s")
    """Time from the request to the answer, by the gateway's clock."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.body is not None and self.json_body is not None:
            raise contradiction("body and json cannot both be given", "json")
        return self


class Script(Model):
    """What a fake backend does from then on."""

    service: Annotated[str, StringConstraints(min_length=1, max_length=317)]
    """The Service: its name, or `namespace/name`."""
    does: Literal["Echo", "Respond", "Hang", "Reset", "Refuse"] | None = None
    """What the backend does, unless it responds."""
    respond: Reply | None = None
    """What it answers."""
    times: Times | None = None
    """It is so only for the next requests, as many as this; by default for all."""

    @property
    def action(self) -> str:
        """What it does; that it responds need not be said beside the response."""
        return self.does or ("Echo" if self.respond is None else "Respond")

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if (self.respond is not None) != (self.action == "Respond"):
            raise contradiction("respond goes with `does: Respond`, and with nothing else", "does")
        if self.times is not None and self.action not in ("Respond", "Hang"):
            raise contradiction(f"times has no meaning with `does: {self.action}`", "times")
        return self


class Request(Model):
    """A request."""

    method: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+\-.^_`|~]+$")] = "GET"
    """The method."""
    url: Annotated[str, StringConstraints(min_length=1, max_length=65536)] = "/"
    """A path, or a URL; on a waypoint, its host is the service that is called."""
    headers: Texts = Field(default_factory=dict)
    """Header fields."""
    body: Text | None = None
    """The body, as text."""
    json_body: Any = None
    """What the body says as JSON."""
    host: str | None = None
    """The `Host` field, if it is another than the URL's."""
    identity: str | None = None
    """Who calls a waypoint, as `spiffe://…`."""
    source: str | None = None
    """Where the call comes from, as `IP` or `IP:PORT`."""
    to: str | None = None
    """The service of a waypoint that is called, if it is another than the URL's."""
    listener: str | None = None
    """The listener, as `namespace/gateway/listener` or the end of it."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.body is not None and self.json_body is not None:
            raise contradiction("body and json cannot both be given", "json")
        return self


class Received(Model):
    """What is expected of the request as the backend received it."""

    method: str | None = None
    """The method."""
    target: str | None = None
    """The path with the query, as they were sent."""
    path: str | None = None
    """The path without the query."""
    query: Texts = Field(default_factory=dict)
    """Query parameters, decoded."""
    headers: Texts = Field(default_factory=dict)
    """Header fields and their values."""
    absent_headers: tuple[str, ...] = ()
    """Header fields that must not be there."""
    body: Text | None = None
    """The body, as text."""
    contains: Text | None = None
    """A text that is somewhere in the body."""
    json_body: Any = None
    """What the body says as JSON."""


class Expectation(Model):
    """What is expected of an answer. What is left out is not looked at."""

    status: Annotated[Int, Field(ge=100, le=599)] | None = None
    """The status code."""
    route: str | None = None
    """The route, as access logs name it: `namespace/name/rule/match`."""
    no_route: Bool = False
    """Whether there must be no route."""
    backend: str | None = None
    """The Service that the request was sent to: its name, or `namespace/name`."""
    no_backend: Bool = False
    """Whether the gateway must have answered by itself."""
    no_answer: Bool = False
    """Whether the connection must be closed without an answer."""
    flags: str | None = None
    """How the request ended, as `%RESPONSE_FLAGS%` says it; empty if it was nothing special."""
    details: str | None = None
    """Who decided about the status, as `%RESPONSE_CODE_DETAILS%` says it."""
    headers: Texts = Field(default_factory=dict)
    """Header fields of the answer and their values."""
    absent_headers: tuple[str, ...] = ()
    """Header fields that must not be there."""
    body: Text | None = None
    """The body, as text."""
    contains: Text | None = None
    """A text that is somewhere in the body."""
    json_body: Any = None
    """What the body says as JSON."""
    log: dict[str, Any] = Field(default_factory=dict)
    """Members of the log record."""
    policies: tuple[str, ...] | None = None
    """All policies that count for the request, in any order: `TrafficPolicy default/limit`."""
    received: Received | None = None
    """The request as the backend received it."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.no_answer and self.model_fields_set - {"no_answer"}:
            raise contradiction("nothing else can be expected of no answer", "noAnswer")
        for name in ("route", "backend"):
            if getattr(self, f"no_{name}") and getattr(self, name) is not None:
                raise contradiction(f"{name} and no{name.title()} cannot both be given", name)
        if self.no_backend and self.received is not None:
            raise contradiction("noBackend and received cannot both be given", "received")
        return self


class Step(Model):
    """A request and what is expected of it, time that passes, or a change of a backend."""

    name: str | None = None
    """What the step is called in the output."""
    request: Request | None = None
    """A request."""
    times: Times = 1
    """How often the request is sent; each answer must be as expected."""
    expect: Expectation | None = None
    """What is expected of the answer."""
    advance: Duration | None = None
    """Time that passes."""
    backend: Script | None = None
    """What a backend does from then on."""

    @model_validator(mode="after")
    def _rules(self) -> Self:
        kinds = ("request", "advance", "backend")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            what = " and ".join(given) or "none of them"
            raise contradiction(f"a step has one of request, advance and backend, not {what}")
        if given == ["request"]:
            if self.expect is None:
                raise contradiction("a request has an `expect`", "request")
            return self
        for name in ("expect", "times"):
            if name in self.model_fields_set:
                raise contradiction(f"{name} goes with a request, not with {given[0]}", name)
        return self


class TestSpec(Model):
    """The steps, in order, against a gateway of its own."""

    __test__: ClassVar[bool] = False  # pytest takes names that begin so for its own

    allow_errors: Bool = False
    """Whether manifests with errors are served as far as they can be; else the Test fails."""
    backends: tuple[Script, ...] = ()
    """What backends do from the beginning; those that are not named echo."""
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]
    """What is done, in order."""


class Test(Resource):
    """A test of the manifests that it is loaded with."""

    __test__: ClassVar[bool] = False

    group: ClassVar[str] = KGW_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1alpha1",)

    api_version: str = f"{KGW_GROUP}/v1alpha1"
    kind: Literal["Test"] = "Test"
    spec: TestSpec
    """The steps, and what they are about."""
