"""Basic authentication: users that can be used, and at least one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kgw.attach import htpasswd

if TYPE_CHECKING:
    from kgw.api.kgateway.traffic.basic_auth import BasicAuth
    from kgw.attach.checking import Checking
    from kgw.source.memory import FieldPath


def check(checking: Checking, auth: BasicAuth, path: FieldPath) -> None:
    """Refuses users without a hash that can be used: nobody is to be left out in silence."""
    if auth.disable is not None:
        return
    ref = auth.secret_ref
    if ref is None:
        users = htpasswd.parse(list(auth.users))
        for number, message in users.problems:
            checking.fail("KGW441", f"basic auth: {message}", (*path, "users", number))
        path = (*path, "users")
    else:
        path = (*path, "secretRef")
        secret = checking.secret(ref.name, path, ref.namespace)
        if secret is None:
            return
        data = secret.read(ref.key)
        if data is None:
            where = f"Secret {secret.namespace}/{secret.name}"
            checking.fail("KGW441", f"{where} does not contain key {ref.key!r}", (*path, "key"))
            return
        users = htpasswd.parse(data.decode(errors="replace").split("\n"))
        for _, message in users.problems:
            checking.fail("KGW441", f"basic auth: {message}", path)
    if not users.hashes and not users.problems:
        checking.fail("KGW441", "basic auth: there is no user", path)
