"""``rateLimit.global`` with a Redis or Valkey server: limits that are shared without a service."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine.harness import Peer, Upstream, eventually, refused_address
from tests.policies.redis_server import RedisServer
from tests.policies.shared_limits import ROUTE, by, header, limited, provider, service
from tests.scenario.conftest import stage as stage
from tests.scenario.stage import EDGE
from tests.translate.certificates import config_map, issued

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.scenario.stage import Scene, Stage

#: Three requests at once, and another one every 20 minutes: none comes back during a test.
PER_USER = {"descriptor": [{"key": "x-user"}], "requests": 3, "unit": "Hour", "name": "per-user"}
USER = by(header("x-user"))


PAGE = Path(__file__).parents[2] / "docs" / "global-rate-limits.md"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that has nothing in it."""
    with RedisServer(tmp_path) as server:
        yield server


def manifests(
    port: int,
    *more: str,
    settings: dict[str, Any] | None = None,
    descriptors: tuple[dict[str, Any], ...] = (USER,),
    hits: dict[str, Any] | None = None,
    **fields: Any,
) -> tuple[str, ...]:
    """A route whose users are limited by a server on a port."""
    extension = provider("redis", {"limits": [PER_USER], **(settings or {})}, **fields)
    limit = limited(*descriptors, hits=hits)
    return (EDGE, ROUTE, service("limiter", f"127.0.0.1:{port}"), extension, limit, *more)


def serve(stage: Stage, port: int, *more: str, **fields: Any) -> Scene:
    """Serves that."""
    stage.service("web")
    return stage.serve(*manifests(port, *more, **fields))


def statuses(scene: Scene, count: int, user: str = "ann", *fields: str) -> list[int]:
    """The statuses of several requests of a user."""
    return [scene.get("/", f"x-user: {user}", *fields).status for _ in range(count)]


def test_each_user_has_a_bucket(stage: Stage, redis: RedisServer) -> None:
    scene = serve(stage, redis.port, xRateLimitHeaders="DraftVersion03")
    first = scene.get("/", "x-user: ann")
    assert first.sent("x-ratelimit-limit") == ['3, 3;w=3600;name="per-user"']
    assert first.sent("x-ratelimit-remaining") == ["2"]
    # One of three that come back in an hour.
    assert first.sent("x-ratelimit-reset") == ["1200"]
    assert statuses(scene, 3) == [200, 200, 429]
    refused = scene.get("/", "x-user: ann")
    assert (refused.body, refused.sent("x-envoy-ratelimited")) == (b"", ["true"])
    assert 1190 <= int(refused.sent("retry-after")[0]) <= 1200
    assert refused.sent("x-ratelimit-remaining") == ["0"]
    assert statuses(scene, 1, "bob") == [200]
    assert scene.get("/").status == 200
    assert scene.stat("ratelimit_over_limit") == 2
    assert scene.stat("ratelimit_error") == 0


def test_buckets_fill_by_the_server_s_clock(stage: Stage, redis: RedisServer) -> None:
    """The proxy's clock stands still here."""
    fast = {**PER_USER, "requests": 10, "unit": "Second", "burst": 1}
    scene = serve(stage, redis.port, settings={"limits": [fast]})
    assert statuses(scene, 1) == [200]
    eventually(lambda: statuses(scene, 1) == [200], "a token that came back")
    # A bucket that is full again is not stored any longer.
    eventually(lambda: redis.command("DBSIZE") == b":0", "an empty database")


def test_proxies_share_a_limit(stage: Stage, redis: RedisServer) -> None:
    scene = serve(stage, redis.port)
    other = stage.run(stage.config(*manifests(redis.port)), workers=2)
    assert statuses(scene, 1) + statuses(other, 1) + statuses(scene, 1) == [200] * 3
    assert statuses(other, 1) + statuses(scene, 1) == [429, 429]
    # One connection per worker, whatever is asked.
    assert int(redis.command("CLIENT", "LIST").count(b"cmd=evalsha")) <= 3


