"""What `make bench-check` reads and concludes; that it can count is seen by running it."""

from __future__ import annotations

from pathlib import Path

import pytest
from benches.instructions.__main__ import Result, check
from benches.instructions.callgrind import Call, Counts, Line, read

FILE = """\
# callgrind format
version: 1
creator: callgrind-3.19.0
pid: 1
part: 1
thread: 3

positions: line
events: Ir
summary: 190

ob=(1) /bin/serve
fl=(1) /cargo/registry/src/index.crates.io-1949cf8c6b5b557f/tokio-1.54.1/src/task.rs
fn=(1) tokio::task::poll::h0123456789abcdef
10 5
fi=(2) {here}/rust/kgw-engine/src/conn/mod.rs
20 7
fe=(1)
11 8
cfi=(2)
cfn=(2) kgw_engine::conn::serve
calls=4 30
12 160
fl=(2)
fn=(2)
30 60
cfn=(2)
calls=1 30
31 40
32 100

fl=(1)
fn=(1)
13 10

totals: 190
"""


@pytest.fixture
def counts(tmp_path: Path) -> Counts:
    (tmp_path / "out-03").write_text(FILE.format(here=Path.cwd()))
    (tmp_path / "out").write_text("thread: 0\ntotals: 0\n")
    threads = read(tmp_path.glob("out*"))
    assert list(threads) == [3]
    return threads[3]


def test_functions_have_what_they_execute_themselves(counts: Counts) -> None:
    assert counts.exclusive == {"tokio::task::poll": 30, "kgw_engine::conn::serve": 160}
    assert counts.total == 190


def test_functions_have_what_they_call_but_not_themselves_twice(counts: Counts) -> None:
    assert counts.inclusive == {"tokio::task::poll": 190, "kgw_engine::conn::serve": 160}


def test_calls_are_counted(counts: Counts) -> None:
    serve = "kgw_engine::conn::serve"
    assert counts.calls == {Call("tokio::task::poll", serve): 4, Call(serve, serve): 1}


def test_inlined_code_counts_where_it_is_written(counts: Counts) -> None:
    conn, task = "rust/kgw-engine/src/conn/mod.rs", "tokio-1.54.1/src/task.rs"
    assert counts.lines[Line(conn, 20)] == 7
    assert counts.lines[Line(task, 11)] == 8
    assert counts.lines[Line(task, 13)] == 10


def test_a_difference_is_what_came_later(counts: Counts) -> None:
    twice = Counts(counts.total * 2, counts.exclusive + counts.exclusive)
    later = twice.since(counts)
    assert later.total == 190
    assert later.exclusive == counts.exclusive


HERE = {"rustc": "rustc 1.95.0", "machine": "x86_64", "libc": "glibc 2.36"}


def verdict(now: int, here: dict[str, str] = HERE) -> bool:
    baseline = {"environment": HERE, "instructions": {"get": 20_000}}
    result = Result(10, Counts(now * 10), others=0)
    return check({"get": result}, baseline, here)


def test_growth_within_the_tolerance_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict(20_300)
    assert "+1.5%" in capsys.readouterr().out


def test_growth_beyond_the_tolerance_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert not verdict(20_500)
    out = capsys.readouterr().out
    assert "beyond its tolerance: get" in out
    assert "--update" in out


def test_a_case_without_a_baseline_fails() -> None:
    result = Result(10, Counts(10), others=0)
    assert not check({"waypoint": result}, {"environment": HERE, "instructions": {}}, HERE)


def test_less_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict(10_000)
    assert "Less than the baseline: get" in capsys.readouterr().out


def test_another_compiler_gets_no_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict(99_000, HERE | {"rustc": "rustc 1.96.0"})
    assert "No verdict: the baseline is of rustc 1.95.0" in capsys.readouterr().out
