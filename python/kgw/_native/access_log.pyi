"""Access log formats: Envoy's operators in JSON or text, compiled by the engine."""

from typing import Literal

__all__ = ["check", "operators", "render_example"]

def check(kind: Literal["json", "text"], value: str) -> str | None:
    """What is wrong with a format, or None if it compiles.

    An operator that does not exist is named, with the one that is spelled most like it.

    Args:
        kind: whether ``value`` is a JSON format or a text format.
        value: the text format, or the JSON format *as JSON text* (``json.dumps`` of the object).

    Raises:
        ValueError: ``kind`` is neither ``"json"`` nor ``"text"``.
    """

def render_example(kind: Literal["json", "text"], value: str) -> str:
    """The line that a format prints for a sample request, its line feed included.

    The request is the fourth within a minute, which a rate limit of three refuses.

    Args:
        kind: as in ``check``.
        value: as in ``check``.

    Raises:
        ConfigError: the format does not compile.
        ValueError: ``kind`` is neither ``"json"`` nor ``"text"``.
    """

def operators() -> list[str]:
    """The names of the operators that formats may use, sorted."""
