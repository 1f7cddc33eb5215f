"""docs/primitives.md is true: its sessions give what they show, and its programs run."""

from __future__ import annotations

import asyncio
import doctest
import re
from pathlib import Path
from typing import Any

import kgw

PAGE = Path(__file__).parents[2] / "docs" / "primitives.md"


def programs() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "page"}
    for program in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S):
        exec(program, names)
    return names


def test_sessions() -> None:
    found = doctest.testfile(str(PAGE), module_relative=False)
    assert found.attempted > 15
    assert found.failed == 0


def test_the_server() -> None:
    page = programs()
    identity = kgw.MeshIdentity("cluster.local", "default", "curl")
    header = kgw.ProxyHeader(("10.0.0.7", 1), ("10.96.0.1", 80), identity=identity)

    async def main() -> bytes:
        async with await page["serve"]() as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(header.encode())
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
            return answer

    assert asyncio.run(main()) == b"10.0.0.7:1 is spiffe://cluster.local/ns/default/sa/curl\n"


def test_the_limit() -> None:
    page = programs()
    for _ in range(13):  # 130 tokens of 10 at once and 50 a second: the next is there after 2.42 s
        page["upstream"].reserve(10)
    assert asyncio.run(page["call"]()) == "503, retry-after 2"
