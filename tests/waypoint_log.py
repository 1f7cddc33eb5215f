"""The access log format of `examples/waypoint`, for tests that write or read such lines."""

from __future__ import annotations

from pathlib import Path

from kgw._native import manifest

_POLICY = Path(__file__).parents[1] / "examples" / "waypoint" / "httplistenerpolicy-accesslog.yaml"


def _formats() -> list[dict[str, str]]:
    documents, _ = manifest.parse(_POLICY.read_bytes())
    logs = [log for document in documents for log in document.value["spec"]["accessLog"]]
    return [log["fileSink"]["jsonFormat"] for log in logs]


(TEN_KEYS,) = _formats()
"""What the scenario logs of a request: its ten keys, and the operator behind each."""
