"""nginx: kept upstream connections, buffered log.

Path routes are locations, host routes are servers, header routes a map.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from benches.load.peers.base import Peer
from benches.load.spec import HOST

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benches.load.programs import Programs
    from benches.load.spec import Route, Spec

LOG = (
    '{"start_time":"$time_iso8601","method":"$request_method","path":"$request_uri",'
    '"protocol":"$server_protocol","response_code":$status,"response_flags":"-",'
    '"bytes_received":$request_length,"bytes_sent":$body_bytes_sent,'
    '"request_id":"$request_id","authority":"$http_host"}'
)
FOREVER = 1_000_000_000
"""Requests on a connection before nginx would close it."""


class Nginx(Peer):
    """One master process, and `Spec.workers` workers."""

    name = program = "nginx"

    def command(self, programs: Programs, spec: Spec, directory: Path) -> list[str]:
        config = directory / "nginx.conf"
        config.write_text(render(spec, directory))
        errors = str(directory / "error.log")
        return [programs.need("nginx"), "-c", str(config), "-p", str(directory), "-e", errors]

    def change(self, spec: Spec, directory: Path, pid: int) -> Callable[[], object]:
        text = render(spec, directory)

        def replace() -> None:
            (directory / "nginx.conf").write_text(text)
            os.kill(pid, signal.SIGHUP)

        return replace


def render(spec: Spec, directory: Path) -> str:
    """Returns the configuration file."""
    http = [*_log(spec, directory), *_hashes(spec), *_upstream(spec), *_shared(spec, directory)]
    if spec.waypoint or spec.bucket:
        http.append("limit_req_zone all zone=all:1m rate=10000000r/s;")
    http += _servers(spec)
    user = ["user root;"] if os.geteuid() == 0 else []
    lines = [
        "daemon off;",
        *user,
        f"worker_processes {spec.workers};",
        f"pid {directory}/nginx.pid;",
        f"error_log {directory}/error.log error;",
        f"worker_rlimit_nofile {spec.open_files};",
        f"events {{ worker_connections {spec.open_files - 100}; }}",
        "http {",
        *(f"  {line}" for line in http),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _log(spec: Spec, directory: Path) -> list[str]:
    if not spec.waypoint:
        return ["access_log off;"]
    file = f"access_log {directory}/access.log chain buffer=64k flush=1s;"
    return [f"log_format chain escape=none '{LOG}';", file]


def _hashes(spec: Spec) -> list[str]:
    """Returns the sizes of the tables of names, which nginx does not choose by itself."""
    size = max(1024, 2 * len(spec.rules()))
    return [
        f"server_names_hash_max_size {size}; server_names_hash_bucket_size 128;",
        f"map_hash_max_size {size}; map_hash_bucket_size 128;",
    ]


def _upstream(spec: Spec) -> list[str]:
    kept = f"keepalive 1024; keepalive_requests {FOREVER}; keepalive_timeout 3600s;"
    server = f"server 127.0.0.1:{spec.backend} max_fails=0;"
    return [f"upstream backend {{ {server} {kept} }}", "upstream none { server 127.0.0.1:1; }"]


def _shared(spec: Spec, directory: Path) -> list[str]:
    names = ("body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = ("client_body", *names[1:])
    headers = {
        "Connection": '""',
        "Host": "$http_host",
        "X-Request-Id": "$request_id",
        "X-Forwarded-For": "$proxy_add_x_forwarded_for",
        "X-Forwarded-Proto": "$scheme",
    }
    if spec.waypoint:
        headers["x-waypoint"] = "kgw"
    return [
        "proxy_http_version 1.1;",
        *(f"proxy_set_header {name} {value};" for name, value in headers.items()),
        "proxy_buffer_size 8k; proxy_buffers 16 64k; proxy_busy_buffers_size 128k;",
        "proxy_max_temp_file_size 0; client_body_buffer_size 128k; client_max_body_size 0;",
        "proxy_read_timeout 180s; proxy_send_timeout 180s;",
        f"keepalive_timeout 3600s; keepalive_requests {FOREVER};",
        "http2_max_concurrent_streams 1000;",
        *(
            f"{one}_temp_path {directory}/{name};"
            for one, name in zip(temporary, names, strict=True)
        ),
    ]


def _servers(spec: Spec) -> list[str]:
    address = f"listen 127.0.0.1:{spec.port}"
    listen = f"{address} backlog=4096"
    listen += " http2" if spec.h2 else ""
    listen += " proxy_protocol" if spec.proxy_protocol else ""
    rules = spec.rules()
    if spec.routes is not None and spec.routes.kind == "hosts":
        return [
            f"server {{ {listen if place == 0 else address}; server_name {rule.host};"
            f" {_location(spec, rule, is_last=rule is rules[-1])} }}"
            for place, rule in enumerate(rules)
        ]
    tenants = [rule.header[1] for rule in rules if rule.header is not None]
    before = []
    locations = [
        _location(spec, rule, is_last=rule is rules[-1]) for rule in rules if rule.header is None
    ]
    if tenants:
        before = ["map $http_x_tenant $tenant {", "  default none;"]
        before += [*(f"  {tenant} backend;" for tenant in tenants), "}"]
        locations.append("location /tenant/ { proxy_pass http://$tenant; }")
    name = f" server_name {HOST};" if spec.waypoint else ""
    return [*before, f"server {{ {listen};{name}", *(f"  {one}" for one in locations), "}"]


def _location(spec: Spec, rule: Route, *, is_last: bool) -> str:
    where = rule.prefix if rule.prefix == "/" or spec.waypoint or spec.bucket else rule.prefix + "/"
    if rule.regex is not None:
        where = f"~ ^{rule.regex}$"
    limit = "limit_req zone=all burst=10000000 nodelay; " if spec.is_limited(rule) else ""
    version = ""
    if spec.version and is_last:
        version = f"add_header x-version {spec.version} always; "
    return f"location {where} {{ {limit}{version}proxy_pass http://backend; }}"
