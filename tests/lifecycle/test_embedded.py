"""The same inside a program: sockets given and asked for, two-step drains, limits."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.embed.upstream import resources
from tests.engine.harness import Peer, eventually, get

import kgw
from kgw.listening import ListeningSocket
from kgw.proxy import ManualClock, State

if TYPE_CHECKING:
    from tests.lifecycle.conftest import Address, Site


def connect(address: Address) -> Peer:
    return Peer(socket.create_connection(address, 5))


def ask(address: Address) -> str | None:
    """Gets an answer on a connection of its own; returns what it says of the connection."""
    peer = connect(address)
    peer.send(get())
    answer = peer.read_response()
    assert answer.status == 200
    peer.close()
    return answer.get("connection")


def proxy(site: Site, **more: Any) -> kgw.Proxy:
    return kgw.Proxy(resources(site), **({"workers": 2} | more))


def test_a_given_socket_is_listened_on_and_others_are_closed(site: Site) -> None:
    own, other = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    address = own.getsockname()
    with proxy(site, bind="{}:{}".format(*address), sockets=[own, other]) as running:
        assert running.addresses == {"default/web/http": [address]}
        assert ask(address) is None
        assert own.fileno() == other.fileno() == -1
    with pytest.raises(ConnectionRefusedError):
        connect(address)


def test_the_sockets_of_a_proxy_go_on_in_another(site: Site) -> None:
    with proxy(site, bind="127.0.0.1:0") as first:
        address = first.addresses["default/web/http"][0]
        sockets = first.listening_sockets()
        assert [one.listener for one in sockets] == ["default/web/http"] * 2
        assert {one.address for one in sockets} == {address}
        with kgw.Proxy(resources(site), bind="127.0.0.1:0", workers=5, sockets=sockets) as second:
            assert second.addresses == first.addresses
            assert first.drain(5) is True
            for _ in range(20):
                assert ask(address) is None
    assert all(one.socket.fileno() == -1 for one in sockets)


def test_a_proxy_that_cannot_start_closes_what_it_was_given(site: Site) -> None:
    given = socket.create_server(("127.0.0.1", 0))
    broken = proxy(site, bind="nobody=127.0.0.1:0", sockets=[ListeningSocket("l", given)])
    with pytest.raises(kgw.ConfigError), broken:
        pass
    assert given.fileno() == -1


def test_a_drain_accepts_for_a_while(site: Site) -> None:
    clock = ManualClock()

    async def main() -> None:
        async with proxy(site, bind="127.0.0.1:0", clock=clock) as running:
            address = running.addresses["default/web/http"][0]
            ended: list[bool] = []

            async def drain() -> None:
                ended.append(await running.drain(30, min=10))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(drain)
                await anyio.to_thread.run_sync(eventually, lambda: ask(address) == "close")
                with pytest.raises(kgw.NotRunning):
                    running.listening_sockets()
                clock.advance(10)
            assert ended == [True]

    anyio.run(main)


def test_what_makes_no_sense_is_refused(site: Site) -> None:
    for name in ("workers", "max_connections", "max_memory"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1"):
            proxy(site, **{name: 0})
    with socket.socket() as idle, pytest.raises(ValueError, match="does not listen"):
        proxy(site, sockets=[idle])
    with proxy(site, bind="127.0.0.1:0") as running:
        for least, most in ((2.0, 1.0), (-1.0, 1.0)):
            with pytest.raises(ValueError, match="min must be between 0 and max"):
                running.drain(most, min=least)
        assert running.state is State.RUNNING


def test_a_limit_of_connections(site: Site) -> None:
    with proxy(site, bind="127.0.0.1:0", max_connections=1) as running:
        address = running.addresses["default/web/http"][0]
        first, second = connect(address), connect(address)
        for peer in (first, second):
            peer.send(get())
        eventually(lambda: first.is_readable() or second.is_readable(), "an answer")
        assert running.stats()["downstream_cx_active"] == 1
        for peer in sorted((first, second), key=Peer.is_readable, reverse=True):
            assert peer.read_response().status == 200
            peer.close()
