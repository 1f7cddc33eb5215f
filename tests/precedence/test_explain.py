"""What `kgw.explaining` says of a request is what a running proxy does with it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from tests.precedence.sets import SEED, Request, RouteSet, manifests, route_sets
from tests.precedence.wire import Outcome, ask, echo_servers, with_port

import kgw
from kgw.explaining import Explanation, Question, explain
from kgw.translate.options import Options

if TYPE_CHECKING:
    from kgw.explaining import Candidate

pytestmark = pytest.mark.timeout(300)

SETS, REQUESTS = 40, 8


def _explained(config: kgw.Config, one: RouteSet, request: Request) -> Explanation:
    question = Question.of(
        request.method,
        f"http://{one.gateway}.test{request.target}",
        headers=[("Host", request.host), *request.fields],
        gateway=f"alpha/{one.gateway}",
    )
    return explain(config, question)


def _outcome(found: Explanation) -> Outcome:
    """An explanation as a client and a backend would see it."""
    if found.answer is not None:
        fields = dict(found.answer.headers)
        location = fields.get("location")
        location = None if location is None else with_port(location)
        return Outcome(found.answer.status, fields.get("x-rule"), location=location)
    (branch,) = found.branches
    assert branch.sent is not None
    host = next(value for name, value in branch.sent.fields if name.lower() == "host")
    return Outcome(
        200,
        dict(branch.response_headers).get("x-rule"),
        None if branch.backend is None else branch.backend.split("/")[1].split(":")[0],
        branch.sent.target,
        host,
    )


def _wrong_order(candidates: tuple[Candidate, ...]) -> str | None:
    """What is wrong with the candidates' fates by themselves, if anything."""
    selected = [place for place, one in enumerate(candidates) if one.selected]
    if len(selected) > 1:
        return "several are selected"
    for place, one in enumerate(candidates):
        if one.outcome == "outranked" and not (selected and selected[0] < place):
            return f"{one.name} is outranked by nothing in front of it"
    return None


def test_an_explanation_is_what_the_proxy_does() -> None:
    sets = route_sets(SETS, REQUESTS)
    ports = {f"alpha/{one.gateway}/http": 0 for one in sets}
    with contextlib.ExitStack() as stack:
        backends = stack.enter_context(echo_servers())
        objects = manifests(sets, backends)
        served = kgw.Config.from_objects(objects, options=Options(bind=("127.0.0.1",), ports=ports))
        running = stack.enter_context(kgw.Proxy(served, workers=1, drain_timeout=0))
        bound = {name.split("/")[1]: where[0] for name, where in running.addresses.items()}
        outcomes = {one.number: ask(bound[one.gateway], one.requests) for one in sets}
    wrong = []
    for one in sets:
        for request, real in zip(one.requests, outcomes[one.number], strict=True):
            found = _explained(served, one, request)
            said = _outcome(found)
            faults = [] if said == real else [f"{said}, not {real}"]
            order = _wrong_order(found.candidates)
            wrong += [f"set {one.number}: {request}: {why}" for why in (*faults, order) if why]
    assert not wrong, f"KGW_ROUTE_SETS_SEED={SEED}\n" + "\n".join(wrong[:20])
