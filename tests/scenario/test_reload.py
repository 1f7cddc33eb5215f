"""Files that change under a running `kgw run`: live, nothing lost, bad edits without effect."""

from __future__ import annotations

import shutil
import signal
from typing import TYPE_CHECKING

import pytest
from tests.scenario.load import Load, Run
from tests.scenario.stage import EDGE, route

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Running
    from tests.scenario.stage import Stage


def to(service: str) -> str:
    return route(f"- backendRefs: [{{name: {service}, port: 80}}]")


LIMIT = """
apiVersion: gateway.kgateway.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: limit}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}]
  rateLimit: {local: {tokenBucket: {maxTokens: 3, tokensPerFill: 3, fillInterval: 10h}}}
"""


@pytest.fixture
def files(stage: Stage) -> Path:
    """A directory that serves `old`; `new` is there to be routed to."""
    stage.service("old")
    stage.service("new")
    stage.write(EDGE)
    (stage.directory / "route.yaml").write_text(to("old"))
    return stage.directory


def write_over(path: Path, text: str) -> None:
    path.write_text(text)


def replace(path: Path, text: str) -> None:
    """As vim and others save: a new file takes the name."""
    beside = path.with_name(f".{path.name}.swp")
    beside.write_text(text)
    beside.rename(path)


@pytest.mark.parametrize("save", [write_over, replace])
def test_an_edit_is_live(running: type[Running], files: Path, save: object) -> None:
    assert callable(save)
    run = Run(running, files)
    assert run.get().backend == "old"
    save(files / "route.yaml", to("new"))
    run.live()
    assert run.get().backend == "new"
    save(files / "route.yaml", to("old"))
    run.live()
    assert run.get().backend == "old"


def test_a_mounted_config_map_is_followed(
    running: type[Running], files: Path, tmp_path: Path
) -> None:
    """Kubernetes writes a directory beside and turns one link, `..data`, to it."""
    mount = tmp_path / "mount"
    mount.mkdir()

    def publish(version: str, service: str) -> None:
        target = mount / f"..{version}"
        shutil.copytree(files, target)
        (target / "route.yaml").write_text(to(service))
        (mount / "..data_tmp").symlink_to(target.name)
        (mount / "..data_tmp").rename(mount / "..data")

    publish("1", "old")
    for file in files.iterdir():
        (mount / file.name).symlink_to(f"..data/{file.name}")
    run = Run(running, mount)
    assert run.get().backend == "old"
    publish("2", "new")
    shutil.rmtree(mount / "..1")
    run.live()
    assert run.get().backend == "new"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("kind: [\n", "error[KGW1"),
        (
            to("new").replace("backendRefs: [", "backendRefs: 5 #"),
            "field spec.rules[0].backendRefs",
        ),
    ],
    ids=["no YAML", "a field of the wrong type"],
)
def test_a_bad_edit_changes_nothing_and_says_why(
    running: type[Running], files: Path, bad: str, reason: str
) -> None:
    run = Run(running, files)
    with Load(run.address) as load:
        replace(files / "route.yaml", bad)
        run.process.stderr.after(reason)
        run.process.stderr.after("kept the last good configuration")
        load.goes_on()
        assert {answer.backend for answer in load.answers} == {"old"}
        replace(files / "route.yaml", to("new"))
        run.live()
        assert run.get().backend == "new", "the next good edit is served"
    assert load.errors == []


def test_no_request_is_lost_while_files_change(running: type[Running], files: Path) -> None:
    run = Run(running, files)
    with Load(run.address) as load:
        for round_ in range(20):
            replace(files / "route.yaml", to("new" if round_ % 2 == 0 else "old"))
            run.live()
            load.goes_on(2)
    assert load.errors == []
    assert load.closed == 0
    assert {answer.outcome for answer in load.answers} == {"old", "new"}


def test_an_unrelated_edit_leaves_the_tokens_and_a_changed_limit_does_not(
    running: type[Running], files: Path
) -> None:
    (files / "zz-limit.yaml").write_text(LIMIT)
    run = Run(running, files)
    assert [run.get().status for _ in range(2)] == [200, 200]

    (files / "more.yaml").write_text(
        to("new").replace("name: r}", "name: more}").replace("spec:", "spec:\n  hostnames: [x.y]")
    )
    run.live()
    assert [run.get().status for _ in range(2)] == [200, 429]

    replace(files / "zz-limit.yaml", LIMIT.replace("maxTokens: 3", "maxTokens: 5"))
    run.live()
    assert [run.get().status for _ in range(6)] == [200] * 5 + [429]


def test_no_request_is_lost_when_it_is_told_to_end(
    running: type[Running], files: Path, stage: Stage
) -> None:
    run = Run(running, files)
    with Load(run.address) as load:
        run.process.signal(signal.SIGTERM)
        load.join()
    assert load.errors == []
    assert load.closed == 8, "every client was told that its answer is the last one"
    assert {answer.outcome for answer in load.answers} == {"old"}
    assert run.process.wait() == 0
    assert "cut off" not in str(run.process.stderr)
    with pytest.raises(ConnectionRefusedError):
        run.get()
