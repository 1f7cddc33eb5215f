"""Header fields that policies change: names that may not be changed, and Secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgw.attach import fields

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kgw.api import Secret
    from kgw.api.kgateway.traffic.header_modifiers import HeaderModifiers, PolicyHeader
    from kgw.attach.checking import Checking
    from kgw.source.memory import FieldPath


def check(checking: Checking, value: HeaderModifiers, path: FieldPath) -> None:
    """Checks the names of fields, and that Secrets have values for them."""
    for way, modifier in (("request", value.request), ("response", value.response)):
        if modifier is None:
            continue
        for name in modifier.remove:
            _name(checking, name, (*path, way, "remove"))
        for what in ("set", "add"):
            for number, header in enumerate(getattr(modifier, what)):
                _header(checking, header, (*path, way, what, number))


def values(header: PolicyHeader, secret: Secret | None) -> Iterator[tuple[str, bytes | None]]:
    """The fields that an entry stands for: names and values, nothing for a key that is missing.

    Args:
        header: the entry.
        secret: the Secret that it refers to, if it does.
    """
    if header.secret_ref is None:
        yield header.name or "", (header.value or "").encode()
        return
    if secret is None:
        return
    key = header.secret_ref.key or header.name
    for one in secret.keys if key is None else (key,):
        value = secret.read(one)
        # Files that Secrets are made of end with a line break, which nobody means.
        yield header.name or one, None if value is None else value.strip()


def _header(checking: Checking, header: PolicyHeader, path: FieldPath) -> None:
    secret, ref = None, header.secret_ref
    where = path if ref is None else (*path, "secretRef")
    if ref is not None:
        secret = checking.secret(ref.name, where, ref.namespace)
    for name, value in values(header, secret):
        _name(checking, name, (*path, "name"))
        if value is None:
            key = ref.key if ref is not None and ref.key is not None else name
            message = f"{secret.key if secret else 'the Secret'} has no {key}"
            checking.fail("KGW431", message, where)
        elif not fields.is_value(value):
            source = "the value" if secret is None else f"the value of {name} in {secret.key}"
            checking.fail("KGW431", f"{source} cannot be the value of a header", where)


def _name(checking: Checking, name: str, path: FieldPath) -> None:
    wrong = fields.name_fault(name)
    if wrong is not None:
        checking.fail("KGW407", wrong, path)
