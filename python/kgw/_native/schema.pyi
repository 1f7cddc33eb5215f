"""Objects against the definitions of their kinds: what an API server checks before it stores one.

The definitions are those of the Gateway API's ``CustomResourceDefinition`` objects, experimental
channel unless the standard one is asked for.
"""

from typing import Any, final

__all__ = [
    "Violation",
    "is_plain",
    "kinds",
    "metadata",
    "namespaced",
    "rules",
    "validate",
    "versions",
]

def kinds() -> list[tuple[str, str]]:
    """Returns group and kind of every definition."""

def versions(group: str, kind: str, standard: bool = False) -> list[str] | None:
    """Returns the versions of a kind that are served; None if there is no definition of it.

    Args:
        group: the API group.
        kind: the kind.
        standard: those of the standard channel; none if only the other has the kind.
    """

def namespaced(group: str, kind: str) -> bool | None:
    """Returns whether objects of a kind are in namespaces; None if there is no definition of it."""

def rules(
    group: str, kind: str, version: str, standard: bool = False
) -> list[tuple[str, str, str | None]] | None:
    """Returns the CEL rules of a version: path of the field, rule and message.

    In paths, ``[]`` are the items of a list and ``{}`` the entries of a mapping.
    """

def validate(
    group: str,
    kind: str,
    version: str,
    value: Any,
    before: Any = None,
    *,
    standard: bool = False,
    status: bool = False,
) -> list[Violation] | None:
    """Returns what is wrong with an object, but for its metadata; None without a definition.

    Fields that the definition does not know are pruned and defaults are filled in first, as an API
    server does; *value* itself is not changed.

    Args:
        group: the API group.
        kind: the kind.
        version: the version.
        value: the object, as plain data.
        before: the object as it was, for rules about changes; they are left out without it.
        standard: whether what only the experimental channel has is wrong.
        status: whether the status is what is written, which is left out otherwise.

    Raises:
        TypeError: a key is no string.
        ValueError: there is something in the object that is not JSON.
    """

def metadata(value: Any, *, label: bool = False) -> list[Violation]:
    """Returns what is wrong with the metadata of an object.

    Args:
        value: the metadata, as plain data.
        label: whether the name has to be a DNS label rather than a DNS subdomain.

    Raises:
        TypeError: a key is no string.
        ValueError: there is something in the metadata that is not JSON.
    """

def is_plain(fields: dict[str, Any], value: dict[str, Any]) -> bool:
    """Returns whether all fields of an object are among some, and none is null.

    Args:
        fields: the fields; each with the fields of the mapping, or of each mapping in the list,
            that is its value, or None if there is nothing to say about that.
        value: the object, as plain data. What is nested very deeply is not plain.
    """

@final
class Violation:
    """Something that is wrong with an object; as text it is what an API server would say."""

    @property
    def path(self) -> tuple[str | int, ...]:
        """The field at fault, from the object's root; what misses a field, where one is missing."""

    @property
    def kind(self) -> str:
        """What is wrong.

        One of ``alternatives``, ``bound``, ``budget``, ``channel``, ``depth``, ``duplicate``,
        ``enum``, ``evaluation``, ``format``, ``metadata``, ``pattern``, ``required``, ``rule``,
        ``type``, and ``unknown``, which is the only one that an API server stores an object with.
        """

    @property
    def message(self) -> str:
        """The message of a rule, verbatim; of others what is wrong, in an API server's words."""

    @property
    def value(self) -> str | None:
        """The value, as JSON or as the text that it is.

        Of a field that is missing its name, and of a rule without a result what keeps it from one.
        """

    @property
    def legal(self) -> list[str]:
        """What is legal instead: values, fields, a type, a pattern or the name of a format."""

    @property
    def rule(self) -> str | None:
        """The CEL rule."""