def test_many_at_once_are_counted_exactly(stage: Stage, redis: RedisServer) -> None:
    """What is asked at once goes over one connection, and each gets its own answer."""
    limit = {**PER_USER, "requests": 40}
    scene = serve(stage, redis.port, settings={"limits": [limit]})
    peers = [scene.connect() for _ in range(60)]
    for peer in peers:
        peer.send(b"GET / HTTP/1.1\r\nhost: a\r\nx-user: ann\r\n\r\n")
    found = sorted(peer.read_response().status for peer in peers)
    assert found == [200] * 40 + [429] * 20


def test_who_is_over_one_limit_takes_nothing_from_others(stage: Stage, redis: RedisServer) -> None:
    once = {"descriptor": [{"key": "host"}], "requests": 1, "unit": "Day"}
    descriptors = (USER, by({"type": "Host"}))
    scene = serve(stage, redis.port, settings={"limits": [PER_USER, once]}, descriptors=descriptors)
    assert statuses(scene, 3) == [200, 429, 429]
    scene.apply(*manifests(redis.port))
    assert statuses(scene, 3) == [200, 200, 429]


def test_limits_are_of_descriptors_or_of_their_values(stage: Stage, redis: RedisServer) -> None:
    root = {"descriptor": [{"key": "x-user", "value": "root"}], "requests": 5, "unit": "Day"}
    own = by({"type": "Method"}, limit={"requests": 7, "unit": "Day"})
    scene = serve(stage, redis.port, settings={"limits": [root, PER_USER]}, descriptors=(USER, own))
    assert statuses(scene, 4) == [200, 200, 200, 429]
    # Four of seven are left of the descriptor that says its own.
    assert statuses(scene, 5, "root") == [200, 200, 200, 200, 429]


def test_what_requests_cost(stage: Stage, redis: RedisServer) -> None:
    scene = serve(stage, redis.port, hits={"header": "x-cost"})
    assert statuses(scene, 2, "ann", "x-cost: 2") == [200, 429]
    assert statuses(scene, 2, "ann", "x-cost: 0") == [200, 200]
    assert statuses(scene, 2, "ann") == [200, 429]
    never = scene.get("/", "x-user: bob", "x-cost: 4")
    assert (never.status, never.sent("retry-after")) == (429, [])


def test_keys_are_named_after_what_is_counted(stage: Stage, redis: RedisServer) -> None:
    scene = serve(stage, redis.port, settings={"keyPrefix": "edge:", "database": 3})
    assert statuses(scene, 1, "a b") == [200]
    with_database = redis.connect()
    assert redis.on(with_database, "SELECT", "3") == b"+OK"
    assert redis.on(with_database, "KEYS", "*") == b"edge:{shop}3/h/3:x-user=a%20b\n"
    expires = int(redis.on(with_database, "PTTL", "edge:{shop}3/h/3:x-user=a%20b")[1:])
    assert 1_190_000 < expires <= 1_200_001
    with_database.close()


def test_a_server_that_forgot_the_script_is_sent_it(stage: Stage, redis: RedisServer) -> None:
    scene = serve(stage, redis.port)
    assert statuses(scene, 1) == [200]
    assert redis.command("SCRIPT", "FLUSH") == b"+OK"
    assert statuses(scene, 3) == [200, 200, 429]
    assert scene.stat("ratelimit_error") == 0


# === Logging in ===

SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}}


def secret(**data: str) -> str:
    """The Secret of the extension."""
    return json.dumps({**SECRET, "stringData": data})


def test_the_proxy_logs_in(stage: Stage, tmp_path: Path) -> None:
    with RedisServer(tmp_path, "--requirepass", "s3cret") as redis:
        scene = serve(
            stage,
            redis.port,
            secret(password="s3cret"),
            settings={"secretRef": {"name": "login"}},
            failOpen=False,
        )
        assert statuses(scene, 4) == [200, 200, 200, 429]
        scene.apply(
            *manifests(
                redis.port,
                secret(password="wrong"),
                settings={"secretRef": {"name": "login"}},
                failOpen=False,
            )
        )
        assert statuses(scene, 1) == [500]
        config = stage.config(
            *manifests(
                redis.port,
                secret(password="s3cret"),
                settings={"secretRef": {"name": "login"}},
            )
        )
        assert "s3cret" not in repr(config)
        assert "s3cret" not in str(config.findings)


