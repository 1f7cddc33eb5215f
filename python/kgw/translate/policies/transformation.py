"""Transformations: what templates make of requests and responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kgw.api.kgateway.traffic.transformation import BodyTemplate, Transform
    from kgw.attach.effective import Setting
    from kgw.translate.policies.context import PolicyContext

_PARSE_AS: Final = {"AsString": "string", "AsJson": "json", "None": "none"}
_FRAMINGS: Final = {"SSE": "server_sent", "JsonLines": "json_lines"}


def filters(settings: tuple[Setting, ...], context: PolicyContext) -> list[dict[str, Any]]:
    """The filter of all settings that count; none if they come to nothing."""
    buffer = context.effective.value("buffer")
    longest = None if buffer is None else buffer.max_request_size
    found: dict[str, Any] = {}
    for direction in ("request", "response"):
        transforms = [getattr(setting.value, direction) for setting in settings]
        transforms = [transform for transform in transforms if transform is not None]
        if transforms:
            found[direction] = _merged(transforms, longest if direction == "request" else None)
    return [{"type": "transformation", **found}] if found else []


def _merged(transforms: Sequence[Transform], longest: int | None) -> dict[str, Any]:
    """One transformation: what is a list is appended, and the last body counts, as in kgateway."""
    bodies = [transform.body for transform in transforms if transform.body is not None]
    return {
        "set": [[field.name, field.value] for one in transforms for field in one.set],
        "add": [[field.name, field.value] for one in transforms for field in one.add],
        "remove": [name for one in transforms for name in one.remove],
        "metadata": [
            [noted.namespace, noted.key, noted.value.string_value]
            for one in transforms
            for noted in one.dynamic_metadata
        ],
        **({} if longest is None else {"max_body_bytes": int(longest)}),
        **(_body(bodies[-1]) if bodies else {}),
    }


def _body(body: BodyTemplate) -> dict[str, Any]:
    found: dict[str, Any] = {"parse_as": _PARSE_AS[body.parse_as]}
    if body.value:
        found["body"] = body.value
    if body.kgw is not None:
        stream = body.kgw.stream
        if stream is not None:
            found["stream"] = {
                "framing": _FRAMINGS[stream.framing],
                "value": stream.value,
                "max_event_bytes": int(stream.max_event_bytes),
            }
        if body.kgw.max_bytes is not None:
            found["max_body_bytes"] = int(body.kgw.max_bytes)
    return found
