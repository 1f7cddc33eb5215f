"""A process that forks while it has a proxy: the child has none, and says so whatever it asks."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from tests.embed.upstream import TIMEOUT, Upstream, fetch, resources

import kgw
from kgw.proxy import ManualClock, State

if TYPE_CHECKING:
    from collections.abc import Callable

LOCAL = "127.0.0.1:0"
LISTENER = "default/web/http"

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def in_child(check: Callable[[], object]) -> None:
    """Runs *check* in a forked child; a child that waits for ever is ended by a signal."""
    child = os.fork()
    if child == 0:
        signal.alarm(int(TIMEOUT))
        try:
            check()
            os._exit(0)
        except BaseException:  # also a failed assertion: the child must not go on as a test run
            traceback.print_exc()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def refused(call: Callable[[], object]) -> None:
    with pytest.raises(kgw.NotRunning, match=r"fork|parent process"):
        call()


def calls(proxy: kgw.Proxy | kgw.BlockingProxy, config: Any) -> dict[str, Callable[[], object]]:
    """Every public method and property that needs a proxy which runs."""
    kind = type(proxy)
    arguments: dict[str, tuple[Any, ...]] = {"apply": (config,)}
    found: dict[str, Callable[[], object]] = {}
    for name, member in vars(kind).items():
        if name.startswith("_") or name in {"state", "config", "kill", "filter"}:
            continue
        if isinstance(member, property):
            found[name] = lambda name=name: getattr(proxy, name)  # type: ignore[misc]  # mypy cannot infer it
        elif inspect.iscoroutinefunction(member):
            found[name] = lambda member=member, name=name: asyncio.run(  # type: ignore[misc]  # as above
                member(proxy, *arguments.get(name, ()))
            )
        else:
            found[name] = lambda member=member, name=name: member(  # type: ignore[misc]  # as above
                proxy, *arguments.get(name, ())
            )
    return found


def test_a_forked_child_has_no_proxy_whatever_it_asks(upstream: Upstream) -> None:
    config = resources(upstream)
    proxy = kgw.Proxy(config, workers=1, bind=LOCAL)

    def check() -> None:
        for face in (proxy, running):
            asked = calls(face, config)
            assert {"addresses", "apply", "stats", "drain", "wait_closed", "events"} <= set(asked)
            for call in asked.values():
                refused(call)
            face.kill()
            assert face.state is State.CLOSED
            assert "closed" in repr(face)
        refused(proxy.__enter__)

    with proxy as running:
        in_child(check)
        assert fetch(running.addresses[LISTENER][0], "/x") == (200, b"/x")
        assert running.state is State.RUNNING


def test_locks_that_are_held_elsewhere_stop_no_child(upstream: Upstream) -> None:
    config = resources(upstream)
    with kgw.Proxy(config, workers=1, bind=LOCAL) as running:
        core = running._core

        def check() -> None:
            for call in calls(running, config).values():
                refused(call)

        # As other threads hold them in the moment of the fork: in the child nobody lets go of them.
        with core._apply_lock, core._reading:
            in_child(check)


def test_a_child_that_leaves_the_block_leaves_the_parent_alone(upstream: Upstream) -> None:
    with kgw.Proxy(resources(upstream), workers=1, bind=LOCAL) as running:

        def leave() -> None:
            proxy = kgw.Proxy(resources(upstream))
            proxy._core = running._core
            proxy.__exit__(None, None, None)

        in_child(leave)
        assert fetch(running.addresses[LISTENER][0], "/x") == (200, b"/x")


def test_a_clock_of_the_parent_does_not_move_in_a_child(upstream: Upstream) -> None:
    clock = ManualClock()
    with kgw.Proxy(resources(upstream), workers=1, bind=LOCAL, clock=clock):
        in_child(lambda: refused(lambda: clock.advance(1)))


def test_a_child_may_have_a_proxy_of_its_own(upstream: Upstream) -> None:
    waiting = kgw.Proxy(resources(upstream), workers=1, bind=LOCAL)

    def serve() -> None:
        with waiting as own:
            assert fetch(own.addresses[LISTENER][0], "/x") == (200, b"/x")

    with kgw.Proxy(resources(upstream), workers=1, bind=LOCAL):
        in_child(serve)
    assert waiting.state is State.NEW
