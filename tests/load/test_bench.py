"""The bench itself, end to end, with the one proxy that is always there: the C floor."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from benches.load import procfs, results
from benches.load.__main__ import main

SOURCES = Path(__file__).parents[2] / "benches" / "load" / "csrc"


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None or shutil.which("make") is None:
        pytest.skip("there is no C compiler")  # only the bench needs one, kgw does not
    directory = tmp_path_factory.mktemp("tools")
    subprocess.run(
        ["make", "-s", "-C", str(SOURCES), f"OUT={directory}", "CFLAGS=-O0"],
        check=True,
    )
    return directory


def test_a_run_is_measured_appended_and_reported(
    tools: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "load.jsonl"
    shared = ["--results", str(file)]
    options = ["--only", "get,waypoint", "--peers", "floor,nginx", "--program", "nginx=/bin/false"]
    options += ["--rounds", "1", "--seconds", "0.5", "--tools", str(tools)]

    assert main([*options, *shared]) == 0
    assert "floor" in capsys.readouterr().out
    with file.open() as lines:
        (measured,) = results.read(lines)
    floor = [sample for sample in measured.samples if sample.peer == "floor"]
    assert {sample.workload for sample in floor} == {"get", "waypoint"}
    for sample in floor:
        assert sample.error == ""
        assert sample.values["errors"] == 0
        assert sample.values["requests"] > 0
        assert sample.values["cpu_us"] > 0
        assert 0 < sample.values["p50_us"] <= sample.values["p99_us"]
        assert sample.values["p99_us"] < sample.values["max_us"] * 1.01  # as exact as kload counts
    failed = [sample for sample in measured.samples if sample.peer == "nginx"]
    assert all("nginx ended" in sample.error for sample in failed)
    assert len(failed) == 2

    readme = tmp_path / "README.md"
    readme.write_text("# kgw\n")
    assert main(["report", "--into", str(readme), *shared]) == 0
    assert "## Performance\n" in readme.read_text()
    assert main(["report", "--json", *shared]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == [measured.run.id]


def test_a_process_tree_uses_time_and_memory() -> None:
    with subprocess.Popen(
        ["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE
    ) as shell:
        assert shell.stdout is not None
        child = int(shell.stdout.readline())
        pids = procfs.tree(shell.pid)
        used, memory = procfs.cpu(pids), procfs.memory(pids)
        subprocess.run(["kill", str(child)], check=True)

    assert set(pids) == {shell.pid, child}
    assert used.total > 0
    assert memory.proportional > 0
    assert 0 < memory.resident <= memory.peak
    assert procfs.cpu(pids).total == 0
