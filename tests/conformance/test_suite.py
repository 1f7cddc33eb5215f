"""The list of official tests is whole: its totals are those that published reports have."""

from __future__ import annotations

import pytest
from tests.conformance.suite import OFFICIAL, PROFILES, conformance, profiles

#: Of each profile, how many core and extended tests reports on v1.6.1 count.
TOTALS = {
    "GATEWAY-HTTP": (37, 57),
    "GATEWAY-TLS": (20, 15),
    "GATEWAY-TCP": (19, 10),
    "GATEWAY-UDP": (20, 10),
    "GATEWAY-GRPC": (15, 10),
    "MESH-HTTP": (7, 7),
    "MESH-GRPC": (2, 0),
}


@pytest.mark.parametrize("profile", PROFILES)
def test_totals_are_those_of_reports(profile: str) -> None:
    released = [
        one for name, one in OFFICIAL.items() if one.since == "1.6.1" and profile in profiles(name)
    ]
    core = [one for one in released if one.features <= PROFILES[profile].core]
    assert (len(core), len(released) - len(core)) == TOTALS[profile]


def test_the_release_has_153_tests_and_main_nine_more() -> None:
    released = [one for one in OFFICIAL.values() if one.since == "1.6.1"]
    assert (len(released), len(OFFICIAL)) == (153, 162)


def test_a_test_is_named_after_the_one_that_it_follows() -> None:
    with pytest.raises(ValueError, match="no test"):
        conformance("HTTPRouteMatchings")
    with pytest.raises(ValueError, match="not named after"):

        @conformance("HTTPRouteMatching")
        def test_matching() -> None: ...
