"""What `import kgw` gives."""

from __future__ import annotations

import subprocess
import sys

import pytest

import kgw

NAMES = [
    "BlockingProxy",
    "Config",
    "ConfigError",
    "FilterError",
    "Finding",
    "HeaderMatch",
    "IncompleteProxyHeader",
    "KeyedTokenBucket",
    "KgwError",
    "MeshIdentity",
    "NotRunning",
    "ProtocolError",
    "Proxy",
    "ProxyHeader",
    "ProxyProtocolError",
    "QueryMatch",
    "Request",
    "Response",
    "Route",
    "RouteTable",
    "TokenBucket",
    "__version__",
    "load",
    "parse_proxy_header",
    "read_proxy_header",
]


def test_the_public_names_are_these() -> None:
    assert kgw.__all__ == NAMES
    assert set(NAMES) <= set(dir(kgw))


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(kgw, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Proxi'"):
        kgw.Proxi  # type: ignore[attr-defined]  # noqa: B018 - that it fails is the point


def modules_after(statement: str) -> set[str]:
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return set(result.stdout.split())


def test_importing_kgw_imports_nothing_heavy() -> None:
    heavy = {"kgw._native", "pydantic", "anyio", "click", "asyncio", "watchfiles"}
    assert not heavy & modules_after("import kgw")


def test_the_command_line_imports_only_what_the_command_needs() -> None:
    version = "from kgw.cli import main\ntry: main(['--version'])\nexcept SystemExit: pass"
    assert not {"pydantic", "anyio", "asyncio", "watchfiles"} & modules_after(version)
