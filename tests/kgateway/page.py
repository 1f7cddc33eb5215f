"""Writes docs/kgateway-compatibility.md: every field of kgateway's kinds, and the tests about it.

python -m tests.kgateway.page
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Final

from tests.kgateway.fields import TESTS, among, canonical, claims, exceptions, since

PAGE: Final = TESTS.parent / "docs" / "kgateway-compatibility.md"

_HEAD: Final = """# Compatibility with kgateway

Written by `make compatibility`; do not edit.

This is every field of kgateway's policies, up to what follows version 2.4, and what kgw makes of
it. A field that *works* names the tests that are about it; they are checked to have used it. One
that is *not yet* there is a finding of `kgw check`, `KGW501`, and an unknown one is, too: nothing
is left out in silence. What earlier versions had is in [migrate.md](migrate.md). The definitions
of the kinds for a cluster are in `deploy/crds`: types, bounds and defaults. Rules between fields
are kgw's own to check, which says in the status of a resource what an API server would refuse.

The fields of `HTTPListenerPolicy.spec` are those of `ListenerPolicy.spec.default.httpSettings`, and
so are those of `perPort`; they are the same code.
"""

_OUTSIDE: Final = """
## What has no meaning here

| field | why |
|---|---|
"""


def state(field: str) -> tuple[str, str]:
    """What becomes of a field, in a word, and more about it."""
    same = canonical(field)
    lists = exceptions()
    if among(same, lists["outside"]):
        return "outside", "see below"
    if among(same, lists["not_yet"]):
        return "not yet", ""
    if same != field:
        return "works", f"as `{same}`"
    tests = sorted({one.module for one in claims() if one.covers(same)})
    shown = ", ".join(f"`{one.removeprefix('tests/')}`" for one in tests)
    return "works", shown or "not shown by a test of its own"


def page() -> str:
    """The page."""
    fields: dict[str, list[str]] = {}
    for one in since():
        fields.setdefault(one.partition(".")[0], []).append(one)
    text = [_HEAD, "\n| kind | fields | work | not yet | outside |\n|---|---|---|---|---|\n"]
    for kind, several in fields.items():
        count = Counter(state(one)[0] for one in several)
        row = (kind, len(several), count["works"], count["not yet"], count["outside"])
        text.append(f"| {' | '.join(map(str, row))} |\n")
    for kind, several in fields.items():
        text.append(f"\n## {kind}\n\n| field | since | | tests |\n|---|---|---|---|\n")
        for one in several:
            word, more = state(one)
            name = one.removeprefix(f"{kind}.")
            text.append(f"| `{name}` | {since()[one]} | {word} | {more} |\n")
    text.append(_OUTSIDE)
    text += [f"| `{field}` | {why} |\n" for field, why in exceptions()["outside"].items()]
    return "".join(text)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}: {len(since())} fields\n")
