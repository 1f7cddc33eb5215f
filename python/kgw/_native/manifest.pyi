"""Manifests: YAML and JSON to plain Python data that knows its places."""

from typing import Any, final

__all__ = ["Document", "Problem", "Text", "parse"]

def parse(data: bytes | str) -> tuple[list[Document], list[Problem]]:
    """Parses a stream of YAML documents, or JSON, the way ``kubectl`` reads it.

    Never raises for what the text contains: documents that are whole come first, in order, and
    beside them everything that is wrong. Documents without content are left out. The text is
    limited to 64 MiB, 100 levels of nesting and 100,000 values behind the aliases of a document.

    Args:
        data: the text; bytes must be UTF-8.
    """

@final
class Text:
    """A text as it was read, and what may be read again of it.

    Documents of which every byte is the same as in the text before, and that nothing is wrong with,
    are the same objects: they are not parsed again. Everything else is as :func:`parse` has it.
    """

    def __new__(cls, data: bytes, before: Text | None = None) -> Text:
        """Reads a text.

        Args:
            data: the text.
            before: the text that it was before.
        """

    @property
    def documents(self) -> list[Document]:
        """The documents that are whole, in order."""

    @property
    def problems(self) -> list[Problem]:
        """Everything that is wrong."""

    @property
    def digest(self) -> bytes:
        """What is equal for equal texts, in one process."""

    def stand(self, number: int) -> tuple[int, int]:
        """Returns where one of `documents` stands, by its position there.

        That is its index in the text, counting empty and broken documents too, and how many lines
        of the text are before the first one that the document counts as its own.

        Raises:
            IndexError: there is no such document.
        """

@final
class Document:
    """One document of a text."""

    @property
    def index(self) -> int:
        """Its index in the text, counting empty and broken documents too; see `Text.stand`."""

    @property
    def sound(self) -> bool:
        """Whether it is an object that is known to be as the definition of its kind wants it.

        Then `kgw._native.schema.metadata` and ``validate`` find nothing in its value. That was
        found out while the text was read, when other threads could run; of a text in which
        something is wrong, it is known of no document.
        """

    @property
    def value(self) -> Any:
        """Its value: dict, list, str, int, float, bool or None; built anew each time.

        Plain scalars resolve as in Kubernetes (YAML 1.1: ``yes`` is True, ``0644`` is 420), keys
        are strings, timestamps stay strings, and every alias is a copy of its own.
        """

    def locate(self, path: tuple[str | int, ...], key: bool = False) -> tuple[int, int, int] | None:
        """Returns ``(line, column, end_column)`` of a node, or None if there is no such node.

        All count from 1; columns are in characters, and a node over several lines ends with its
        first. A block mapping or sequence is shown by the key it stands under.

        Args:
            path: mapping keys and sequence indices from the root.
            key: the place of the key rather than of the value.
        """

    def line(self, number: int) -> str | None:
        """Returns a line of the text, from 1, without its line break; None beyond its end."""

@final
class Problem:
    """Something that is wrong in a text."""

    @property
    def code(self) -> str:
        """The stable code, a key of ``kgw.diagnostics.CODES``."""

    @property
    def warning(self) -> bool:
        """Whether the document is usable all the same."""

    @property
    def message(self) -> str:
        """What is wrong, in one sentence without a full stop."""

    @property
    def hint(self) -> str | None:
        """What to do about it, where that is clear."""

    @property
    def document(self) -> int:
        """The index of the document that has it."""

    def locate(self, path: tuple[str | int, ...], key: bool = False) -> tuple[int, int, int] | None:
        """Returns ``(line, column, end_column)`` of the problem for the empty path, else None."""

    def line(self, number: int) -> str | None:
        """Returns a line of the text, from 1, without its line break; None beyond its end."""
