"""Networks in the notation of RFC 4632: ``10.0.0.0/8``, ``fd00::/8``."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError


def _parse(value: Any) -> str:
    try:
        if isinstance(value, str) and "/" in value:
            return str(ip_network(value, strict=False))
    except ValueError:
        pass
    raise PydanticCustomError(
        "cidr",
        "{value} is not a network",
        {"value": repr(value), "legal": "an address and a prefix length, such as 10.0.0.0/8"},
    )


#: A network; bits beyond the prefix are cleared, as Envoy does.
Cidr = Annotated[str, BeforeValidator(_parse)]
