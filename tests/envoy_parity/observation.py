"""What was observed in a case, made comparable: volatile values masked, all under flat names.

Names are paths: ``response.0.status``, ``response.0.field.retry-after``, ``upstream.0.line``,
``log.0.details``, ``end``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .scenario import TEXT_MARK, TEXT_SEPARATOR

if TYPE_CHECKING:
    from .exchange import Response
    from .upstream import Record

Observation = dict[str, Any]
Names = dict[str, list[str]]

UUID = re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
DATE = re.compile(r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\b")
TIME = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")
ADDRESS = re.compile(r"\b\d+\.\d+\.\d+\.\d+(:\d+)?\b")
LOOPBACK = "127.0.0.1:"
VOLATILE = re.compile(r"TIME|DURATION|RTT|_ID%|_IDS_|PORT%|WIRE_BYTES|HEADERS?_BYTES")
VOLATILE_FIELDS = {"x-envoy-upstream-service-time"}


def observe(
    responses: list[Response],
    ends: list[str],
    rest: str,
    upstream: list[Record],
    log: list[Any],
    masks: dict[str, str],
) -> Observation:
    """The observation, with the addresses in ``masks`` replaced by their names."""
    found: Observation = {
        "end": ",".join(ends),
        "rest": rest,
        "response.count": len(responses),
        "upstream.count": len(upstream),
        "log.count": len(log),
    }
    for index, response in enumerate(responses):
        fields = response.pop("fields")
        _add(found, f"response.{index}", response, fields)
    # A copy of a request may come to its mirror first.
    for index, record in enumerate(sorted(upstream, key=lambda one: str(one.get("upstream")))):
        pairs = [line.partition(":") for line in record.pop("fields")]
        _add(found, f"upstream.{index}", record, [(name, value) for name, _, value in pairs])
    for index, line in enumerate(log):
        for key, value in line.items():
            found[f"log.{index}.{key}"] = _mask_operator(key, value)
    return {name: _mask(value, masks) for name, value in found.items()}


def log_line(line: str | dict[str, Any], operators: list[str]) -> dict[str, Any]:
    """A log line as a mapping; a line of text is cut into the values of ``operators``."""
    if isinstance(line, dict):
        return line
    values = line.removeprefix(TEXT_MARK).split(TEXT_SEPARATOR)
    return {f"text {key}": value for key, value in zip(operators, values, strict=True)}


def differences(envoy: Observation, kgw: Observation) -> dict[str, tuple[Any, Any]]:
    """What differs: its name, and both values. Spelling is compared where both have a field."""
    found = {}
    for name in sorted(envoy.keys() | kgw.keys()):
        ours, theirs = kgw.get(name), envoy.get(name)
        if name.endswith(".names"):
            theirs, ours = _spelled_differently(theirs or {}, ours or {})
        if ours != theirs:
            found[name] = (theirs, ours)
    return found


def _spelled_differently(first: Names, second: Names) -> tuple[Names, Names]:
    other = [name for name in sorted(first.keys() & second.keys()) if first[name] != second[name]]
    return {name: first[name] for name in other}, {name: second[name] for name in other}


def _add(
    found: Observation, prefix: str, values: dict[str, Any], fields: list[tuple[str, str]]
) -> None:
    found |= {f"{prefix}.{key}": value for key, value in values.items()}
    names: Names = {}
    for name, value in fields:
        key = name.lower()
        names.setdefault(key, []).append(name)
        value = "<number>" if key in VOLATILE_FIELDS and value.strip().isdigit() else value.strip()
        found.setdefault(f"{prefix}.field.{key}", []).append(value)
    found[f"{prefix}.names"] = names


def _mask_operator(key: str, value: Any) -> Any:
    if VOLATILE.search(key) and value not in (None, "-"):
        return f"<{type(value).__name__}>"
    return value


def _mask(value: Any, masks: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_mask(it, masks) for it in value]
    if not isinstance(value, str):
        return value
    value = UUID.sub("<uuid>", value)
    value = DATE.sub("<date>", value)
    value = TIME.sub("<time>", value)

    def name(address: re.Match[str]) -> str:
        other = f"{LOOPBACK}<port>" if address[0].startswith(LOOPBACK) else address[0]
        return masks.get(address[0], other)

    return ADDRESS.sub(name, value)
