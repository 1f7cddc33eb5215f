"""GatewayClass: which controller runs the Gateways of a class."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from kgw.api.base import Model
from kgw.api.kinds import GATEWAY_GROUP
from kgw.api.meta import Resource
from kgw.api.names import ControllerName


class GatewayClassSpec(Model):
    """What a class says."""

    ignored = frozenset({"parametersRef"})

    controller_name: ControllerName
    description: Annotated[str, Field(max_length=64)] | None = None
    parameters_ref: Any = None


class GatewayClass(Resource):
    """A class of Gateways."""

    group: ClassVar[str] = GATEWAY_GROUP
    versions: ClassVar[tuple[str, ...]] = ("v1", "v1beta1")
    namespaced: ClassVar[bool] = False

    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: Literal["GatewayClass"] = "GatewayClass"
    spec: GatewayClassSpec
