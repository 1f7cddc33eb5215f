"""The fields of kgateway's kinds: which there are, which kgw accepts, which tests are about them.

A field is written with its kind and without brackets of lists: ``TrafficPolicy.spec.cors.maxAge``.
"""

from __future__ import annotations

import ast
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import yaml

from kgw import api
from kgw.api import Opaque
from kgw.api.base import Model, shape
from kgw.api.kinds import KGATEWAY_GROUP, KINDS
from kgw.diagnostics import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kgw.api.meta import Resource
    from kgw.diagnostics import Finding
    from kgw.source.memory import RawObject

TESTS: Final = Path(__file__).parents[1]
_DATA: Final = TESTS / "data"

SAME: Final = {
    "HTTPListenerPolicy.spec.": "ListenerPolicy.spec.default.httpSettings.",
    "ListenerPolicy.spec.perPort.listener.": "ListenerPolicy.spec.default.",
}
"""What has the same model as something else, and is handled by the same code: tests of one are
tests of the other. `test_fields` makes sure of the models."""


@cache
def since() -> dict[str, str]:
    """Every field of kgateway's kinds, and the first version that has it."""
    kinds = yaml.safe_load((_DATA / "kgateway_fields.yaml").read_text(encoding="utf-8"))
    return {f"{kind}.{path}": one for kind, fields in kinds.items() for path, one in fields.items()}


@cache
def exceptions() -> dict[str, Any]:
    """The fields without tests, and why: those that cannot be, and those that are not yet."""
    text = (_DATA / "kgateway_exceptions.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def within(field: str, prefix: str) -> bool:
    """Whether a field is another, or a part of it."""
    return field == prefix or field.startswith(f"{prefix}.")


def among(field: str, prefixes: Iterable[str]) -> bool:
    """Whether a field is one of others, or a part of one."""
    return any(within(field, one) for one in prefixes)


def canonical(field: str) -> str:
    """The field that stands for all that are the same."""
    for prefix, other in SAME.items():
        rest = field.removeprefix(prefix)
        if rest != field and not rest.startswith("target"):
            return other + rest
    return field


def accepts(field: str) -> bool:
    """Whether kgw knows a field and acts on it."""
    kind, *names = field.split(".")
    model: type[Model] | None = KINDS[KGATEWAY_GROUP, kind]
    for name in names:
        if model is None:
            return True  # a part of a value without a model of its own
        if name in model.unsupported or name not in shape(model):
            return False
        model = shape(model)[name]
    return True


class Claim(NamedTuple):
    """What a module of tests says it is about: ``pytestmark = pytest.mark.fields(...)``."""

    module: str
    """The file, from the root of the repository."""
    fields: tuple[str, ...]
    """The fields, each with all its parts."""
    without: tuple[str, ...]
    """Parts of them that it is not about."""

    def covers(self, field: str) -> bool:
        """Whether the claim has a field; of a part and its whole the part counts."""
        most = [
            max((len(one) for one in several if within(field, one)), default=0)
            for several in (self.fields, self.without)
        ]
        return most[0] > most[1]

    @property
    def every(self) -> set[str]:
        """The known fields that the claim has."""
        return {one for one in since() if self.covers(one)}


@cache
def claims() -> tuple[Claim, ...]:
    """The claims of all modules, read from their text: no test has to run for it."""
    found = []
    for file in sorted(TESTS.rglob("test_*.py")):
        text = file.read_text(encoding="utf-8")
        if "mark.fields(" not in text:
            continue
        for node in ast.parse(text).body:
            if not (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"):
                continue
            marks = node.value.elts if isinstance(node.value, ast.List) else [node.value]
            found += [
                claim(str(file.relative_to(TESTS.parent)), one)
                for one in marks
                if isinstance(one, ast.Call) and ast.unparse(one.func) == "pytest.mark.fields"
            ]
    return tuple(found)


def claim(module: str, mark: ast.Call) -> Claim:
    """The claim that a mark makes; its arguments are plain texts."""
    more = {one.arg: ast.literal_eval(one.value) for one in mark.keywords}
    fields = tuple(ast.literal_eval(one) for one in mark.args)
    return Claim(module, fields, tuple(more.get("without", ())))


def used(value: Any, path: str) -> Iterator[str]:
    """The fields that a value has, lists without brackets."""
    yield path
    if isinstance(value, dict):
        for name, item in value.items():
            yield from used(item, f"{path}.{name}")
    elif isinstance(value, list):
        for item in value:
            yield from used(item, path)


@contextmanager
def recorded() -> Iterator[set[str]]:
    """Notes the fields of all policies that are read and are valid, while it is entered."""
    seen: set[str] = set()
    parse = api.parse
    # The package has the function under the name of the module that it is from.
    places: tuple[Any, ...] = (api, import_module("kgw.api.parse"))

    def recording(raw: RawObject) -> tuple[Resource | None, list[Finding]]:
        resource, findings = parse(raw)
        valid = resource is not None and not isinstance(resource, Opaque)
        if valid and raw.group == KGATEWAY_GROUP:
            refused = {one.path for one in findings if one.severity is Severity.ERROR}
            if not refused:
                seen.update(used({"spec": raw.object.get("spec")}, raw.kind))
        return resource, findings

    for place in places:
        place.parse = recording
    try:
        yield seen
    finally:
        for place in places:
            place.parse = parse
