"""A data plane as a program: ``python -m tests.peers.serve``, driven by lines on its input.

The first line is a configuration (IR as JSON); the answer is where its listeners are. Each further
line asks for the counters. The end of the input ends the program.
"""

from __future__ import annotations

import json
import os
import sys

from kgw._native.engine import Engine

WAIT = 20.0


def main() -> None:
    engine = Engine(workers=int(os.environ.get("WORKERS", "1")))
    engine.start(sys.stdin.readline().encode())
    assert engine.wait_applied(1, WAIT)
    addresses = {name: bound[0] for name, bound in engine.addresses().items()}
    print(json.dumps(addresses), flush=True)
    for _ in sys.stdin:
        print(engine.stats().decode(), flush=True)
    engine.join(0.0)


if __name__ == "__main__":
    main()
