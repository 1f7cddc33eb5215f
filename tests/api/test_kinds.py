"""Which kinds there are, and that a model is imported only when there is an object of it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from kgw import api
from kgw.api import loaded
from kgw.api.gateway.gateway import AllowedRoutes, RouteNamespaces
from kgw.api.gateway.http_route import HTTPRouteSpec, PathMatch, RouteMatch, Rule, Timeouts
from kgw.api.kgateway.http_settings import HTTPSettings
from kgw.api.kgateway.listener_policy import ListenerConfig
from kgw.api.kinds import HOMES, KINDS

if TYPE_CHECKING:
    from kgw.api.base import Model


def test_each_kind_is_the_one_that_its_model_says() -> None:
    assert set(KINDS) == {(model.group, model.__name__) for model in KINDS.values()}
    assert len(KINDS) == len(HOMES)


@pytest.mark.parametrize("kind", sorted(HOMES))
def test_every_kind_is_a_name_of_the_package(kind: str) -> None:
    model = getattr(api, kind)
    assert model.__name__ == kind
    assert getattr(loaded, kind) is model


def test_an_unknown_name_is_no_kind() -> None:
    assert ("", "Gateway") not in KINDS
    with pytest.raises(AttributeError, match="Gatewai"):
        api.Gatewai  # type: ignore[attr-defined]  # noqa: B018 - that it fails is the point
    with pytest.raises(AttributeError, match="Gatewai"):
        loaded.Gatewai  # type: ignore[attr-defined]  # noqa: B018 - the same


def test_of_a_kind_whose_model_was_not_imported_there_is_no_object() -> None:
    program = """
import sys
from kgw.api import loaded
assert not isinstance(object(), loaded.Secret)
assert ("", "Secret") in __import__("kgw.api").api.KINDS
assert "kgw.api.core.secret" not in sys.modules
from kgw.api import Secret
assert loaded.Secret is Secret
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize(
    "model",
    [
        AllowedRoutes,
        HTTPRouteSpec,
        HTTPSettings,
        ListenerConfig,
        PathMatch,
        RouteMatch,
        RouteNamespaces,
        Rule,
        Timeouts,
    ],
)
def test_what_is_left_out_is_as_good_as_given_empty(model: type[Model]) -> None:
    """Defaults are made without a validator, which nothing may depend on."""
    made = model.model_construct()
    assert made == model.model_validate({})
    assert made.model_dump() == model.model_validate({}).model_dump()
