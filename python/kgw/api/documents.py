"""Resources to and from the text of manifests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgw.api.parse import parse_all

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kgw.api.meta import Resource

__all__ = ["dumps", "loads"]


def dumps(resources: Iterable[Resource], *, secrets: bool = False) -> str:
    """Returns resources as YAML, one document each; see `Resource.to_dict`.

    Raises:
        ValueError: one is of a kind that has no value that may be shown, without *secrets*.
    """
    from kgw.api.yaml import documents

    return documents(one.to_dict(secrets=secrets) for one in resources)


def loads(text: str | bytes, *, name: str = "<text>") -> list[Resource]:
    """Returns the resources of a text: YAML documents, or JSON.

    What is wrong but no error is in their `findings`. Unknown kinds are there as `Opaque`; of
    several definitions of one object the last is used.

    Args:
        text: the manifests.
        name: what errors call the text.

    Raises:
        ConfigError: with everything that is wrong, if there is an error.
    """
    from kgw import diagnostics
    from kgw.errors import ConfigError
    from kgw.source.files import parse_text

    objects, found = parse_text(text, name)
    parsed = parse_all(objects)
    every = diagnostics.sort([*found, *parsed.findings])
    errors = [one for one in every if one.severity is diagnostics.Severity.ERROR]
    if errors:
        first = errors[0]
        raise ConfigError(
            diagnostics.render_all(errors),
            resource=first.resource,
            path=first.field or None,
            code=first.code,
        )
    return list(parsed.resources)
