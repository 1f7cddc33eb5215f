"""From resources to translations, one after another: what did not change is not done again."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from kgw.source.sequences import exchanged
from kgw.translate.options import Options
from kgw.translate.state import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kgw.api import Resource, ResourceKey
    from kgw.translate.state import Change
    from kgw.translate.translation import Translation


class Translator:
    """Translates sets of resources that are mostly the same: the same Python objects.

    May be called from any thread; calls wait for one another.
    """

    def __init__(self, options: Options | None = None) -> None:
        self._options = options or Options()
        self._lock = threading.Lock()
        self._resources: tuple[Resource, ...] = ()
        self._state: State | None = None

    @property
    def has_state(self) -> bool:
        """Whether there is something to build on."""
        return self._state is not None

    def translate(self, resources: Iterable[Resource]) -> Translation:
        """Translates resources; never raises for what they say.

        What cannot be used is reported, and the rest is served: a broken rule answers 500, a broken
        backend answers 500 for its share, a broken listener is not bound.
        """
        with self._lock:
            after = tuple(resources)
            before, state = self._resources, self._state
            # What is half done when something raises must not be built on.
            self._state, self._resources = None, ()
            if state is None or not state.update(changes(before, after)):
                state = State(after, self._options)
            self._resources, self._state = after, state
            return state.translation


def translate(resources: Iterable[Resource], options: Options | None = None) -> Translation:
    """Translates resources, once; see `Translator.translate`."""
    return Translator(options).translate(resources)


def changes(before: Sequence[Resource], after: Sequence[Resource]) -> dict[ResourceKey, Change]:
    """What two sets of resources differ in, other than their order.

    Both are compared by identity, and are equal for the most part.
    """
    old, new = exchanged(before, after)
    removed = {one.key: one for one in old}
    added = {one.key: one for one in new}
    return {key: (removed.get(key), added.get(key)) for key in dict.fromkeys((*removed, *added))}
