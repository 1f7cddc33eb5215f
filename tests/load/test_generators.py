"""The command lines of the load generators, and what they print."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from benches.load import generators, programs
from benches.load.generators import Load
from benches.load.programs import Programs
from benches.load.spec import Spec

KLOAD = (
    '{"requests":8596,"seconds":0.5,"rps":17164.6,"bytes":670488,"non2xx":2,"s429":0,'
    '"connect_err":1,"read_err":0,"reset_in_flight":3,"closed_idle":4,"conns_opened":0,"unsent":5,'
    '"client_cpu":0.0338,"lat_us":{"mean":3751.4,"p50":596.0,"p90":12156.9,"p99":15892.5,'
    '"p999":22609.9,"max":22606.1}}\n'
)
H2LOAD = """
finished in 1.69s, 9478.57 req/s, 444.31KB/s
requests: 6635 total, 6635 started, 6635 done, 6630 succeeded, 3 failed, 2 errored, 0 timeout
"""

NAMED = Programs(Path("tools"), {"kload": "/kload", "h2load": "/h2load"})


def test_kload() -> None:
    values = generators.parse_kload(KLOAD)

    assert values == {
        "requests": 8596,
        "rps": 17164.6,
        "errors": 6,
        "closed_idle": 4,
        "unsent": 5,
        "client_cpu_s": 0.0338,
        "p50_us": 596.0,
        "p90_us": 12156.9,
        "p99_us": 15892.5,
        "p999_us": 22609.9,
        "max_us": 22606.1,
    }


def test_h2load_has_percentiles_from_its_log() -> None:
    log = [f"1795423326025268\t200\t{micros}\n" for micros in range(1000, 0, -1)]
    values = generators.parse_h2load(H2LOAD, log, 0.5)

    assert values["requests"] == 6630
    assert values["rps"] == 13_260
    assert values["errors"] == 5
    assert (values["p50_us"], values["p99_us"], values["p999_us"]) == (501, 991, 1000)


def test_h2load_that_failed() -> None:
    with pytest.raises(ValueError, match="cannot resolve"):
        generators.parse_h2load("cannot resolve", [], 1.0)


def test_commands_ask_for_what_the_load_says() -> None:
    spec = Spec(8080, 9090, proxy_protocol=True)
    plain = generators.kload(NAMED, Spec(8080, 9090), Load(seconds=2.0), None)
    full = generators.kload(
        NAMED, spec, Load(4, 1.0, 0.1, body=9, per_connection=1, rate=50.0), Path("targets")
    )

    assert plain == ["/kload", "-p", "8080", "-c", "64", "-d", "2.0", "-w", "0.5"]
    assert " ".join(full[9:]) == "-f targets -b 9 -n 1 -R 50.0 -O -P -D 10.96.1.1:80"
    h2load = generators.h2load(NAMED, spec, Load(16, 1.5, 0.5, streams=32), Path("log"))
    assert "--duration=1500ms" in h2load
    assert "--max-concurrent-streams=32" in h2load


def test_the_spread_of_a_median_ignores_outliers() -> None:
    assert math.isnan(generators.spread([1.0, 2.0]))
    assert generators.spread([3.0] * 5) == 0
    assert generators.spread([1, 2, 3, 4, 5]) == generators.spread([1, 2, 3, 4, 5000]) > 0


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("nginx version: nginx/1.22.1", "1.22.1"),
        ("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/", "2.6.12"),
        ("/lib/python3.11/envoy  version: 9e5580/1.40.0/Clean/RELEASE/BoringSSL", "1.40.0"),
        ("kgw 0.1.0\n", "0.1.0"),
        ("usage", ""),
    ],
)
def test_versions(text: str, version: str) -> None:
    assert programs.version_in(text) == version


def test_a_program_named_comes_first() -> None:
    assert NAMED.find("kload") == "/kload"
    with pytest.raises(FileNotFoundError, match="no-such-program is not installed"):
        NAMED.need("no-such-program")
