"""Addresses that Gateways get without a cluster: each its own, the same as long as it is there.

A Gateway that asks for no address in particular gets the one that its name leads to, or the next
free one. So the same manifests come to the same addresses in every process, unless names lead to
the same one; what a Gateway has is not given to another.
"""

from __future__ import annotations

import hashlib
import threading
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kgw.attach.index import Named


class Assignment(NamedTuple):
    """What a Gateway was given of what it asked for."""

    addresses: tuple[str, ...]
    #: For each address that cannot be had: its place, whether it was named, and why.
    problems: tuple[tuple[int, bool, str], ...] = ()


class AddressPool:
    """The addresses of a network, and who has them. May be used from several threads.

    Args:
        network: the network, as in ``10.200.0.0/16``. The first and the last address of an IPv4
            network are no host's, unless it has two addresses or one.
        held: what Gateways have already, by namespace and name: it stays theirs.

    Raises:
        ValueError: *network* is no network.
    """

    def __init__(self, network: str, held: Mapping[Named, Iterable[str]] | None = None) -> None:
        self._network = ip_network(network)
        first, last = int(self._network[0]), int(self._network[-1])
        if self._network.version == 4 and last - first > 1:
            first, last = first + 1, last - 1
        self._first, self._size = first, last - first + 1
        self._version = self._network.version
        self._lock = threading.Lock()
        self._held: dict[Named, tuple[int, ...]] = {}
        owned: set[int] = set()
        for named, addresses in (held or {}).items():
            numbers = {self._number(one) for one in addresses} - owned
            self._held[named] = tuple(sorted(one for one in numbers if one is not None))
            owned.update(self._held[named])

    def __repr__(self) -> str:
        return f"<AddressPool {self._network}>"

    def assign(self, wanted: Mapping[Named, Sequence[str]]) -> dict[Named, Assignment]:
        """Gives Gateways their addresses, and takes back those of all others.

        Args:
            wanted: the addresses that each asks for, those that come first before the others; an
                empty one is any.
        """
        with self._lock:
            made = _Assigning(self, self._held, wanted)
            self._held = {named: tuple(own.values()) for named, own in made.given.items()}
            return made.assignments()

    def _number(self, address: str) -> int | None:
        """An address of the pool as a number; none if it is not one."""
        try:
            parsed = ip_address(address)
        except ValueError:
            return None
        number = int(parsed) - self._first
        return int(parsed) if parsed.version == self._version and 0 <= number < self._size else None

    def _text(self, number: int) -> str:
        # The offset from the first address of the network keeps the family of small IPv6 numbers.
        return str(self._network[number - int(self._network[0])])

    def _free(self, named: Named, place: int, owners: Mapping[int, Named]) -> int | None:
        """The first free address from the one on that a name leads to."""
        if len(owners) >= self._size:
            return None
        seed = f"{'/'.join(named)}/{place}".encode()
        start = int.from_bytes(hashlib.blake2b(seed, digest_size=16).digest())
        # Of so many addresses in a row one is free.
        for step in range(len(owners) + 1):
            number = self._first + (start + step) % self._size
            if number not in owners:
                return number
        return None


class _Assigning:
    """One look at who wants what: what is held stays, then what is named, then any."""

    def __init__(
        self,
        pool: AddressPool,
        held: Mapping[Named, tuple[int, ...]],
        wanted: Mapping[Named, Sequence[str]],
    ) -> None:
        self._pool = pool
        self._wanted = wanted
        self._owners: dict[int, Named] = {}
        self._problems: dict[Named, list[tuple[int, bool, str]]] = {one: [] for one in wanted}
        #: By Gateway, then by the place of the address among those that it asks for.
        self.given: dict[Named, dict[int, int]] = {one: {} for one in wanted}
        self._keep(held)
        for named, asked in wanted.items():
            for place, text in enumerate(asked):
                if text and place not in self.given[named]:
                    self._claim(named, place, text)
        for named, asked in wanted.items():
            for place, text in enumerate(asked):
                if not text and place not in self.given[named]:
                    self._any(named, place)

    def assignments(self) -> dict[Named, Assignment]:
        """What each Gateway was given, in the order in which it asked."""
        return {
            named: Assignment(
                tuple(self._pool._text(number) for _, number in sorted(given.items())),
                tuple(sorted(self._problems[named])),
            )
            for named, given in self.given.items()
        }

    def _keep(self, held: Mapping[Named, tuple[int, ...]]) -> None:
        for named, asked in self._wanted.items():
            left = list(held.get(named, ()))
            names = {place: self._pool._number(text) for place, text in enumerate(asked) if text}
            for place, number in names.items():
                if number in left:
                    left.remove(number)
                    self._give(named, place, number)
            for place, text in enumerate(asked):
                if not text and left:
                    self._give(named, place, left.pop(0))

    def _claim(self, named: Named, place: int, text: str) -> None:
        number = self._pool._number(text)
        if number is None:
            problem = f"address {text} is not in the pool {self._pool._network}"
        elif number in self._owners:
            problem = f"address {text} is another Gateway's"
        else:
            self._give(named, place, number)
            return
        self._problems[named].append((place, True, problem))

    def _any(self, named: Named, place: int) -> None:
        number = self._pool._free(named, place, self._owners)
        if number is None:
            problem = f"the pool {self._pool._network} has no free address"
            self._problems[named].append((place, False, problem))
        else:
            self._give(named, place, number)

    def _give(self, named: Named, place: int, number: int) -> None:
        self._owners[number] = named
        self.given[named][place] = number
