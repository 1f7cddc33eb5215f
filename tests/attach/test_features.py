"""The features that GatewayClasses state: all that there are official tests of, for Gateways."""

from __future__ import annotations

from tests.conformance.suite import OFFICIAL

from kgw.attach.features import SUPPORTED


def test_every_feature_is_one_that_the_suite_knows_and_each_is_there_once() -> None:
    known = {feature for one in OFFICIAL.values() for feature in one.features}
    of_gateways = {one for one in known if not one.startswith("Mesh")}
    assert set(SUPPORTED) == of_gateways
    assert list(SUPPORTED) == sorted(set(SUPPORTED))
