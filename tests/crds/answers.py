"""Answers as an API server would whether it takes an object: JSON lines in and out.

A line is ``{"operation": "create", "object": {...}, "before": {...}}``, and the answer a list of
what is wrong, in the words of an API server. An object that the models of kgw refuse and its
definition does not is refused as well, so that what is too strict shows.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from kgw._native import schema
from kgw.api import parse
from kgw.diagnostics import Severity
from kgw.source import RawObject


def answer(
    operation: str, value: dict[str, Any], before: dict[str, Any] | None, *, standard: bool
) -> list[str]:
    """What is wrong with an object that is created or changed, or whose status is."""
    group, _, version = value["apiVersion"].rpartition("/")
    wrong = schema.validate(
        group,
        value["kind"],
        version,
        value,
        None if operation == "create" else before,
        standard=standard,
        status=operation == "status",
    )
    if wrong is None:
        return [f"no matches for kind {value['kind']!r} in version {value['apiVersion']!r}"]
    # What an API server would drop is no reason to refuse.
    texts = [str(one) for one in wrong if one.kind not in {"unknown", "channel"}]
    if operation == "status":
        # What is in the body of a status begins with the status itself.
        texts = [one.replace(": status.", ": ") for one in texts]
    if operation == "create" and not texts:
        _, found = parse(RawObject(value))
        texts = [
            str(one)
            for one in found
            if one.severity is Severity.ERROR and one.code.startswith("KGW2")
        ]
    return texts


def main() -> None:
    """Answers line after line."""
    standard = sys.argv[1:] == ["standard"]
    for line in sys.stdin:
        question = json.loads(line)
        texts = answer(
            question["operation"], question["object"], question.get("before"), standard=standard
        )
        print(json.dumps(texts), flush=True)


if __name__ == "__main__":
    main()
