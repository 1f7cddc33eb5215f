"""Real servers as backends."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from tests.engine.harness import free_port
from tests.peers.proxies import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WAIT = 20.0
"""Seconds that a server may take to start."""


@contextlib.contextmanager
def _running(command: list[str], port: int, log: Path) -> Iterator[str]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT)
    with process:
        try:
            deadline = time.monotonic() + WAIT
            while True:
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)  # looks again, until the deadline
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(WAIT)
            process.kill()


@contextlib.contextmanager
def granian(directory: Path, *, http: str) -> Iterator[str]:
    """Granian with the echo application; ``http`` is `1` or `2`."""
    pytest.importorskip("granian")
    port = free_port()
    command = [sys.executable, "-m", "granian", "--interface", "asgi", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--http", http, "tests.clients.echo_app:app"]
    with _running(command, port, directory / "granian.log") as address:
        yield address


@contextlib.contextmanager
def hypercorn(directory: Path) -> Iterator[str]:
    """Hypercorn with the echo application; it takes HTTP/1.1 and HTTP/2 on one port."""
    pytest.importorskip("hypercorn")
    port = free_port()
    command = [sys.executable, "-m", "hypercorn", "--bind", f"127.0.0.1:{port}"]
    command += ["tests.clients.echo_app:app"]
    with _running(command, port, directory / "hypercorn.log") as address:
        yield address


NGINX = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{
    listen 127.0.0.1:{port}{options};
    root {directory};
    location = /answer {{ return 200 "$request_method $server_protocol\\n"; }}
    location = /empty {{ return 204; }}
    location = /moved {{ return 301 /answer; }}
  }}
}}
"""


@contextlib.contextmanager
def nginx(directory: Path, *, http2: bool) -> Iterator[str]:
    """nginx with a file `file.bin`, and answers of its own."""
    binary = shutil.which("nginx")
    if binary is None:
        pytest.skip("nginx is not installed")
    port = free_port()
    (directory / "file.bin").write_bytes(bytes(range(256)) * 8192)
    config = directory / "nginx.conf"
    options = " http2" if http2 else ""
    config.write_text(NGINX.format(directory=directory, port=port, options=options))
    command = [binary, "-p", str(directory), "-e", str(directory / "e.log"), "-c", str(config)]
    with _running(command, port, directory / "nginx.log") as address:
        yield address
