"""docs/models.md says what is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from kgw import api

TEXT = (Path(__file__).parents[2] / "docs" / "models.md").read_text()


def test_every_name_is_there() -> None:
    named = set(re.findall(r"\b([A-Z]\w+)\.([a-z_]\w*)\(", TEXT)) - {("Config", "from_objects")}
    named.discard(("kgw", "Proxy"))
    made = {(owner, name) for owner, name in named if owner in api.__all__}
    assert named == made
    assert all(callable(getattr(getattr(api, owner), name)) for owner, name in made)
    assert len(made) > 25


def test_the_first_program_makes_a_configuration_without_findings() -> None:
    program = TEXT.partition("```python\n")[2].partition("\nasync with")[0]
    names: dict[str, object] = {}
    exec(compile(ast.parse(program), "docs/models.md", "exec"), names)  # it is our own text
    import kgw

    made = [names[one] for one in ("gateway", "route", "users", "limit", "log")]
    endpoints = names["endpoints"]
    assert isinstance(endpoints, list)
    objects = [one for one in (*made, *endpoints) if isinstance(one, api.Resource)]
    assert len(objects) == 7
    assert {one.code for one in kgw.Config.from_objects(objects).findings} <= {"KGW601"}
