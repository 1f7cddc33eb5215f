"""A listener of a ListenerSet is told apart from one of the Gateway, also where names are alike."""

from __future__ import annotations

import pytest

import kgw
from kgw.api import Gateway, HTTPRoute, Listener, ListenerSet, Rule, Service
from kgw.explaining import Question, explain

EDGE = Gateway.of("edge", Listener.of(80, hostname="own.example"), listener_sets="Same")
TEAM = ListenerSet.of("team", EDGE, Listener.of(80, hostname="team.example"))
APP = Service.at("app", "127.0.0.1:9")


@pytest.mark.parametrize(
    ("host", "listener", "route"),
    [
        ("own.example", "default/edge/http", "default/own/0/0"),
        ("team.example", "default/edge/default/team/http", "default/team/0/0"),
    ],
)
def test_the_listener_that_takes_a_request_is_named(host: str, listener: str, route: str) -> None:
    config = kgw.Config.from_objects(
        [
            EDGE,
            TEAM,
            *APP,
            HTTPRoute.of("own", EDGE, Rule.of(to="app:80")),
            HTTPRoute.of("team", TEAM, Rule.of(to="app:80")),
        ]
    )
    assert config.errors == ()
    found = explain(config, Question.of("GET", f"http://{host}/"))
    assert [one.listener for one in found.listeners if one.taken] == [listener]
    assert found.to_json()["route"] == route
