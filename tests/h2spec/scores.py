"""The scores of kgw and Envoy on the conformance cases: ``python -m tests.h2spec.scores``."""

from __future__ import annotations

import argparse

from tests.hostile.lane import lanes
from tests.hostile.scores import STARTS

from .test_h2spec import CASES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proxies", default="kgw,envoy")
    for name in parser.parse_args().proxies.split(","):
        start = STARTS[name]
        assert start is not None
        passed = 0
        with lanes(start=start) as found:
            for case in CASES:
                try:
                    wrong = case.run(found[0].address)
                except (AssertionError, OSError) as error:
                    wrong = f"{type(error).__name__} {error}"
                passed += wrong is None
                if wrong is not None:
                    print(f"{name}: {case.id}: {wrong}")
        print(f"{name}: {passed}/{len(CASES)}", flush=True)


if __name__ == "__main__":
    main()
