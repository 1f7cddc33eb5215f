"""Files that are followed: a new `Loaded` for every change of what they contain.

What is watched are directories, because editors and Kubernetes do not write to a file, they put
another in its place: the directory of each file, that of each symbolic link's target, and for a
path that does not exist the nearest directory above that does. What a notification says does not
matter; it is only the occasion to look again.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from kgw.source.files import STDIN, Files, files_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from watchfiles._rust_notify import RustNotify

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

    Changes that come close together are yielded as one. What is broken after a change is among
    the findings; the caller decides whether to keep what it has. Standard input is read once.
    Cancelling takes effect within *debounce*.

    Args:
        paths: files and directories, as for `load`; with `Files`, what it has read is reused.
        since: what the caller has; whatever is different by now is yielded at once, so nothing is
            missed between loading and watching. Without it, the state at the start is not yielded.
        debounce: seconds without another change before a change is looked at.
        poll: seconds between looks without a notification, for file systems that send none.
    """
    from anyio import to_thread

    files = paths if isinstance(paths, Files) else Files(paths)
    last = await to_thread.run_sync(files.load) if since is None else since
    while True:
        targets = await to_thread.run_sync(_targets, files)
        notify = await to_thread.run_sync(_notify, targets)
        # From here on no change goes unnoticed; one look for what happened before.
        while True:
            loaded = await to_thread.run_sync(files.load)
            if loaded.digest != last.digest:
                last = loaded
                yield loaded
            if await to_thread.run_sync(_targets, files) != targets:
                break
            await _change(notify, debounce, poll)


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


def _notify(targets: Iterable[str]) -> RustNotify | None:
    """Starts notifications, or returns ``None`` where the system gives none.

    This is the class under ``watchfiles.awatch``, which does not tell when it has started, and so
    leaves a gap in which a change is lost.
    """
    from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

    try:
        return RustNotify(list(targets), False, False, 300, False, True)
    except (OSError, WatchfilesRustInternalError):
        return None  # gone since it was looked for, or too many watches: polling will do


async def _change(notify: RustNotify | None, debounce: float, poll: float) -> None:
    """Waits for a notification, but not longer than *poll*."""
    import anyio
    from anyio import to_thread

    if notify is None:
        await anyio.sleep(poll)
        return
    stop = threading.Event()

    async def stop_when_cancelled() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            stop.set()

    step = max(1, round(debounce * 1000))
    async with anyio.create_task_group() as group:
        group.start_soon(stop_when_cancelled)
        # Grouped until nothing happens for a step, for three steps at most.
        await to_thread.run_sync(notify.watch, 3 * step, step, max(1, round(poll * 1000)), stop)
        group.cancel_scope.cancel()
