"""The arithmetic and the tables of the load bench."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from benches.load import report, results
from benches.load.results import Journal, Measured, Run, Sample, Skip
from benches.load.summary import Summary
from benches.load.targets import FIGURES, RATIOS, Bounds, RatioTarget, worst

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MACHINE = {"cpu": "A CPU", "cores": "2", "memory": "24 GiB", "system": "Linux 6.18"}
RUN = Run("2026-11-23T08:30:00Z", MACHINE, {"kgw": "0.1.0", "envoy": "1.40.0"}, {"niceness": "-99"})


def samples(workload: str, name: str, **costs: list[float]) -> Iterator[Sample]:
    """A sample for each round of each peer."""
    for peer, values in costs.items():
        for number, value in enumerate(values):
            yield Sample(workload, peer, number, {name: value})


def summary(*found: Sample) -> Summary:
    return Summary([Measured(RUN, list(found))])


GET = list(
    samples(
        "get",
        "cpu_us",
        kgw=[20, 30, 22, 21],
        envoy=[100, 110, 90, 100],
        haproxy=[40, 44, 40, 36],
        nginx=[30, 50, 60, 70],
    )
)


class TestSummary:
    def test_a_median_is_over_rounds(self) -> None:
        assert summary(*GET).median("get", "kgw", "cpu_us") == 21.5
        assert summary(*GET).median("get", "floor", "cpu_us") is None
        assert summary(*GET).median("post-1k", "kgw", "cpu_us") is None

    def test_best_c_is_the_better_median_of_haproxy_and_nginx(self) -> None:
        assert summary(*GET).best_c("get") == 40
        assert summary(*(it for it in GET if it.peer != "haproxy")).best_c("get") == 55
        assert summary(*(it for it in GET if it.peer in {"kgw", "envoy"})).best_c("get") is None

    def test_a_difference_pairs_the_samples_of_a_round(self) -> None:
        chain = samples("waypoint", "cpu_us", kgw=[24, 33, 26])
        found = summary(*GET, *chain)

        assert found.difference("waypoint", "get", "kgw", "cpu_us") == 4
        assert found.difference("waypoint", "get", "envoy", "cpu_us") is None

    def test_rounds_of_several_runs_are_not_mixed_up(self) -> None:
        other = Run("2026-11-23T09:30:00Z", MACHINE, {}, {})
        quiet = [
            Sample("get", "kgw", 0, {"cpu_us": 10}),
            Sample("waypoint", "kgw", 0, {"cpu_us": 12}),
        ]
        noisy = [
            Sample("get", "kgw", 0, {"cpu_us": 50}),
            Sample("waypoint", "kgw", 0, {"cpu_us": 56}),
        ]
        found = Summary([Measured(RUN, quiet), Measured(other, noisy)])

        assert found.difference("waypoint", "get", "kgw", "cpu_us") == 4
        assert found.median("get", "kgw", "cpu_us") == 30

    def test_a_failed_sample_counts_as_none(self) -> None:
        failed = Sample("get", "kgw", 4, {}, "RuntimeError: kgw ended")
        found = summary(*GET, failed)

        assert found.median("get", "kgw", "cpu_us") == 21.5
        assert found.errors("get", "kgw") == ["RuntimeError: kgw ended"]

    def test_the_worst_counts_where_nothing_may_be_lost(self) -> None:
        lost = samples("reload", "lost", kgw=[0, 3, 0])
        (figure,) = [it for it in FIGURES if it.title.startswith("requests lost")]

        assert figure.measure(summary(*lost), "kgw") == 3


class TestVerdicts:
    @pytest.mark.parametrize(
        ("value", "verdict"),
        [(0.19, "goal"), (0.2, "must"), (0.24, "must"), (0.241, "missed"), (None, "unknown")],
    )
    def test_a_bound_is_the_most_that_a_figure_may_be(
        self, value: float | None, verdict: str
    ) -> None:
        assert Bounds(0.24, 0.19).verdict(value) == verdict

    def test_a_row_reaches_what_its_worse_ratio_reaches(self) -> None:
        target = RatioTarget("get", "GET", Bounds(0.24, 0.19), Bounds(0.95, 0.5))

        assert target.ratios(summary(*GET)) == (0.215, 0.5375)
        assert target.verdict(summary(*GET)) == "must"
        assert RatioTarget("get", "GET", Bounds(0.2, 0.1), Bounds(1, 1)).verdict(summary(*GET)) == (
            "missed"
        )

    def test_a_row_without_envoy_is_unknown_unless_it_is_missed(self) -> None:
        found = summary(*(it for it in GET if it.peer != "envoy"))

        assert RatioTarget("get", "", Bounds(1, 1), Bounds(1, 1)).verdict(found) == "unknown"
        assert RatioTarget("get", "", Bounds(1, 1), Bounds(0.1, 0.1)).verdict(found) == "missed"
        assert RatioTarget("get", "").verdict(found) is None
        assert worst(["goal", "must", "unknown"]) == "unknown"

    def test_no_goal_is_easier_than_its_contract(self) -> None:
        ratios = [bounds for it in RATIOS for bounds in (it.of_envoy, it.of_best_c)]
        for bounds in [*ratios, *(it.bounds for it in FIGURES)]:
            assert bounds is None or bounds.goal <= bounds.must


class TestReport:
    def test_a_row_has_costs_ratios_targets_and_verdict(self) -> None:
        _, _, row = report.ratios(summary(*GET)).splitlines()

        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[:6] == ["GET small", "21.5", "100.0", "40.0", "55.0", "-"]
        assert cells[6:] == ["0.21 (0.24, 0.19)", "0.54 (0.95, 0.80)", "must"]

    def test_figures_compare_where_they_can(self) -> None:
        text = report.figures(
            summary(*samples("idle", "connection_bytes", kgw=[900], nginx=[461.4]))
        )

        (row,) = [line for line in text.splitlines() if "idle" in line]
        cells = [cell.strip() for cell in row.strip("|").split("|")][1:]
        assert cells == ["900", "-", "-", "461", "1,500", "700", "must"]

    def test_columns_are_aligned(self) -> None:
        lines = report.plain(summary(*GET)).splitlines()
        rows = [line for line in lines if line.startswith("|")]

        assert len({len(line) for line in rows[:3]}) == 1
        assert rows[1].replace("-", "").replace("|", "") == ":" * (rows[1].count("|") - 2)

    def test_numbers(self) -> None:
        assert report.number(None) == report.number(float("nan")) == "-"
        assert report.number(12.345) == "12.3"
        assert report.number(1234.5) == "1,234"
        assert report.number(-0.04) == "0.0"
        assert report.number(-5.2) == "-5.2"

    def test_the_section_says_where_the_rounds_were_fewer(self) -> None:
        few = [Sample("idle", "kgw", number, {"connection_bytes": 1.0}) for number in range(2)]
        text = report.markdown(Summary([Measured(RUN, [*GET, *few], [])]))
        assert "medians of 4 rounds (2 of idle); niceness -99" in text

    def test_the_section_says_how_it_was_measured_and_what_was_not(self) -> None:
        noise = Sample("get", "kgw", 4, {"foreign": 1.25, "steal": 0.02, "busy": 0.5})
        failed = Sample("get-1m", "envoy", 0, {}, "RuntimeError: no answer")
        measured = Measured(RUN, [*GET, noise, failed], [Skip("nginx", "is not installed")])
        text = report.markdown(Summary([measured]))

        for part in (
            "## Performance\n",
            "`make bench-load`",
            "Measured on 2026-11-23: A CPU, 2 cores, 24 GiB, Linux 6.18",
            "kgw 0.1.0, Envoy 1.40.0",
            "medians of 4 rounds; niceness -99",
            "other processes used 1.25 cores",
            "the hypervisor took 0.02 cores",
            "- nginx: is not installed\n",
            "- get-1m, envoy: RuntimeError: no answer\n",
            "- get, kgw: busy 50% of the time\n",
        ):
            assert part in text

    def test_json_has_every_row_with_a_target(self) -> None:
        rows = json.loads(json.dumps(report.as_json(summary(*GET))))["rows"]

        assert rows["GET small"]["of_envoy"] == 0.215
        assert rows["GET small"]["reached"] == "must"
        assert rows["GET 16 KiB"]["reached"] == "unknown"
        assert len(rows) == len(RATIOS) + len(FIGURES)


class TestResults:
    def test_what_is_appended_is_read_again(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "load.jsonl"
        journal = Journal(path, RUN)
        journal.add(GET[0])
        journal.skip("h2", "h2load is not installed")
        journal.skip("h2", "h2load is not installed")
        again = Journal(path, Run("2026-11-24T00:00:00Z", MACHINE, {}, {}))
        again.add(Sample("get", "kgw", 0, {"cpu_us": 1.0, "noise_us": float("nan")}))

        first, second = results.read(path.read_text().splitlines())
        assert (first.run, first.samples) == (RUN, [GET[0]])
        assert first.skips == [Skip("h2", "h2load is not installed")]
        assert second.samples[0].values == {"cpu_us": 1.0}

    @pytest.mark.parametrize(
        "line",
        ["{", "[]", '{"in_run": "x"}', '{"in_run": "x", "type": "sample"}', '{"type": "run"}'],
    )
    def test_another_file_is_refused_with_its_line(self, line: str) -> None:
        with pytest.raises(ValueError, match="line 2 is not a result"):
            results.read(["", line])


class TestReadme:
    SECTION = "## Performance\n\nNew.\n"

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("# K\n\n## A\n", "# K\n\n## A\n\n## Performance\n\nNew.\n"),
            (
                "# K\n\n## Performance\n\nOld.\n\n### More\n\n## Z\n",
                "# K\n\n## Performance\n\nNew.\n\n## Z\n",
            ),
            ("## Performance\n\nOld.\n", "## Performance\n\nNew.\n"),
        ],
    )
    def test_the_section_is_replaced_or_appended(self, before: str, after: str) -> None:
        assert report.with_section(before, self.SECTION) == after
        assert report.with_section(after, self.SECTION) == after
