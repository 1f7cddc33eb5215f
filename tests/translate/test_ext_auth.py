"""Services that decide about requests, several of them at one place."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from kgw.api import GatewayExtension
from kgw.api.kgateway.traffic.ext_auth import ExtAuthPolicy
from kgw.attach.extensions import ExtensionState
from kgw.translate.policies import ext_auth


def provider(name: str, weight: int = 0) -> ExtensionState:
    """A GatewayExtension."""
    service = {"backendRef": {"name": name, "port": 80}}
    extension = GatewayExtension.model_validate(
        {
            "apiVersion": "gateway.kgateway.dev/v1alpha1",
            "kind": "GatewayExtension",
            "metadata": {
                "name": name,
                "namespace": "default",
                "annotations": {"kgateway.dev/policy-weight": str(weight)},
            },
            "spec": {"extAuth": {"httpService": service}},
        }
    )
    return ExtensionState(extension)


@dataclass
class Context:
    """Where the filters are made: each service is a cluster of its name."""

    states: dict[str, ExtensionState]

    def extension(self, _setting: Any, name: str, _namespace: str | None = None) -> ExtensionState:
        return self.states[name]

    def cluster(self, backend: Any, *, http2: bool = False) -> str:
        assert not http2
        return str(backend)


def setting(**policy: Any) -> Any:
    """A policy's word."""
    return SimpleNamespace(value=ExtAuthPolicy.model_validate(policy))


def made(states: list[ExtensionState], *settings: Any) -> list[dict[str, Any]]:
    """The filters of settings, the strongest first."""
    for state in states:
        http = state.extension.spec.ext_auth
        assert http is not None
        assert http.http_service is not None
        state._backends[id(http.http_service.backend_ref)] = state.extension.name  # type: ignore[assignment]  # all that is asked of it
    context: Any = Context({state.extension.name: state for state in states})
    return ext_auth.filters(settings, context)


def test_they_are_asked_by_their_weights_and_names() -> None:
    states = [provider("a"), provider("b", 5), provider("c"), provider("d", -1)]
    settings = [setting(extensionRef={"name": name}) for name in "dcab"]
    assert [one["cluster"] for one in made(states, *settings)] == ["b", "a", "c", "d"]


def test_one_that_several_policies_have_is_asked_once_as_the_strongest_says() -> None:
    strong = setting(extensionRef={"name": "a"}, withRequestBody={"maxRequestBytes": 1})
    weak = setting(extensionRef={"name": "a"}, withRequestBody={"maxRequestBytes": 2})
    (only,) = made([provider("a")], strong, weak)
    assert only["body"]["max_bytes"] == 1


def test_one_policy_turns_them_all_off() -> None:
    states = [provider("a")]
    assert made(states, setting(extensionRef={"name": "a"}), setting(disable={})) == []
