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
    headers: Texts = Field(default_factory=dict)
    body: Text | None = None
    json_body: Any = None
    delay: Duration = Duration("0s")

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.body is not None and self.json_body is not None:
            raise contradiction("body and json cannot both be given", "json")
        return self


class Script(Model):
    """What a fake backend does from then on."""

    service: Annotated[str, StringConstraints(min_length=1, max_length=317)]
    does: Literal["Echo", "Respond", "Hang", "Reset", "Refuse"] | None = None
    respond: Reply | None = None
    times: Times | None = None

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
    url: Annotated[str, StringConstraints(min_length=1, max_length=65536)] = "/"
    headers: Texts = Field(default_factory=dict)
    body: Text | None = None
    json_body: Any = None
    host: str | None = None
    identity: str | None = None
    source: str | None = None
    to: str | None = None
    listener: str | None = None

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if self.body is not None and self.json_body is not None:
            raise contradiction("body and json cannot both be given", "json")
        return self


class Received(Model):
    """What is expected of the request as the backend received it."""

    method: str | None = None
    target: str | None = None
    path: str | None = None
    query: Texts = Field(default_factory=dict)
    headers: Texts = Field(default_factory=dict)
    absent_headers: tuple[str, ...] = ()
    body: Text | None = None
    contains: Text | None = None
    json_body: Any = None


class Expectation(Model):
    """What is expected of an answer. What is left out is not looked at."""

    status: Annotated[Int, Field(ge=100, le=599)] | None = None
    route: str | None = None
    no_route: Bool = False
    backend: str | None = None
    no_backend: Bool = False
    no_answer: Bool = False
    flags: str | None = None
    details: str | None = None
    headers: Texts = Field(default_factory=dict)
    absent_headers: tuple[str, ...] = ()
    body: Text | None = None
    contains: Text | None = None
    json_body: Any = None
    log: dict[str, Any] = Field(default_factory=dict)
    policies: tuple[str, ...] | None = None
    received: Received | None = None

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
    request: Request | None = None
    times: Times = 1
    expect: Expectation | None = None
    advance: Duration | None = None
    backend: Script | None = None

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
    backends: tuple[Script, ...] = ()
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]


class Test(Resource):
    """A test of the manifests that it is loaded with."""

    __test__: ClassVar[bool] = False

    group: ClassVar[str] = KGW_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1alpha1",)

    spec: TestSpec