def test_the_proxy_logs_in_as_a_user_that_may_do_no_more_than_it_must(
    stage: Stage, tmp_path: Path
) -> None:
    rights = "on >pw ~kgw:* +ping +select +evalsha +eval +get +set +time"
    with RedisServer(
        tmp_path, "--user", "kgw", *rights.split(), "--user", "default", "off"
    ) as redis:
        scene = serve(
            stage,
            redis.port,
            secret(username="kgw", password="pw"),
            settings={"secretRef": {"name": "login"}},
            failOpen=False,
        )
        assert statuses(scene, 4) == [200, 200, 200, 429]


def test_a_secret_that_there_is_not_takes_the_route_out_of_service(stage: Stage) -> None:
    stage.service("web")
    every = manifests(1, settings={"secretRef": {"name": "login"}})
    scene = stage.serve(*every, strict=False)
    assert statuses(scene, 1) == [500]
    findings = stage.config(*every).findings
    assert any("Secret default/login" in one.message for one in findings)
    findings = stage.config(*every, secret(user="kgw")).findings
    assert any("has no key password" in one.message for one in findings)


def test_a_server_is_asked_over_tls(stage: Stage, tmp_path: Path) -> None:
    chain, key = issued("redis.example")
    for name, text in (("chain.pem", chain), ("key.pem", key)):
        (tmp_path / name).write_text(text)
    options = ["--tls-cert-file", str(tmp_path / "chain.pem")]
    options += ["--tls-key-file", str(tmp_path / "key.pem"), "--tls-auth-clients", "no"]
    options += ["--tls-ca-cert-file", str(tmp_path / "chain.pem")]
    policy = """
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: limiter}
spec:
  targetRefs: [{group: "", kind: Service, name: limiter}]
  validation:
    hostname: redis.example
    caCertificateRefs: [{group: "", kind: ConfigMap, name: ca}]
"""
    with RedisServer(tmp_path, *options, is_tls=True) as redis:
        scene = serve(stage, redis.port, policy, config_map("ca"), failOpen=False)
        assert statuses(scene, 4) == [200, 200, 200, 429]


# === Without the server ===


@pytest.mark.parametrize("fail_open", [True, False])
def test_without_the_server_requests_go_on_unless_they_are_not_to(
    stage: Stage, fail_open: bool
) -> None:
    with refused_address() as address:
        port = int(address.rpartition(":")[2])
        scene = serve(stage, port, failOpen=fail_open)
        assert statuses(scene, 4) == [200 if fail_open else 500] * 4
        assert scene.stat("ratelimit_error") == 4
        # Who was refused a moment ago is not asked again at once.
        assert scene.stat("redis_failed") == 1


def test_a_server_that_dies_and_comes_back(stage: Stage, redis: RedisServer) -> None:
    """The clock stands still: nothing here waits for a time-out."""
    half = {"limits": [{**PER_USER, "requests": 4}], "localFallback": {"percent": 50}}
    scene = serve(stage, redis.port, settings=half)
    assert statuses(scene, 2) == [200, 200]
    redis.stop()
    # By itself the proxy lets half of four pass.
    assert statuses(scene, 3) == [200, 200, 429]
    assert scene.stat("ratelimit_local_fallback") == 3
    redis.start()
    # A change of the configuration does not fill the proxy's own buckets.
    scene.apply(*manifests(redis.port, settings=half, timeout="90ms"))
    assert statuses(scene, 1) == [429]
    scene.clock.advance(10)
    # The server has forgotten everything, the proxy has not: who passes was counted there.
    eventually(lambda: statuses(scene, 1) == [200], "the server's decision")
    errors = scene.stat("ratelimit_error")
    assert statuses(scene, 4) == [200, 200, 200, 429]
    assert scene.stat("ratelimit_error") == errors


