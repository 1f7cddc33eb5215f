"""GatewayClass: which controller runs the Gateways of a class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from kgw.api.base import Model
from kgw.api.kinds import GATEWAY_GROUP
from kgw.api.meta import ObjectMeta, Resource
from kgw.api.names import ControllerName

if TYPE_CHECKING:
    from collections.abc import Mapping


class GatewayClassSpec(Model):
    """What a class says."""

    ignored: ClassVar[frozenset[str]] = frozenset({"parametersRef"})

    controller_name: ControllerName
    """The controller that runs the Gateways; kgw is ``kgateway.dev/kgateway``."""
    description: Annotated[str, Field(max_length=64)] | None = None
    """A note for people."""
    parameters_ref: Any = None
    """An object with parameters for the controller; kgw does not read it."""


class GatewayClass(Resource):
    """A class of Gateways."""

    group: ClassVar[str] = GATEWAY_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1", "v1beta1")
    namespaced: ClassVar[bool] = False

    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: Literal["GatewayClass"] = "GatewayClass"
    spec: GatewayClassSpec
    """Who runs the Gateways of the class."""

    @classmethod
    def of(
        cls,
        name: str,
        controller: str = "kgateway.dev/kgateway",
        *,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Self:
        """Makes a class of Gateways that a controller runs."""
        return cls(
            metadata=ObjectMeta.of(name, None, labels, annotations),
            spec=GatewayClassSpec(controller_name=controller),
        )
