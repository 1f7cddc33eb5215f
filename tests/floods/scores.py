"""Each flood against kgw and Envoy, timed: ``python -m tests.floods.scores``."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.peers import proxies
from tests.peers.service import serving_apart

from .attack import attack
from .bystander import bystander
from .catalogue import FLOODS

if TYPE_CHECKING:
    from collections.abc import Iterator

MEGABYTE = 1_000_000
GROWTH = 8 * MEGABYTE
"""Most memory that a flood may cost. Bytes."""
SLOWEST = 0.05
"""The 99th percentile of another client's answers during a flood. Seconds."""
LONGEST = 1.0
"""A flood is over after this. Seconds."""
LONG_ENOUGH = 2.0
"""The flood comes again and again for so long. Seconds."""


@contextlib.contextmanager
def _started(name: str, config: proxies.Config) -> Iterator[proxies.Proxy]:
    if name == "kgw":
        with proxies.kgw(config) as proxy:
            yield proxy
        return
    with tempfile.TemporaryDirectory() as directory, proxies.envoy(config, Path(directory)) as it:
        yield it


def _config(attacked: str, sound: str) -> proxies.Config:
    """The floods have a backend of their own: what they do to that one is not the proxy's doing."""
    config = proxies.forwarding({"main": sound})
    other = proxies.forwarding({"attacked": attacked})
    config["routes"] |= other["routes"]
    config["clusters"] |= other["clusters"]
    rule = {"path": {"prefix": "/hang"}, "rank": {"name": "attacked"}, "route": "attacked"}
    config["route_tables"]["main"]["hosts"][0]["rules"].insert(0, rule)
    return config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("floods", nargs="*", help="parts of names; all of them if there is none")
    parser.add_argument("--proxies", default="kgw,envoy")
    options = parser.parse_args()
    failed = []
    print("| flood | proxy | parts | end | s | CPU s | growth MB | others p50/p99 ms | failed |")
    print("|---|---|---|---|---|---|---|---|---|")
    with serving_apart() as attacked, serving_apart() as sound:
        for name in options.proxies.split(","):
            config = _config(attacked, sound)
            with _started(name, config) as proxy:
                for flood in FLOODS:
                    if options.floods and not any(it in flood.name for it in options.floods):
                        continue
                    with bystander(proxy.address) as other:
                        damage = attack(proxy, proxy.address, flood)
                        ends = time.monotonic() + LONG_ENOUGH
                        while time.monotonic() < ends:
                            attack(proxy, proxy.address, flood)
                    end = "goes on" if not damage.ended else f"GOAWAY {damage.goaway}"
                    end = "close" if damage.ended and damage.goaway is None else end
                    p50, p99 = (other.percentile(it) for it in (0.5, 0.99))
                    print(
                        f"| {flood.name} | {name} | {damage.parts:,} | {end} "
                        f"| {damage.seconds:.2f} | {damage.cpu:.2f} | {damage.growth / 1e6:.1f} "
                        f"| {p50 * 1e3:.1f}/{p99 * 1e3:.1f} | {len(other.failures)} |",
                        flush=True,
                    )
                    good = (
                        damage.ended
                        and damage.seconds < LONGEST
                        and damage.growth <= GROWTH
                        and p99 < SLOWEST
                        and not other.failures
                        and proxy.is_running()
                    )
                    if name == "kgw" and not good:
                        failed.append(flood.name)
    if failed:
        raise SystemExit(f"kgw does not withstand: {', '.join(failed)}")


if __name__ == "__main__":
    main()
