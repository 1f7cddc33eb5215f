"""What `import kgw` gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import kgw
from kgw.api.kinds import HOMES

SCENARIO = Path(__file__).parents[2] / "examples" / "waypoint"

HEAVY = {"pydantic", "pydantic_core", "anyio", "asyncio", "ssl", "socket", "httpx", "h11"}

NAMES = [
    "AccessRecord",
    "BindError",
    "BlockingProxy",
    "BlockingStream",
    "Config",
    "ConfigError",
    "Event",
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
    "RateLimited",
    "Request",
    "Response",
    "Route",
    "RouteTable",
    "Stats",
    "Stream",
    "TokenBucket",
    "__version__",
    "httpx_transport",
    "load",
    "parse_proxy_header",
    "read_proxy_header",
    "start_server",
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


def test_importing_kgw_imports_nothing() -> None:
    before = modules_after("pass")
    assert modules_after("import kgw") - before <= {"kgw", "__future__"}


def test_the_version_needs_click_and_the_extension_only() -> None:
    version = "from kgw.cli import main\ntry: main(['--version'])\nexcept SystemExit: pass"
    found = modules_after(version)
    ours = {name for name in found if name.startswith("kgw") and "_native." not in name}
    assert ours == {"kgw", "kgw._native", "kgw.cli", "kgw.cli.exits", "kgw.cli.streams"}
    assert not HEAVY & found


def test_a_configuration_needs_the_models_of_its_kinds_only() -> None:
    found = modules_after(f"import kgw\nkgw.load({str(SCENARIO)!r})")
    used = {kind for kind, module in HOMES.items() if module in found}
    assert used == {
        "EndpointSlice",
        "Gateway",
        "HTTPListenerPolicy",
        "HTTPRoute",
        "Namespace",
        "Service",
        "TrafficPolicy",
    }


def test_serving_without_an_event_loop_imports_none() -> None:
    serve = f"import kgw\nwith kgw.Proxy({str(SCENARIO)!r}, bind='127.0.0.1:0'): pass"
    assert not {"anyio", "asyncio", "trio"} & modules_after(serve)
