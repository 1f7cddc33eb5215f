"""The examples run as they are, and the README shows them as they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
TIMEOUT = 60.0


def output(example: str) -> str:
    """What an example prints."""
    result = subprocess.run(
        [sys.executable, "-W", "error", f"examples/{example}.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_embed_runs() -> None:
    assert output("embed").startswith("default/kgateway-waypoint/proxy listens on [('127.0.0.1', ")


def test_filter_runs() -> None:
    assert output("filter") == "401 who are you?\n"


def test_body_filter_runs() -> None:
    assert output("body_filter") == "10,000 times: the card is ####-####\n"


def test_tcp_proxy_runs() -> None:
    assert output("tcp_proxy") == "shop: PING\nblog: refused\n"


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_each_is_short(example: Path) -> None:
    assert len(example.read_text().splitlines()) < 60


def test_objects_runs() -> None:
    assert output("objects").splitlines() == [
        "/old/a 301",
        "/v1/a 200 blue",
        "/v1/b 200 blue",
        "/v1/c 429 local_rate_limited",
    ]


def test_asgi_middleware_runs() -> None:
    assert output("asgi_middleware") == "[200, 200, 429]\n"


def test_httpx_transport_runs() -> None:
    assert output("httpx_transport") == (
        "503 no healthy upstream https://llm.example/v1/models\n"
        "404 no route https://somewhere.example/v1/models\n"
    )


def test_the_readme_shows_embed_as_it_is() -> None:
    program = (ROOT / "examples" / "embed.py").read_text().partition("\n\n")[2]
    assert f"```python\n{program}```\n" in (ROOT / "README.md").read_text()
