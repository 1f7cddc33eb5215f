"""What the engine thinks of certificates and parameters, through the extension."""

from __future__ import annotations

import pytest
from tests.translate.certificates import authority, issued

from kgw._native import tls

CHAIN, KEY = issued("a.example")


def test_a_certificate_with_its_key_can_be_used() -> None:
    assert tls.check_certificate(CHAIN, KEY) is None


@pytest.mark.parametrize(
    ("chain", "key", "problem"),
    [
        (CHAIN, issued("b.example")[1], "the key is not that of the certificate"),
        (CHAIN, "canary", "the key is not in PEM, or of no known form"),
        ("canary", KEY, "there is no certificate in the PEM"),
    ],
)
def test_a_certificate_that_cannot_be_used_says_why(chain: str, key: str, problem: str) -> None:
    assert tls.check_certificate(chain, key) == problem


def test_authorities_are_certificates() -> None:
    assert tls.check_authorities(authority()) is None
    assert tls.check_authorities(authority() * 2) is None
    assert tls.check_authorities("canary") == "there is no certificate in the PEM"


@pytest.mark.parametrize(
    ("lowest", "highest", "suites", "good"),
    [
        (None, None, [], True),
        ("1.2", "1.3", [], True),
        ("1.3", "1.2", [], False),
        (None, "1.2", ["ECDHE-RSA-AES128-GCM-SHA256"], True),
        (None, None, ["NO_SUCH_SUITE"], False),
    ],
)
def test_versions_and_suites_are_checked_together(
    lowest: str | None, highest: str | None, suites: list[str], good: bool
) -> None:
    assert (tls.check_parameters(lowest, highest, suites) is None) is good


def test_a_version_is_one_that_is_served() -> None:
    with pytest.raises(ValueError, match=r"1\.1"):
        tls.check_parameters("1.1", None, [])
