"""TLVs of the PROXY protocol header that a backend gets.

kgateway has no field for them; they are annotations of a BackendConfigPolicy with
``upstreamProxyProtocol.version: V2``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kgw.api.base import Remark
from kgw.api.gateway.options import PREFIX
from kgw.diagnostics import Severity, suggest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PASS: Final = f"{PREFIX}proxy-protocol-pass-tlvs"
ADD: Final = f"{PREFIX}proxy-protocol-tlvs"

#: Types that may be passed on: all but the checksum, which is computed, and padding.
_PASSED: Final = frozenset(range(1, 256)) - {0x03, 0x04}

#: Types that may be added: those for applications and for experiments. The others say something
#: about the client, an identity for example, that nobody may make up.
_ADDED: Final = range(0xE0, 0xF8)

_LEGAL: Final = {
    PASS: "types as 0xD0, 0xEA; all but 0x03 and 0x04",
    ADD: "types with texts as 0xE0=edge, 0xE1=a; types are 0xE0 to 0xF7",
}


@dataclass(frozen=True, slots=True)
class Tlvs:
    """TLVs of the client's header to pass on, and TLVs to add."""

    passed: tuple[int, ...] = ()
    added: tuple[tuple[int, bytes], ...] = ()


def read(annotations: Mapping[str, str]) -> Tlvs:
    """What annotations that are valid say.

    Raises:
        ValueError: if they are not.
    """
    return Tlvs(_passed(annotations.get(PASS)), _added(annotations.get(ADD)))


def remarks(annotations: Mapping[str, str], *, carried: bool) -> Iterator[Remark]:
    """What is wrong with the annotations.

    Args:
        annotations: all of a policy's.
        carried: whether the policy asks for headers of version 2, which can carry TLVs.
    """
    for name, text in annotations.items():
        path = ("metadata", "annotations", name)
        if not name.startswith(PREFIX):
            continue
        if name not in _LEGAL:
            near = suggest(name, _LEGAL)
            hint = f"did you mean `{near}`?" if near else None
            unknown = f"unknown annotation `{name}`"
            yield Remark("KGW203", Severity.WARNING, unknown, path, hint=hint)
            continue
        if not carried:
            message = f"`{name}` needs `upstreamProxyProtocol.version: V2`"
            yield Remark("KGW208", Severity.ERROR, message, path)
        try:
            read({name: text})
        except ValueError:
            message = f"`{text}` is not a legal value of `{name}`"
            yield Remark("KGW207", Severity.ERROR, message, path, legal=_LEGAL[name])


def _passed(text: str | None) -> tuple[int, ...]:
    found = [_type(one) for one in _items(text)]
    if not _PASSED.issuperset(found) or len(set(found)) < len(found):
        raise ValueError(text)
    return tuple(found)


def _added(text: str | None) -> tuple[tuple[int, bytes], ...]:
    found = []
    for one in _items(text):
        kind, equals, value = one.partition("=")
        if not equals or _type(kind) not in _ADDED:
            raise ValueError(text)
        found.append((_type(kind), value.strip().encode()))
    if len({kind for kind, _ in found}) < len(found) or sum(len(v) for _, v in found) > 1024:
        raise ValueError(text)
    return tuple(found)


def _items(text: str | None) -> list[str]:
    return [] if text is None else text.split(",")


def _type(text: str) -> int:
    return int(text.strip(), 16)
