"""A gateway inside a unit test: fake backends, a clock in the test's hand, and the access log.

    def test_the_fourth_call_is_limited(kgw_proxy):
        gateway = kgw_proxy("manifests/")
        for _ in range(3):
            gateway.get("http://ollama/").expect(status=200, backend="ollama")
        gateway.get("http://ollama/").expect(status=429, flags="RL", backend=None)
        gateway.clock.advance(60)
        assert gateway.get("http://ollama/").status == 200

``kgw_proxy`` is a pytest fixture that is there wherever kgw is installed. Without pytest, use
`Gateway` with ``with``. `docs/testing.md` has a tutorial.

Names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kgw.testing.answer import ANY as ANY
    from kgw.testing.answer import Answer as Answer
    from kgw.testing.answer import NoAnswer as NoAnswer
    from kgw.testing.backends import Backend as Backend
    from kgw.testing.backends import Received as Received
    from kgw.testing.backends import Reply as Reply
    from kgw.testing.clock import Clock as Clock
    from kgw.testing.configuration import Configuration as Configuration
    from kgw.testing.gateway import Gateway as Gateway
    from kgw.testing.gateway import GatewayFactory as GatewayFactory
    from kgw.testing.gateway import Options as Options
    from kgw.testing.gateway import Pending as Pending
    from kgw.testing.headers import Headers as Headers

__all__ = [
    "ANY",
    "Answer",
    "Backend",
    "Clock",
    "Configuration",
    "Gateway",
    "GatewayFactory",
    "Headers",
    "NoAnswer",
    "Options",
    "Pending",
    "Received",
    "Reply",
]

_HOMES = {
    "ANY": "kgw.testing.answer",
    "Answer": "kgw.testing.answer",
    "Backend": "kgw.testing.backends",
    "Clock": "kgw.testing.clock",
    "Configuration": "kgw.testing.configuration",
    "Gateway": "kgw.testing.gateway",
    "GatewayFactory": "kgw.testing.gateway",
    "Headers": "kgw.testing.headers",
    "NoAnswer": "kgw.testing.answer",
    "Options": "kgw.testing.gateway",
    "Pending": "kgw.testing.gateway",
    "Received": "kgw.testing.backends",
    "Reply": "kgw.testing.backends",
}


if not TYPE_CHECKING:  # for a type checker, every name would exist

    def __getattr__(name: str) -> Any:
        """Imports a public name on its first use (PEP 562)."""
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'kgw.testing' has no attribute {name!r}")
        value = getattr(importlib.import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Returns the public names, imported or not."""
    return sorted({*globals(), *__all__})
