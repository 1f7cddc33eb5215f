"""Resources to the intermediate representation (`docs/ir.md`) that the engine compiles."""

from __future__ import annotations

from kgw.attach.options import PolicyOptions
from kgw.translate.options import Options
from kgw.translate.pool import AddressPool
from kgw.translate.translation import VERSION, Translation
from kgw.translate.translator import Translator, translate

__all__ = [
    "VERSION",
    "AddressPool",
    "Options",
    "PolicyOptions",
    "Translation",
    "Translator",
    "translate",
]
