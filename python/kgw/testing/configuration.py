"""What a test may give as a configuration."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from kgw import diagnostics, source
from kgw.api import Resource
from kgw.config import Config
from kgw.errors import ConfigError
from kgw.source import Loaded, RawObject
from kgw.source.memory import last_definitions

if TYPE_CHECKING:
    from kgw.diagnostics import Finding
    from kgw.translate import Options

__all__ = ["Configuration", "configuration", "refuse"]

Part: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | Resource

Configuration: TypeAlias = Config | Part | Iterable[Part]
"""A `Config`; or one or several of: YAML text (anything with a line break in it), the path of a
file or a directory, an object as a mapping, or as a model of `kgw.api`."""


def configuration(given: Configuration, options: Options | None = None) -> Config:
    """Returns a configuration in any of its forms as a `Config`.

    Args:
        given: the configuration.
        options: how Gateways become sockets, and policies count.

    Raises:
        TypeError: it is in none of them, or has models beside text or paths.
        ValueError: it is a `Config`, which has options of its own, and there are *options*.
    """
    if isinstance(given, Config):
        if options is not None:
            raise ValueError("a Config has options of its own")
        return given
    parts = [given] if isinstance(given, str | os.PathLike | Mapping | Resource) else list(given)
    if not any(isinstance(part, str | os.PathLike) for part in parts):
        objects: list[Any] = parts  # there are none of the others
        return Config.from_objects(objects, options=options)
    raws: list[RawObject] = []
    findings: list[Finding] = []
    files: list[str] = []
    texts = 0
    for part in parts:
        if isinstance(part, str) and "\n" in part:
            texts += 1
            found, wrong = source.parse_text(
                part, f"<text {texts}>" if len(parts) > 1 else "<text>"
            )
        elif isinstance(part, str | os.PathLike):
            loaded = source.load(part)
            found, wrong = loaded.objects, loaded.findings
            files += loaded.files
        elif isinstance(part, Mapping):
            loaded = source.from_objects([part])
            found, wrong = loaded.objects, loaded.findings
        else:
            raise TypeError(
                "a configuration has YAML text, paths and mappings, or mappings and models; "
                f"a part of it is {type(part).__name__}"
            )
        raws += found
        findings += wrong
    kept, twice = last_definitions(raws)
    loaded = Loaded(kept, [*findings, *twice], tuple(files))
    return Config.from_loaded(loaded, options=options)


def refuse(errors: Iterable[Finding]) -> None:
    """Raises if there are any errors.

    Raises:
        ConfigError: with all of them as its text.
    """
    found = list(errors)
    if found:
        raise ConfigError(
            f"the configuration has errors:\n{diagnostics.render_all(found)}",
            resource=found[0].resource,
            path=found[0].field or None,
            code=found[0].code,
        )
