"""Files that are followed: a new `Loaded` for every change of what they contain.

What is watched are directories, because editors and Kubernetes do not write to a file, they put
another in its place: the directory of each file, that of each symbolic link's target, and for a
path that does not exist the nearest directory above that does.

What a notification says decides when to look, and whether a look at the files that it names will
do. Whatever else it says is the occasion to look at everything again; so is a second without one.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from kgw.source.files import EXTENSIONS, STDIN, Files, files_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from kgw._native.watch import Watch
    from kgw.source.files import Paths
    from kgw.source.memory import Loaded

__all__ = ["watch"]


async def watch(
    paths: Paths | Iterable[Paths] | Files,
    *,
    since: Loaded | None = None,
    debounce: float = 0.02,
    poll: float = 1.0,
) -> AsyncGenerator[Loaded, None]:
    """Yields what the paths hold whenever that changed; saving a file unchanged is no change.

    A file that is written, or put in the place of another, is seen at once when that is complete;
    changes that come close together, and files that go away, as one. What is broken after a change
    is among the findings; the caller decides whether to keep what it has. Standard input is read
    once.

    Args:
        paths: files and directories, as for `load`; with `Files`, what it has read is reused.
        since: what the caller has; whatever is different by now is yielded at once, so nothing is
            missed between loading and watching. Without it, the state at the start is not yielded.
        debounce: seconds without another change before several changes are looked at.
        poll: seconds between looks without a notification, for file systems that send none; more
            if a look takes long.
    """
    from anyio import to_thread

    files = paths if isinstance(paths, Files) else Files(paths)
    last = await to_thread.run_sync(files.load) if since is None else since
    while True:
        targets = await to_thread.run_sync(_targets, files)
        notify = await to_thread.run_sync(_notify, targets)
        changes = _Changes(files, notify, debounce, poll)
        # From here on no change goes unnoticed; one look for what happened before.
        changed: set[str] | None = None
        while True:
            began = time.monotonic()
            loaded = await to_thread.run_sync(files.load, changed)
            changes.looked(began, whole=changed is None)
            if loaded.digest != last.digest:
                last = loaded
                yield loaded
            if changed is None and await to_thread.run_sync(_targets, files) != targets:
                break
            changed = await changes.wait()


def _targets(files: Files) -> dict[str, tuple[int, int]]:
    """Returns the directories to watch, with their identities: a new one needs a new watch."""
    wanted: set[str] = set()
    for path in files.paths:
        if path == STDIN:
            continue
        path = os.path.abspath(path)
        try:
            names = files_of(path)
        except OSError:
            wanted.add(os.path.dirname(path))
            continue
        if os.path.isdir(path):
            wanted.add(path)
            with os.scandir(path) as entries:
                links = {entry.path for entry in entries if entry.is_symlink()}
            names = [name for name in names if name in links]
        for name in [path, *names]:
            if name != path or not os.path.isdir(path):
                wanted.add(os.path.dirname(name))
            if os.path.islink(name):
                wanted.add(os.path.dirname(name))
                wanted.add(os.path.dirname(os.path.realpath(name)))
    found = (_nearest(directory) for directory in sorted(wanted))
    return dict(found)


def _nearest(directory: str) -> tuple[str, tuple[int, int]]:
    """Returns a directory or the nearest above it that exists, and its identity."""
    while True:
        try:
            status = os.stat(directory)
        except OSError:
            above = os.path.dirname(directory)
            if above == directory:
                return directory, (0, 0)
            directory = above
        else:
            return directory, (status.st_dev, status.st_ino)


def _notify(targets: Iterable[str]) -> Watch | None:
    """Starts notifications, or returns ``None`` where the system gives none."""
    try:
        from kgw._native.watch import Watch

        return Watch(list(targets))
    except (ImportError, OSError):
        return None  # gone since it was looked for, or too many watches: polling will do


class _Changes:
    """When to look, and at what."""

    def __init__(self, files: Files, notify: Watch | None, debounce: float, poll: float) -> None:
        self._files = files
        self._notify = notify
        self._debounce = debounce
        self._poll = self._pause = poll
        self._last = 0.0
        # Of the paths as directories, and as files: how names in them are to be read.
        self._names = {os.path.abspath(path): path for path in files.paths if path != STDIN}

    def looked(self, began: float, *, whole: bool) -> None:
        """Notes that the files were looked at."""
        self._last = time.monotonic()
        if whole:
            self._pause = max(self._poll, min(_SHARE * (self._last - began), _LONGEST))

    async def wait(self) -> set[str] | None:
        """Waits for an occasion; returns which files to look at, or ``None`` for all paths."""
        import anyio

        if self._notify is None:
            await anyio.sleep(self._pause)
            return None
        seen = _Seen()
        end = time.monotonic() + self._pause
        while not seen.anything:
            if not await self._more(end - time.monotonic()):
                return None
            self._read(seen)
        # The first of several is looked at alone, the others together: that bounds how often.
        alone = time.monotonic() - self._last >= self._debounce
        end = time.monotonic() + _MOST * self._debounce
        while not (alone and seen.complete):
            rest = min(self._debounce, end - time.monotonic())
            if not await self._more(rest):
                break
            self._read(seen)
        return None if seen.all or seen.writing else seen.written

    async def _more(self, seconds: float) -> bool:
        """Waits until something happened; returns whether it has."""
        import anyio

        assert self._notify is not None
        with anyio.move_on_after(max(0.0, seconds)):
            await anyio.wait_readable(self._notify)
            return True
        return False

    def _read(self, seen: _Seen) -> None:
        assert self._notify is not None
        for directory, name, complete in self._notify.changes():
            if directory is None or name is None:
                seen.all = seen.anything = True
                continue
            whole = os.path.join(directory, name)
            known = self._names.get(whole) or self._member(os.fspath(directory), name)
            if known is None:
                continue
            seen.anything = True
            if known not in self._files:
                seen.all = True
            if complete:
                seen.written.add(known)
                seen.writing.discard(known)
            else:
                seen.writing.add(known)

    def _member(self, directory: str, name: str) -> str | None:
        """How a file of a directory is to be read; ``None`` if it is nothing to us."""
        path = self._names.get(directory)
        if path is None or name.startswith(".."):
            return name  # something above, beside or below of what is read
        if name.startswith(".") or not name.endswith(EXTENSIONS):
            return None
        return os.path.join(path, name)


class _Seen:
    """What has happened since the last look."""

    def __init__(self) -> None:
        self.anything = False
        #: Whether only a look at all paths can tell what that was.
        self.all = False
        #: Files that something happens to, which may not be at its end.
        self.writing: set[str] = set()
        #: Files that were written.
        self.written: set[str] = set()

    @property
    def complete(self) -> bool:
        """Whether all that has begun has ended."""
        return not self.writing and not self.all


_MOST = 3
"""Times the debounce that a series of changes is waited for."""

_SHARE = 20
"""Looks that nothing is known to have changed for take at most one part in so many of the time."""

_LONGEST = 30.0
"""Seconds between them at most."""
