"""The page of results lists the official tests, all of them, and claims no more than there is."""

from __future__ import annotations

import gc
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from tests.conformance import report
from tests.conformance.suite import OFFICIAL, PROFILES, profiles

if TYPE_CHECKING:
    import pytest

pytest_plugins = ["pytester"]

HERE = Path(__file__).parent


def rows(text: str) -> dict[tuple[str, str], str]:
    """The result of each test in the table of each profile."""
    found: dict[tuple[str, str], str] = {}
    for section in text.split("\n## ")[1:]:
        profile = section.splitlines()[0]
        for line in section.splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if len(cells) == 4 and cells[1] in OFFICIAL:
                assert (profile, cells[1]) not in found
                found[profile, cells[1]] = cells[3]
    return found


def written() -> set[str]:
    """The official tests that a test of ours follows."""
    text = "\n".join(path.read_text() for path in HERE.glob("test_*.py"))
    return set(re.findall(r'^@conformance\("(\w+)"\)\n', text, re.MULTILINE))


def test_the_page_lists_exactly_the_tests_of_the_suite() -> None:
    expected = {(profile, name) for name in OFFICIAL for profile in profiles(name)}

    assert set(rows(report.PAGE.read_text())) == expected
    assert {profile for profile, _ in expected} == set(PROFILES)


def test_the_page_has_results_of_tests_that_exist() -> None:
    claimed = {
        name for (_, name), result in rows(report.PAGE.read_text()).items() if result != report.NONE
    }

    assert claimed <= written()


def test_a_page_says_what_passed_what_failed_and_what_is_not_there() -> None:
    text = report.page({"HTTPRouteMatching": True, "HTTPRouteHeaderMatching": False})

    found = rows(text)
    assert found["GATEWAY-HTTP", "HTTPRouteMatching"] == "pass"
    assert found["GATEWAY-HTTP", "HTTPRouteHeaderMatching"] == "**fail**"
    assert found["GATEWAY-HTTP", "HTTPRouteExactPathMatching"] == "—"
    assert "| GATEWAY-HTTP | 1 of 37 | 0 of 57 |" in text
    assert f"Of {len(OFFICIAL)} tests, 1 pass." in text


def test_results_are_those_of_the_tests(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nmarkers = conformance(name): which")
    pytester.makepyfile("""
        import pytest

        @pytest.fixture
        def broken():
            yield
            raise RuntimeError

        @pytest.mark.conformance("good")
        def test_good(): ...

        @pytest.mark.conformance("bad")
        def test_bad(): assert False

        @pytest.mark.conformance("skipped")
        def test_skipped(): pytest.skip()

        @pytest.mark.conformance("untidy")
        def test_untidy(broken): ...

        def test_other(): ...
    """)
    results = report.Results()
    # The run inside collects garbage, and must not judge what the tests before this one left.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    pytester.inline_run("-p", "no:cacheprovider", plugins=[results])

    assert results.passed == {"good": True, "bad": False, "skipped": False, "untidy": False}
