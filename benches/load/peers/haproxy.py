"""HAProxy: reused upstream connections, maps for routes.

It has no buffered file log: its access log goes to standard output, a write for each line.
"""

from __future__ import annotations

import os
import shlex
import signal
from typing import TYPE_CHECKING

from benches.load.peers.base import Peer
from benches.load.spec import HOST, LIMITED, WAYPOINT_PREFIXES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benches.load.programs import Programs
    from benches.load.spec import RouteTable, Spec

LOG = (
    '{"start_time":"%[date,utime(%Y-%m-%dT%H:%M:%SZ)]","method":"%HM","path":"%HU",'
    '"protocol":"%HV","response_code":%ST,"response_flags":"%ts","bytes_received":%U,'
    '"bytes_sent":%B,"request_id":"%ID","authority":"%[var(txn.host)]"}'
)


class HAProxy(Peer):
    """`Spec.workers` threads, and a master process where the configuration is to be replaced."""

    name = program = "haproxy"

    def command(self, programs: Programs, spec: Spec, directory: Path) -> list[str]:
        config = directory / "haproxy.cfg"
        config.write_text(render(spec, directory))
        command = [programs.need("haproxy"), "-f", str(config)]
        if spec.version:
            command.append("-W")
        if spec.waypoint:
            log = shlex.quote(str(directory / "access.log"))
            command = ["sh", "-c", f"exec {shlex.join(command)} >> {log}"]
        return command

    def change(self, spec: Spec, directory: Path, pid: int) -> Callable[[], object]:
        text = render(spec, directory)

        def replace() -> None:
            (directory / "haproxy.cfg").write_text(text)
            os.kill(pid, signal.SIGUSR2)

        return replace


def render(spec: Spec, directory: Path) -> str:
    """Returns the configuration file, and writes the maps that it names."""
    sections = {
        "global": _global(spec),
        "defaults": [
            "mode http",
            "timeout connect 5s",
            "timeout client 3600s",
            "timeout server 180s",
            "timeout http-request 30s",
            "timeout http-keep-alive 3600s",
            "option splice-auto",
        ],
        "frontend in": [*_frontend(spec), *_policies(spec), *_routes(spec, directory)],
        "backend backend": [
            "http-reuse always",
            f"server origin 127.0.0.1:{spec.backend} pool-max-conn -1",
        ],
    }
    if spec.waypoint or spec.bucket:
        sections["backend bucket"] = [
            "stick-table type integer size 1k expire 60s store http_req_rate(1s)"
        ]
    return "".join(
        f"{name}\n" + "".join(f"  {line}\n" for line in lines) for name, lines in sections.items()
    )


def _global(spec: Spec) -> list[str]:
    lines = [
        f"nbthread {spec.workers}",
        f"maxconn {spec.connections}",
        "maxpipes 64",
        f"fd-hard-limit {spec.open_files}",
        "stats timeout 1s",
    ]
    return [*lines, "log stdout len 8192 format raw local0 info"] if spec.waypoint else lines


def _frontend(spec: Spec) -> list[str]:
    bind = f"bind 127.0.0.1:{spec.port} backlog 4096"
    bind += " proto h2" if spec.h2 else ""
    bind += " accept-proxy" if spec.proxy_protocol else ""
    return [
        bind,
        "option forwardfor",
        "unique-id-format %[uuid()]",
        "unique-id-header x-request-id",
        "http-request set-header x-forwarded-proto http",
    ]


def _policies(spec: Spec) -> list[str]:
    lines = []
    if spec.waypoint or spec.bucket:
        where = f" if {{ path_beg {LIMITED} }}" if spec.bucket else ""
        lines += [
            f"http-request track-sc0 int(1) table bucket{where}",
            "http-request deny deny_status 429 if { sc_http_req_rate(0) gt 100000000 }",
        ]
    if spec.waypoint:
        escaped = LOG.replace(" ", "\\ ").replace('"', '\\"')
        lines += [
            "log global",
            f"log-format {escaped}",
            "http-request set-var(txn.host) req.hdr(host)",
            "http-request add-header x-waypoint kgw",
        ]
    return lines


def _routes(spec: Spec, directory: Path) -> list[str]:
    if spec.waypoint:
        host = f"{{ hdr(host) -i {HOST} }}"
        return [
            f"use_backend backend if {host} {{ path_beg {path} }}" for path in WAYPOINT_PREFIXES
        ]
    if spec.routes is None:
        return ["default_backend backend"]
    lines = _maps(spec.routes, directory)
    if spec.version:
        last = spec.routes.routes()[-1].prefix
        lines.append(f"http-request set-var(txn.changing) bool(true) if {{ path_beg {last}/ }}")
        condition = "{ var(txn.changing) -m bool }"
        lines.append(f"http-response set-header x-version {spec.version} if {condition}")
    return lines


def _maps(table: RouteTable, directory: Path) -> list[str]:
    rules = table.routes()
    if table.kind == "hosts":
        hosts = _map(directory / "hosts.map", [rule.host for rule in rules])
        return [f"use_backend %[req.hdr(host),lower,map_str({hosts},none)]"]
    plain = [rule.prefix + "/" for rule in rules if rule.regex is None and rule.header is None]
    prefixes = _map(directory / "prefixes.map", plain)
    if table.kind == "paths":
        return [f"use_backend %[path,map_beg({prefixes},none)]"]
    regexes = _map(directory / "regexes.map", [f"^{rule.regex}$" for rule in rules if rule.regex])
    tenants = _map(directory / "tenants.map", [rule.header[1] for rule in rules if rule.header])
    return [
        f"use_backend %[req.hdr(x-tenant),map_str({tenants},none)] if {{ path_beg /tenant/ }}",
        f"use_backend %[path,map_beg({prefixes},none)] if {{ path_beg /svc- }}",
        f"use_backend %[path,map_reg({regexes},none)]",
    ]


def _map(path: Path, keys: list[str]) -> Path:
    """Writes a map of keys that all lead to the backend; returns its path."""
    path.write_text("".join(f"{key} backend\n" for key in keys))
    return path
