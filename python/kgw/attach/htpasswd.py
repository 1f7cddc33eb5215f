"""Users and the hashes of their passwords, as ``htpasswd`` writes them.

Hashes are in no message: what is wrong with one is told with the name of its user, or its line.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

#: SHA-1 in base64: what kgateway takes.
_SHA: Final = re.compile(r"\{SHA\}[A-Za-z0-9+/]{26}[AEIMQUYcgkosw048]=")

#: bcrypt, of a cost that a proxy can bear: 4 to 14. The last characters of salt and hash stand for
#: fewer bits than the others.
_BCRYPT: Final = re.compile(
    r"\$2[aby]\$(?:0[4-9]|1[0-4])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{30}[.CGKOSWaeimquy26]"
)

_COSTLY: Final = re.compile(r"\$2[aby]\$(?:1[5-9]|[2-9][0-9])\$")


class Users(NamedTuple):
    """What there is in ``htpasswd`` data."""

    #: Hashes by name.
    hashes: dict[str, str]
    #: What is wrong with the rest, with the number of the entry, from 0.
    problems: list[tuple[int, str]]


def parse(entries: list[str]) -> Users:
    """Reads entries. Empty ones and comments do not count, nor does the same entry twice."""
    hashes: dict[str, str] = {}
    problems: list[tuple[int, str]] = []
    for number, entry in enumerate(entries):
        line = entry.strip()
        if not line or line.startswith("#"):
            continue
        name, colon, hashed = line.partition(":")
        if not colon or not name:
            problems.append((number, f"line {number + 1} is no `user:hash`"))
        elif _COSTLY.match(hashed):
            message = f"the hash of user {name!r} costs too much to check: bcrypt of at most 14"
            problems.append((number, message))
        elif not _SHA.fullmatch(hashed) and not _BCRYPT.fullmatch(hashed):
            message = f"the hash of user {name!r} is neither {{SHA}} nor bcrypt"
            problems.append((number, message))
        elif hashes.setdefault(name, hashed) != hashed:
            problems.append((number, f"user {name!r} is listed twice with different hashes"))
    return Users(hashes, problems)
