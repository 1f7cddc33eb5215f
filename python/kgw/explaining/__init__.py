"""What becomes of a request, and why, without sending it to anyone.

    config = kgw.load("manifests/")
    print(explain(config, Question.of("GET", "http://shop.example/cart")))

`explain` tells which listener takes a request and which route is used, why the others are not, what
a backend gets or what the proxy answers, and where everything that counts was written. What decides
are the engine and its route tables; nothing is bound, and nobody is connected to.

Names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kgw.explaining.candidates import Candidate as Candidate
    from kgw.explaining.candidates import Unattached as Unattached
    from kgw.explaining.explanation import Answer as Answer
    from kgw.explaining.explanation import Branch as Branch
    from kgw.explaining.explanation import Explanation as Explanation
    from kgw.explaining.explanation import Sent as Sent
    from kgw.explaining.explanation import explain as explain
    from kgw.explaining.origins import Setting as Setting
    from kgw.explaining.question import Question as Question
    from kgw.explaining.taking import Considered as Considered

__all__ = [
    "Answer",
    "Branch",
    "Candidate",
    "Considered",
    "Explanation",
    "Question",
    "Sent",
    "Setting",
    "Unattached",
    "explain",
]

_HOMES = {
    "Answer": "kgw.explaining.explanation",
    "Branch": "kgw.explaining.explanation",
    "Candidate": "kgw.explaining.candidates",
    "Considered": "kgw.explaining.taking",
    "Explanation": "kgw.explaining.explanation",
    "Question": "kgw.explaining.question",
    "Sent": "kgw.explaining.explanation",
    "Setting": "kgw.explaining.origins",
    "Unattached": "kgw.explaining.candidates",
    "explain": "kgw.explaining.explanation",
}


if not TYPE_CHECKING:  # for a type checker, every name would exist

    def __getattr__(name: str) -> Any:
        """Imports a public name on its first use (PEP 562)."""
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'kgw.explaining' has no attribute {name!r}")
        value = getattr(importlib.import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Returns the public names, imported or not."""
    return sorted({*globals(), *__all__})
