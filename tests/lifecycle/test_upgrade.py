"""A newer process takes the place of a running one: nothing is lost, whichever of them fails."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import threading
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest
from tests.engine.harness import Peer, get
from tests.lifecycle.conftest import Site, serving
from tests.lifecycle.load import Address, Load

from kgw.cli.upgrade import Successor, UpgradeFailed, UpgradeSocket
from kgw.listening import ListeningSocket

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Kgw, Running

    from kgw.proxy import Proxy


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "upgrade.sock")


def status(address: Address) -> int:
    with socket.create_connection(address, 5) as sock:
        peer = Peer(sock)
        peer.send(get())
        return peer.read_response().status


def test_upgrades_under_load_lose_no_request(running: type[Running], site: Site, path: str) -> None:
    # More workers, and fewer, than there are sockets to take over: every queue is served.
    run = running(*site.arguments("--upgrade-socket", path, workers=2))
    with Load(serving(run)) as busy, Load(busy.address, thinking=0.4) as thinking:
        for workers in (3, 1, 2):
            arguments = site.arguments("--upgrade-socket", path, "--upgrade", workers=workers)
            newer = running(*arguments)
            newer.stderr.after("took over sockets=2 drains=yes")
            assert run.wait() == 0
            assert "draining replaced=yes" in str(run.stderr)
            busy.goes_on()
            thinking.goes_on(1)
            run = newer
        assert busy.lost == thinking.lost == []
        assert busy.refused == thinking.refused == 0
        assert set(busy.statuses) == {200}
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    assert not os.path.lexists(path)


def test_a_new_process_that_cannot_start_changes_nothing(
    running: type[Running], kgw: Kgw, site: Site, path: str, tmp_path: Path
) -> None:
    run = running(*site.arguments("--upgrade-socket", path))
    address = serving(run)
    broken = site.arguments("--upgrade-socket", path, "--upgrade", "--bind", "nobody=127.0.0.1:0")
    result = kgw(*broken)
    assert result.returncode == 1, result.stderr
    run.stderr.after("goes on serving: the other process failed")
    assert status(address) == 200
    # And the next one can.
    newer = running(*site.arguments("--upgrade-socket", path, "--upgrade"))
    newer.stderr.after("took over")
    assert run.wait() == 0
    assert status(address) == 200


def test_an_old_process_that_dies_leaves_its_sockets_to_the_new_one(
    running: type[Running], site: Site, path: str
) -> None:
    run = running(*site.arguments("--upgrade-socket", path, workers=1))
    address = serving(run)
    successor = Successor(path)
    run.signal(signal.SIGKILL)
    run.wait()
    assert successor.ready() is False
    # Whoever connects meanwhile waits in the queue that was taken over.
    [(listener, sock)] = successor.sockets
    assert listener == "default/web/http"
    with socket.create_connection(address, 5):
        sock.accept()[0].close()
    successor.close()


def test_strangers_at_the_socket_disturb_nothing(
    running: type[Running], site: Site, path: str
) -> None:
    run = running(*site.arguments("--upgrade-socket", path))
    address = serving(run)
    for words in (b"hello", b"[]", b"{}", b'{"upgrade": 2}', b'{"upgrade": 1}', b""):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
            stranger.connect(path)
            if words:
                stranger.send(words)
        run.stderr.after("goes on serving: the other process failed")
    assert status(address) == 200


def test_the_place_of_another_process_is_not_taken_by_accident_nor_by_another_user(
    running: type[Running], kgw: Kgw, site: Site, path: str
) -> None:
    run = running(*site.arguments("--upgrade-socket", path))
    serving(run)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    result = kgw(*site.arguments("--upgrade-socket", path))
    assert result.returncode == 3
    assert "--upgrade takes its place" in result.stderr


def test_nobody_to_upgrade(kgw: Kgw, site: Site, path: str) -> None:
    result = kgw(*site.arguments("--upgrade-socket", path, "--upgrade"))
    assert result.returncode == 3
    assert f"nobody waits at {path}" in result.stderr
    # Nor is there a place to wait at in a directory that does not exist.
    nowhere = f"{path}.d/upgrade.sock"
    result = kgw(*site.arguments("--upgrade-socket", nowhere))
    assert result.returncode == 3
    assert nowhere in result.stderr
    result = kgw(*site.arguments("--upgrade"))
    assert result.returncode == 2
    assert "--upgrade-socket" in result.stderr


def test_what_a_dead_process_left_is_replaced_and_other_files_are_not(
    running: type[Running], kgw: Kgw, site: Site, path: str
) -> None:
    first = running(*site.arguments("--upgrade-socket", path))
    serving(first)
    first.signal(signal.SIGKILL)
    first.wait()
    assert os.path.exists(path)
    second = running(*site.arguments("--upgrade-socket", path))
    serving(second)
    second.signal(signal.SIGTERM)
    assert second.wait() == 0

    with open(path, "w") as file:
        file.write("mine")
    result = kgw(*site.arguments("--upgrade-socket", path))
    assert result.returncode == 3
    assert "is not a socket" in result.stderr


def test_a_process_of_another_user_is_not_trusted(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with UpgradeSocket(path):
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        with pytest.raises(UpgradeFailed, match="belongs to another user"):
            Successor(path)


class Sockets:
    """What a proxy has to hand over, without the proxy."""

    def __init__(self, count: int) -> None:
        self.sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]

    def listening_sockets(self) -> list[ListeningSocket]:
        return [ListeningSocket(f"l/{n}", sock.dup()) for n, sock in enumerate(self.sockets)]


def test_any_number_of_sockets_is_handed_over(path: str) -> None:
    proxy = Sockets(150)
    expected = [sock.getsockname() for sock in proxy.sockets]

    async def hand_over() -> Successor:
        taken: list[Successor] = []

        def take() -> None:
            taken.append(Successor(path))
            assert taken[0].ready()

        with UpgradeSocket(path) as upgrades:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.to_thread.run_sync, take)
                attempt = await upgrades.accept()
                await attempt.hand_over(cast("Proxy", proxy))
        return taken[0]

    successor = anyio.run(hand_over)
    assert [one.listener for one in successor.sockets] == [f"l/{n}" for n in range(150)]
    assert [one.socket.getsockname() for one in successor.sockets] == expected
    successor.close()
    for sock in proxy.sockets:
        sock.close()


def _answers(*packets: tuple[dict[str, Any], list[int]]) -> Any:
    """A process at the socket that says these things."""

    def serve(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(1000)
            for message, descriptors in packets:
                socket.send_fds(peer, [json.dumps(message).encode()], descriptors)

    return serve


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"refused": "the proxy is draining"}, "refuses: the proxy is draining"),
        ({"sockets": 0}, "0 is no number of sockets"),
        ({}, "None is no number of sockets"),
    ],
)
def test_an_answer_that_is_none_is_refused(path: str, message: dict[str, Any], why: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=_answers((message, [])), args=(listener,))
        thread.start()
        with pytest.raises(UpgradeFailed, match=why):
            Successor(path)
        thread.join()


def test_a_descriptor_that_is_no_listening_socket_is_refused(path: str) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        socket.socket() as connected,
    ):
        listener.bind(path)
        listener.listen()
        answers = _answers(({"sockets": 1}, []), ({"listeners": ["l"]}, [connected.fileno()]))
        thread = threading.Thread(target=answers, args=(listener,))
        thread.start()
        with pytest.raises(UpgradeFailed, match="does not listen"):
            Successor(path)
        thread.join()
