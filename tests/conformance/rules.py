"""Rules of routes as data."""

from __future__ import annotations

import json
from typing import Any


def backend(name: str = "infra-backend-v1", port: int = 8080, **more: Any) -> dict[str, Any]:
    """A backendRef."""
    return {"name": name, "port": port, **more}


def rule(
    path: str | None = None,
    *filters: dict[str, Any],
    to: dict[str, Any] | list[dict[str, Any]] | None = None,
    exact: bool = False,
) -> dict[str, Any]:
    """A rule for the paths below one, or for all; without backends if `to` is an empty list."""
    found: dict[str, Any] = {}
    if path is not None:
        kind = "Exact" if exact else "PathPrefix"
        found["matches"] = [{"path": {"type": kind, "value": path}}]
    if filters:
        found["filters"] = list(filters)
    refs = [backend()] if to is None else to
    found["backendRefs"] = refs if isinstance(refs, list) else [refs]
    return found


def request_headers(**changes: Any) -> dict[str, Any]:
    """A RequestHeaderModifier: ``set`` and ``add`` by name, names to ``remove``."""
    return {"type": "RequestHeaderModifier", "requestHeaderModifier": _modifier(changes)}


def response_headers(**changes: Any) -> dict[str, Any]:
    """A ResponseHeaderModifier: ``set`` and ``add`` by name, names to ``remove``."""
    return {"type": "ResponseHeaderModifier", "responseHeaderModifier": _modifier(changes)}


def mirror(to: str, **share: Any) -> dict[str, Any]:
    """A RequestMirror."""
    ref = backend(to, namespace="gateway-conformance-infra")
    return {"type": "RequestMirror", "requestMirror": {"backendRef": ref, **share}}


def redirect(**fields: Any) -> dict[str, Any]:
    """A RequestRedirect; ``full`` or ``prefix`` is its new path."""
    return {"type": "RequestRedirect", "requestRedirect": _located(fields)}


def rewrite(**fields: Any) -> dict[str, Any]:
    """A URLRewrite; ``full`` or ``prefix`` is its new path."""
    return {"type": "URLRewrite", "urlRewrite": _located(fields)}


def text(*rules: dict[str, Any]) -> str:
    """Rules as YAML."""
    return "\n".join(f"- {json.dumps(one)}" for one in rules)


def _modifier(changes: dict[str, Any]) -> dict[str, Any]:
    return {
        how: [{"name": name, "value": value} for name, value in what.items()]
        if isinstance(what, dict)
        else what
        for how, what in changes.items()
    }


def _located(fields: dict[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in fields.items() if name not in ("full", "prefix")}
    if "full" in fields:
        found["path"] = {"type": "ReplaceFullPath", "replaceFullPath": fields["full"]}
    if "prefix" in fields:
        found["path"] = {"type": "ReplacePrefixMatch", "replacePrefixMatch": fields["prefix"]}
    return found
