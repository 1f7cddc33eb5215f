"""Templates that can be rendered, for parts of messages that they can change."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from kgw._native import template
from kgw.api.names import RESERVED_FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgw.api.kgateway.traffic.transformation import Transform, Transformation
    from kgw.attach.checking import Checking
    from kgw.source.memory import FieldPath

_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+")

#: What templates may change of a message beside its fields.
_PSEUDO: Final = {
    "request": frozenset({":authority", ":method", ":path", "host"}),
    "response": frozenset({":status"}),
}


def check(checking: Checking, value: Transformation, path: FieldPath) -> None:
    """Refuses templates that can never be rendered: kgateway refuses those that it cannot parse."""
    for direction in ("request", "response"):
        transform: Transform | None = getattr(value, direction)
        if transform is not None:
            here = (*path, direction)
            for name, place in _names(transform, here):
                _check_name(checking, direction, name, place)
            _check_templates(checking, transform, here)


def _names(transform: Transform, path: FieldPath) -> Iterator[tuple[str, FieldPath]]:
    for what in ("set", "add"):
        for i, field in enumerate(getattr(transform, what)):
            yield field.name, (*path, what, i, "name")
    for i, name in enumerate(transform.remove):
        yield name, (*path, "remove", i)


def _check_name(checking: Checking, direction: str, name: str, path: FieldPath) -> None:
    lower = name.lower()
    if lower in _PSEUDO[direction]:
        return
    if lower.startswith(":"):
        legal = ", ".join(sorted(_PSEUDO[direction]))
        message = f"{name} of a {direction} cannot be changed by a template"
        checking.fail("KGW407", message, path, legal=legal)
    elif lower in RESERVED_FIELDS:
        checking.fail("KGW407", f"header field {name} cannot be changed by a template", path)
    elif not _TOKEN.fullmatch(name):
        checking.fail("KGW407", f"{name!r} is not a header field name", path)


def _check_templates(checking: Checking, transform: Transform, path: FieldPath) -> None:
    body = transform.body
    is_json = body is not None and body.parse_as == "AsJson"
    for text, place, sees_body in _templates(transform, path):
        problem = template.check(text)
        if problem is not None:
            checking.fail("KGW460", f"the template cannot be used: {problem}", place)
            continue
        variables = template.variables(text)
        if variables and sees_body and not is_json:
            message = (
                f"`{'`, `'.join(variables)}` would be of a JSON body, and the body is not parsed "
                "as JSON: messages are answered 400"
            )
            hint = "set `body.parseAs` to `AsJson`"
            checking.warn("KGW461", message, place, hint=hint)
    if body is not None and body.value and body.parse_as == "None":
        message = "the template of the body is not used: `parseAs` is None"
        checking.warn("KGW461", message, (*path, "body", "value"))


def _templates(transform: Transform, path: FieldPath) -> Iterator[tuple[str, FieldPath, bool]]:
    """All templates, their places, and whether what they cannot know makes a 400."""
    for what in ("set", "add"):
        for i, field in enumerate(getattr(transform, what)):
            yield field.value, (*path, what, i, "value"), True
    for i, noted in enumerate(transform.dynamic_metadata):
        place = (*path, "dynamicMetadata", i, "value", "stringValue")
        yield noted.value.string_value or "", place, True
    body = transform.body
    if body is not None:
        yield body.value, (*path, "body", "value"), body.parse_as != "None"
        if body.kgw is not None and body.kgw.stream is not None:
            yield body.kgw.stream.value, (*path, "body", "kgw", "stream", "value"), False
