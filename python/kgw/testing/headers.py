"""Header fields as they came: names in any case, repeated ones kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

__all__ = ["Fields", "Headers", "pairs"]

Fields = Mapping[str, str] | Iterable[tuple[str, str]]
"""Header fields to send: by name, or as pairs where one is repeated."""


class Headers(Mapping[str, str]):
    """Header fields, looked up by name in any case.

    A mapping of names in lower case. The value of a field that came several times is all of them,
    joined by ``", "``. Equal to another mapping with the same names, in any case, and values.
    """

    __slots__ = ("pairs",)

    def __init__(self, fields: Fields = ()) -> None:
        self.pairs: tuple[tuple[str, str], ...] = tuple(pairs(fields))
        """Every field as it came, in order."""

    def __getitem__(self, name: str) -> str:
        found = self.all(name)
        if not found:
            raise KeyError(name)
        return ", ".join(found)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.all(name))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.lower() for name, _ in self.pairs))

    def __len__(self) -> int:
        return len({name.lower() for name, _ in self.pairs})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return dict(self.items()) == {str(name).lower(): value for name, value in other.items()}

    def __hash__(self) -> int:
        return hash(frozenset(self.items()))

    def __repr__(self) -> str:
        return f"Headers({dict(self.items())!r})"

    def all(self, name: str) -> list[str]:
        """Returns the values of all fields of a name, in order."""
        wanted = name.lower()
        return [value for name, value in self.pairs if name.lower() == wanted]


def pairs(fields: Fields) -> list[tuple[str, str]]:
    """Returns header fields as pairs, in order."""
    return list(fields.items() if isinstance(fields, Mapping) else fields)
