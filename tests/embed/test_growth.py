"""A program that reloads for ever keeps its size: memory, objects, threads, descriptors."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tests.embed.upstream import Upstream, resources

from kgw.events import CAPACITY

RELOADS = 1000

PROGRAM = """
import gc, http.client, json, os, sys, threading
import kgw

config, reloads = json.loads(sys.argv[1]), int(sys.argv[2])

def version(number):
    gateway, route, *others = json.loads(json.dumps(config))
    route["spec"]["rules"][0]["matches"][0]["path"]["value"] = f"/v{number}"
    if number % 2:
        gateway["spec"]["listeners"].append({"name": "more", "port": 8081, "protocol": "HTTP"})
    return [gateway, route, *others]

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def size():
    gc.collect()
    return {
        "bytes": resident(),
        "objects": len(gc.get_objects()),
        "threads": len(os.listdir("/proc/self/task")),
        "files": len(os.listdir("/proc/self/fd")),
        "watched": threading.active_count(),
    }

def get(proxy, path):
    client = http.client.HTTPConnection(*proxy.addresses["default/web/http"][0], timeout=30)
    client.request("GET", path)
    status = client.getresponse().status
    client.close()
    return status

def reload(proxy, numbers):
    for number in numbers:
        proxy.apply(version(number))
        if number % 10 == 0:
            assert get(proxy, f"/v{number}/x") == 200
            assert get(proxy, f"/v{number + 1}/x") == 404
            # Streams that are opened and forgotten, and one that nobody reads.
            proxy.events()
            proxy.access_log()

proxy = kgw.Proxy(config, workers=2, bind="127.0.0.1:0")
kept = proxy.events()

@proxy.filter("f", routes="*")
def f(request):
    return None

with proxy as running:
    # As often again as it takes until caches and allocators have what they keep.
    reload(running, range(reloads // 4))
    before = size()
    reload(running, range(reloads // 4, reloads // 4 + reloads))
    print(json.dumps([before, size()]))
"""


@pytest.mark.timeout(300)  # a thousand reloads of an engine that is not optimised
def test_a_thousand_reloads_leave_no_trace(upstream: Upstream) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(resources(upstream)), str(RELOADS)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    before, after = json.loads(result.stdout)
    grown = {name: after[name] - before[name] for name in before}
    assert (grown["threads"], grown["watched"]) == (0, 0)
    assert grown["files"] <= 8, "more than connections to the backend that are there or not"
    assert grown["objects"] <= CAPACITY, "more than the events that wait for their reader"
    assert grown["bytes"] < RELOADS * 4096, "less than a page for each: what allocators do"
