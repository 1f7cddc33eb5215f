"""Following files: every way in which their content changes is noticed, and nothing else is."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

import anyio
import anyio.abc
import anyio.lowlevel
import pytest

from kgw.source import Files, load, watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from kgw.source import Loaded

pytestmark = pytest.mark.anyio

SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: %s}\n"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def names(loaded: Loaded) -> list[str]:
    return [one.name for one in loaded.objects]


@contextlib.asynccontextmanager
async def following(*paths: Path | str) -> AsyncIterator[AsyncIterator[Loaded]]:
    """Watches, from a state that is loaded first; polling is off, so notifications must do."""
    files = Files(paths)
    since = files.load()
    async with contextlib.aclosing(watch(files, since=since, poll=30)) as changes:
        yield changes


async def until(changes: AsyncIterator[Loaded], *expected: str) -> Loaded:
    """Takes changes until the objects are the expected ones: a slow writer may be seen between."""
    with anyio.fail_after(20):
        while True:
            loaded = await anext(changes)
            if names(loaded) == list(expected):
                return loaded


async def test_a_file_written_over(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(SERVICE % "a")
    async with following(tmp_path) as changes:
        path.write_text(SERVICE % "b")
        await until(changes, "b")
        path.write_text(SERVICE % "c")
        await until(changes, "c")


async def test_a_file_replaced_as_editors_do(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(SERVICE % "a")
    for watched in [tmp_path, path]:
        async with following(watched) as changes:
            for name in ["b", "c", "a"]:
                (tmp_path / ".a.swp").write_text(SERVICE % name)
                (tmp_path / ".a.swp").replace(path)
                await until(changes, name)


async def test_files_that_come_and_go(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(SERVICE % "a")
    async with following(tmp_path) as changes:
        (tmp_path / "b.yaml").write_text(SERVICE % "b")
        await until(changes, "a", "b")
        (tmp_path / "a.yaml").unlink()
        await until(changes, "b")


async def test_the_swap_of_a_mounted_config_map(tmp_path: Path) -> None:
    """Kubernetes writes a new directory and renames a link `..data` onto it."""

    def publish(version: str, name: str) -> None:
        (tmp_path / f"..{version}").mkdir()
        (tmp_path / f"..{version}" / "a.yaml").write_text(SERVICE % name)
        (tmp_path / "..data_tmp").symlink_to(f"..{version}")
        (tmp_path / "..data_tmp").replace(tmp_path / "..data")

    publish("1", "a")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    for watched, first in [(tmp_path, 2), (tmp_path / "a.yaml", 4)]:
        async with following(watched) as changes:
            for version in [first, first + 1]:
                publish(str(version), f"v{version}")
                shutil.rmtree(tmp_path / f"..{version - 1}")
                await until(changes, f"v{version}")


async def test_a_link_whose_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    target = tmp_path / "there" / "a.yaml"
    target.write_text(SERVICE % "a")
    (tmp_path / "here" / "a.yaml").symlink_to(target)
    async with following(tmp_path / "here") as changes:
        target.write_text(SERVICE % "b")
        await until(changes, "b")


async def test_a_directory_that_disappears_and_returns(tmp_path: Path) -> None:
    directory = tmp_path / "x" / "manifests"
    directory.mkdir(parents=True)
    (directory / "a.yaml").write_text(SERVICE % "a")
    async with following(directory) as changes:
        shutil.rmtree(tmp_path / "x")
        gone = await until(changes)
        while [one.code for one in gone.findings] != ["KGW101"]:
            gone = await until(changes)  # the file went before its directory
        directory.mkdir(parents=True)
        (directory / "a.yaml").write_text(SERVICE % "b")
        await until(changes, "b")
        (directory / "a.yaml").write_text(SERVICE % "c")
        await until(changes, "c")


async def test_a_directory_that_is_exchanged(tmp_path: Path) -> None:
    for name in ["one", "two", "three"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.yaml").write_text(SERVICE % name)
    link = tmp_path / "current"
    link.symlink_to("one")
    async with following(link) as changes:
        for name in ["two", "three"]:
            (tmp_path / "next").symlink_to(name)
            (tmp_path / "next").replace(link)
            await until(changes, name)


async def test_a_path_that_does_not_exist_yet(tmp_path: Path) -> None:
    path = tmp_path / "later" / "a.yaml"
    async with following(path) as changes:
        path.parent.mkdir()
        path.write_text(SERVICE % "a")
        await until(changes, "a")


async def test_saving_without_a_change_is_no_change(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(SERVICE % "a")
    seen = []
    async with following(tmp_path) as changes:
        for _ in range(3):
            (tmp_path / ".tmp").write_text(SERVICE % "a")
            (tmp_path / ".tmp").replace(path)
            os.utime(path)
        (tmp_path / "notes.txt").write_text("not a manifest")
        (tmp_path / "b.yaml").write_text(SERVICE % "b")
        with anyio.fail_after(20):
            async for loaded in changes:
                seen.append(names(loaded))
                if "b" in seen[-1]:
                    break
    # `b.yaml` may be seen while it is still empty, which is a change; the others are none.
    assert seen[-1] == ["a", "b"]
    assert all(one == ["a"] for one in seen[:-1])
    assert len(seen) <= 2


async def test_nothing_is_missed_between_loading_and_watching(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(SERVICE % "a")
    since = load(tmp_path)
    path.write_text(SERVICE % "b")
    async with contextlib.aclosing(watch(tmp_path, since=since, poll=30)) as changes:
        await until(changes, "b")


async def test_polling_does_where_there_are_no_notifications(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kgw.source.follow._notify", lambda _targets: None)
    path = tmp_path / "a.yaml"
    path.write_text(SERVICE % "a")
    since = load(tmp_path)
    async with contextlib.aclosing(watch(tmp_path, since=since, poll=0.01)) as changes:
        path.write_text(SERVICE % "b")
        await until(changes, "b")


async def test_a_bad_edit_is_told_and_costs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(SERVICE % "a")
    (tmp_path / "b.yaml").write_text(SERVICE % "b")
    async with following(tmp_path) as changes:
        (tmp_path / ".b").write_text("kind: [\n")
        (tmp_path / ".b").replace(tmp_path / "b.yaml")
        loaded = await until(changes, "a")
        assert [one.code for one in loaded.findings] == ["KGW103"]


async def test_cancelling_ends_it(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(SERVICE % "a")
    since = load(tmp_path)
    (tmp_path / "a.yaml").write_text(SERVICE % "b")
    ended = anyio.Event()

    async def follow(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        try:
            async with contextlib.aclosing(watch(tmp_path, since=since, poll=30)) as changes:
                async for _ in changes:
                    task_status.started()
        finally:
            ended.set()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            await group.start(follow)
            await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
    assert ended.is_set()
