"""Programs that end, however they do: none hangs, none says more than it should."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from typing import Any, Self

import pytest
from tests.embed.upstream import TIMEOUT, Upstream, resources

LOOPS = ("asyncio", "trio")

PRELUDE = """
import atexit, json, os, signal, socket, sys, threading, time
# What a shell starts in the background ignores Ctrl-C, and so does what that starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
import anyio, kgw, kgw.events, kgw.streams  # an import that is interrupted complains
config, loop = json.loads(sys.argv[1]), sys.argv[2]
clients = []
atexit.register(lambda: [client.close() for client in clients])
proxy = kgw.Proxy(config, workers=2, bind="127.0.0.1:0")
LISTENER = "default/web/http"

def ask(running, path="/x"):
    client = socket.create_connection(running.addresses[LISTENER][0], timeout=30)
    clients.append(client)
    client.sendall(f"GET {path} HTTP/1.1\\r\\nhost: h\\r\\n\\r\\n".encode())
    return client

def sent(running, path):
    ask(running, path)
    while not running.stats()["upstream_rq_total"]:
        time.sleep(0.01)  # the backend must have it before the drain begins

def run(main):
    anyio.run(main, backend=loop)

def say(*words):
    print(*words, flush=True)
"""


class Program:
    """A program in an interpreter of its own, in development mode: what is forgotten is said."""

    def __init__(self, upstream: Upstream, loop: str, body: str) -> None:
        program = PRELUDE + textwrap.dedent(body)
        command = [sys.executable, "-X", "dev", "-W", "error", "-c", program]
        self._process = subprocess.Popen(
            [*command, json.dumps(resources(upstream)), loop],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        """The next line that it says."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def interrupt(self) -> None:
        """Does what Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, str, str]:
        """Its exit code, and the rest of what it said."""
        out, err = self._process.communicate(timeout=TIMEOUT)
        return self._process.returncode, out, err

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def ended(upstream: Upstream, loop: str, body: str) -> tuple[int, str, str]:
    """The exit code of a program, and what it said."""
    with Program(upstream, loop, body) as program:
        return program.end()


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_exiting_inside_the_block(upstream: Upstream, loop: str) -> None:
    body = """
    async def main():
        async with proxy as running, running.access_log() as records:
            ask(running)
            say(await anext(records) is not None)
            sys.exit(3)

    run(main)
    """
    assert ended(upstream, loop, body) == (3, "True\n", "")


def test_ctrl_c_inside_the_block(upstream: Upstream, loop: str) -> None:
    body = """
    async def main():
        async with proxy as running:
            say("serving")
            async for record in running.access_log():
                pass

    try:
        run(main)
    except KeyboardInterrupt:
        say(proxy.state.value)
    """
    with Program(upstream, loop, body) as program:
        assert program.line() == "serving"
        program.interrupt()
        assert program.end() == (0, "closed\n", "")


@pytest.mark.parametrize(
    ("prepares", "waits"),
    [
        ("pass", "running.wait_closed()"),
        ("records = running.access_log()", "list(records)"),
        ("events = running.events()", "list(events)"),
        ("sent(running, '/slow')", "running.drain(3600)"),
    ],
)
def test_ctrl_c_without_an_event_loop(upstream: Upstream, prepares: str, waits: str) -> None:
    body = f"""
    import contextlib
    with contextlib.suppress(KeyboardInterrupt), proxy as running:
        {prepares}
        say("waiting")
        {waits}
        say("not interrupted")
    say(proxy.state.value)
    """
    with Program(upstream, "none", body) as program:
        assert program.line() == "waiting"
        if "slow" in prepares:
            assert upstream.arrived.wait(TIMEOUT)
        program.interrupt()
        assert program.end() == (0, "closed\n", "")


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_exiting_in_a_filter(upstream: Upstream, loop: str, kind: str) -> None:
    body = f"""
    @proxy.filter("f", routes="*")
    {kind} f(request):
        sys.exit(4)

    async def main():
        async with proxy as running:
            client = ask(running)
            await anyio.sleep_forever()

    try:
        run(main)
    except BaseException as error:
        while isinstance(error, BaseExceptionGroup):
            error, = error.exceptions
        while not isinstance(error, SystemExit):  # trio wraps what leaves a system task
            error = error.__cause__ or error.__context__
            while isinstance(error, BaseExceptionGroup):
                error, = error.exceptions
        say(proxy.state.value)
        raise error from None
    """
    code, out, err = ended(upstream, loop, body)
    assert (code, out) == (4, "closed\n"), err


def test_a_filter_that_exits_without_an_event_loop_fails_its_request_only(
    upstream: Upstream,
) -> None:
    body = """
    @proxy.filter("f", routes="*")
    def f(request):
        sys.exit(4)

    with proxy as running:
        say(ask(running).recv(12).decode())
        say(ask(running).recv(12).decode())
    """
    code, out, err = ended(upstream, "none", body)
    assert (code, out) == (0, "HTTP/1.1 500\nHTTP/1.1 503\n")
    assert "no filter is called any longer" in err


def test_daemon_threads_that_wait(upstream: Upstream) -> None:
    body = """
    running = proxy.__enter__()
    # A stream of a proxy that is closed already would be refused.
    records, events = running.access_log(), running.events()
    waiting = [
        lambda: list(records),
        lambda: list(events),
        running.wait_closed,
        lambda: running.drain(3600),
    ]
    client = ask(running, "/slow")
    for one in waiting:
        threading.Thread(target=one, daemon=True).start()
    while running.state.value == "running":
        time.sleep(0.001)  # until the drain began: there is nothing to wait for
    say("end")
    """
    assert ended(upstream, "none", body) == (0, "end\n", "")


def test_a_loop_that_is_gone_leaves_a_proxy_that_serves(upstream: Upstream) -> None:
    body = """
    import asyncio
    loop = asyncio.new_event_loop()
    loop.slow_callback_duration = 1000  # a busy machine is nothing to tell of
    loop.run_until_complete(proxy.__aenter__())
    slow = ask(proxy, "/slow")
    say("asked")
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    say(slow.recv(12).decode(), ask(proxy).recv(12).decode())
    """
    with Program(upstream, "asyncio", body) as program:
        assert program.line() == "asked"
        assert upstream.arrived.wait(TIMEOUT)
        upstream.let_go.set()
        assert program.end() == (0, "HTTP/1.1 200 HTTP/1.1 200\n", "")


def test_a_drain_under_way_is_cut_short(upstream: Upstream, loop: str) -> None:
    body = """
    async def main():
        await proxy.__aenter__()
        client = ask(proxy, "/slow")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(proxy.drain, 3600)
            while proxy.state.value == "running":
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()

    import anyio.lowlevel
    run(main)
    say("end")
    """
    assert ended(upstream, loop, body) == (0, "end\n", "")


def test_exit_functions_run_in_their_order(upstream: Upstream) -> None:
    body = """
    import kgw.proxy
    atexit.unregister(kgw.proxy._close_all)

    def after():
        say("after", proxy.state.value)

    def before():
        say("before", ask(running).recv(12).decode())

    atexit.register(after)
    atexit.register(kgw.proxy._close_all)
    running = proxy.__enter__()
    atexit.register(before)
    """
    result = ended(upstream, "none", body)
    assert result == (0, "before HTTP/1.1 200\nafter closed\n", "")


def test_an_interpreter_that_has_no_modules_left_says_nothing(upstream: Upstream) -> None:
    body = """
    class Late:
        def __init__(self, *kept):
            self.kept = kept

        def __del__(self):
            kept, self.kept = self.kept, ()
            del kept

    running = proxy.__enter__()
    late = Late(running, running.access_log(), running.events(), proxy)
    late.itself = late
    sys.late = late
    sys.unraisablehook = lambda what: os.write(1, f"unraisable {what}".encode())
    """
    assert ended(upstream, "none", body) == (0, "", "")
