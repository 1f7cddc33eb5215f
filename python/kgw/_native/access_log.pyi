"""Access log formats: Envoy's operators in JSON or text, compiled by the engine."""

from typing import Literal, final

__all__ = [
    "Tap",
    "check",
    "check_filter",
    "check_local_replies",
    "operators",
    "render_example",
]

@final
class Tap:
    """Lines of an engine's access log, for a reader in this process: :meth:`Engine.tap` opens one.

    No longer referred to, it is closed.
    """

    @property
    def closed(self) -> bool:
        """Whether no line comes any more, after those that a :meth:`take` from now on returns."""

    @property
    def dropped(self) -> int:
        """How many lines were lost because they did not fit into the buffer."""

    def fileno(self) -> int:
        """Returns a descriptor that is readable while there are lines, and once it is closed."""

    def take(self) -> bytes:
        """Returns the lines that are there, each ending with a line feed; does not wait.

        Raises:
            kgw.errors.NotRunning: this is a forked child.
        """

    def close(self) -> None:
        """Ends it, and wakes whoever waits for the descriptor. Does nothing in a forked child."""

def check(kind: Literal["json", "text"], value: str) -> str | None:
    """What is wrong with a format, or None if it compiles.

    An operator that does not exist is named, with the one that is spelled most like it.

    Args:
        kind: whether ``value`` is a JSON format or a text format.
        value: the text format, or the JSON format *as JSON text* (``json.dumps`` of the object).

    Raises:
        ValueError: ``kind`` is neither ``"json"`` nor ``"text"``.
    """

def check_filter(filter: str) -> str | None:
    """What is wrong with a filter of an access log, or None if it compiles.

    Args:
        filter: the filter, as JSON text of the representation.
    """

def check_local_replies(replies: str) -> str | None:
    """What is wrong with changes to a proxy's own answers, or None if they compile.

    Args:
        replies: the changes, as JSON text of the representation.
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