def test_a_server_that_does_not_answer_costs_the_first_one_its_time_and_others_none(
    stage: Stage,
) -> None:
    hanging = Upstream(None)
    port = int(hanging.address.rpartition(":")[2])
    try:
        scene = serve(stage, port, timeout="150ms", failOpen=False)
        first = _send(scene)
        held = hanging.accept()
        scene.clock.advance(0.149)
        scene.settle()
        assert not first.is_readable()
        scene.clock.advance(0.001)
        assert first.read_response().status == 500
        assert scene.stat("ratelimit_timeout") == 1
        # After a second the connection is given up, and nobody waits until the server has answered.
        scene.clock.advance(1)
        scene.reaches("redis_failed", 1)
        assert held.read_to_end() == b"*1\r\n$4\r\nPING\r\n"
        assert _send(scene).read_response().status == 500
        scene.clock.advance(10)
        assert _send(scene).read_response().status == 500
        hanging.accept()
        assert _send(scene).read_response().status == 500
        assert scene.stat("ratelimit_timeout") == 1
    finally:
        hanging.close()


def _send(scene: Scene) -> Peer:
    peer = scene.connect()
    peer.send(b"GET / HTTP/1.1\r\nhost: a\r\nx-user: ann\r\n\r\n")
    return peer


def _speaking(reply: bytes) -> Any:
    """A server that lets log in, and answers everything else with this."""

    def script(peer: Peer) -> None:
        while True:
            data = peer.sock.recv(65536)
            if not data:
                return
            peer.send(b"+PONG\r\n" if b"PING" in data else reply)

    return script


@pytest.mark.parametrize(
    "reply",
    [
        b"-READONLY You can't write against a read only replica.\r\n",
        b"-MOVED 1234 10.0.0.1:6379\r\n",
        b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
        b":1\r\n",
        b"*1\r\n:1\r\n",
        b"$-1\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"*1000000000\r\n",
        b"+" + b"a" * 20_000 + b"\r\n",
        b"*4\r\n:1\r\n:2\r\n:0\r\n:0\r\n:7\r\n",
    ],
)
def test_what_is_no_answer_is_no_decision(stage: Stage, reply: bytes) -> None:
    server = Upstream(_speaking(reply))
    try:
        port = int(server.address.rpartition(":")[2])
        scene = serve(stage, port, failOpen=False)
        # The last of the replies above is one too many: the first request has an answer.
        expected = 200 if reply.startswith(b"*4") else 500
        assert statuses(scene, 1) == [expected]
        assert statuses(scene, 1, "bob") in ([500], [expected])
        assert scene.get("/").status == 200
    finally:
        server.close()


def test_a_descriptor_without_a_limit_is_warned_of(stage: Stage) -> None:
    every = manifests(1, descriptors=(USER, by({"type": "Method"})))
    (finding,) = [one for one in stage.config(*every).findings if one.code == "KGW413"]
    assert finding.path[-2:] == ("descriptors", 1)
    assert "nothing is counted by it" in finding.message


def test_the_page_is_true(stage: Stage, tmp_path: Path) -> None:
    first, second = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    policy, service_of_page = first.replace("name: shop}", "name: r}").split("---\n")
    with RedisServer(tmp_path, "--requirepass", "s3cret") as redis:
        stage.service("web")
        where = service("redis", f"127.0.0.1:{redis.port}").replace("9000", "6379")
        login = json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "redis-login"},
                "stringData": {"password": "s3cret"},
            }
        )
        scene = stage.serve(EDGE, ROUTE, policy, second, where, login)
        # The burst of what the page calls per-user; one in a tenth of a second comes back.
        assert statuses(scene, 20) == [200] * 20
        keys = redis.connect()
        assert redis.on(keys, "AUTH", "s3cret") == b"+OK"
        assert redis.on(keys, "KEYS", "*") == b"kgw:{shop}10/s/50:x-user=ann\n"
        keys.close()
        # The same policy with the service that the page begins with.
        asked = service("ratelimit", "127.0.0.1:1").replace("9000", "8081")
        scene.apply(EDGE, ROUTE, policy, service_of_page, asked)
        assert statuses(scene, 1) == [200]
        assert scene.stat("ratelimit_failure_mode_allowed") == 1
