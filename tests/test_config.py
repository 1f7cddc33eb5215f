"""A configuration as a whole: from files and objects to the representation and the findings."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.translate.certificates import issued, secret

from kgw import api
from kgw.config import Config, load, watch
from kgw.errors import ConfigError
from kgw.source import parse_text

WAYPOINT = Path("examples/waypoint")

GATEWAY = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web}
spec:
  gatewayClassName: kgateway
  listeners:
  - {name: http, port: 8080, protocol: HTTP}
"""
ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: NAME}
spec:
  parentRefs: [{name: web}]
  rules:
  - matches:
    - path: {type: PathPrefix, value: /NAME}
    filters:
    - type: RequestRedirect
      requestRedirect: {hostname: NAME.example.com}
"""


def objects(text: str) -> list[dict[str, Any]]:
    found, findings = parse_text(text, "test")
    assert findings == []
    return [one.object for one in found]


def routes(config: Config) -> list[str]:
    return [one.name for one in config.resources if isinstance(one, api.HTTPRoute)]


def test_the_scenario_has_no_errors_and_listens() -> None:
    config = load(WAYPOINT)
    assert config.errors == ()
    config.raise_for_errors()
    assert len(config.resources) == 10
    assert config.files == tuple(sorted(str(path) for path in WAYPOINT.glob("*.yaml")))
    [listener] = config.ir["listeners"]
    assert listener["id"] == "default/kgateway-waypoint/proxy"
    assert json.loads(config.ir_bytes) == config.ir
    assert load(WAYPOINT).ir_bytes == config.ir_bytes
    assert api.ResourceKey("gateway.networking.k8s.io", "HTTPRoute", "default", "ollama") in (
        config.statuses
    )


def test_an_error_never_removes_another_resource(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "\n---\n".join(
            [
                GATEWAY,
                ROUTE.replace("NAME", "good"),
                ROUTE.replace("NAME", "wrong").replace("PathPrefix", "Prefix"),
                "kind: [",
                ROUTE.replace("NAME", "last"),
            ]
        )
    )
    config = load(tmp_path)
    assert routes(config) == ["good", "last"]
    assert {"KGW103", "KGW206"} <= {one.code for one in config.errors}
    served = json.dumps(config.ir)
    assert "good.example.com" in served
    assert "last.example.com" in served
    assert "wrong.example.com" not in served


def test_errors_are_raised_with_everything_that_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    wrong = ROUTE.replace("NAME", "r").replace("PathPrefix", "Prefix")
    path.write_text(GATEWAY + "---\n" + wrong + "---\na: [\n")
    with pytest.raises(ConfigError) as caught:
        load(path).raise_for_errors()
    text = str(caught.value)
    assert f"--> {path}:16:20" in text
    assert "error[KGW103]" in text
    assert caught.value.code == "KGW206"
    assert caught.value.path == "spec.rules[0].matches[0].path.type"


def test_objects_and_models_are_the_same_as_files(tmp_path: Path) -> None:
    text = GATEWAY + "---\n" + ROUTE.replace("NAME", "r")
    path = tmp_path / "a.yaml"
    path.write_text(text)
    gateway, route = objects(text)
    model, findings = api.parse(parse_text(json.dumps(route), "x")[0][0])
    assert isinstance(model, api.HTTPRoute)
    assert findings == []
    of_files = load(path)
    assert of_files.errors == ()
    assert Config.from_objects([gateway, route]).ir_bytes == of_files.ir_bytes
    assert Config.from_objects([gateway, model]).ir_bytes == of_files.ir_bytes
    together = {"apiVersion": "v1", "kind": "List", "items": [gateway, route]}
    assert Config.from_objects([together]).ir_bytes == of_files.ir_bytes


def test_of_objects_defined_twice_the_last_is_used() -> None:
    [gateway] = objects(GATEWAY)
    [first] = objects(ROUTE.replace("NAME", "r"))
    [last] = objects(ROUTE.replace("NAME", "r").replace("value: /r", "value: /last"))
    config = Config.from_objects([gateway, first, last])
    assert routes(config) == ["r"]
    assert "/last" in json.dumps(config.ir)
    assert [one.code for one in config.warnings] == ["KGW301"]


def test_every_way_in_tells_of_two_definitions_alike(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"{GATEWAY}---\n{GATEWAY}")
    twice = [raw for _ in "ab" for raw in parse_text(GATEWAY, "x.yaml")[0]]
    resources = [api.parse(raw)[0] for raw in twice]
    raws = [*api.parse_all(twice).findings]
    models = [*Config.from_objects(one for one in resources if one).findings]
    plain = [*Config.from_objects(objects(GATEWAY) * 2).findings]
    (of_files,) = load(path).findings
    for (one,), where in ((raws, "x.yaml:1:1"), (models, "x.yaml:1:1"), (plain, None)):
        before = f", before at {where}" if where else ""
        assert one.message == f"the object is defined more than once{before}"
        assert (one.code, one.hint, one.field) == (of_files.code, of_files.hint, of_files.field)
    assert of_files.message.startswith("the object is defined more than once, before at ")


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_watching_begins_with_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GATEWAY)
    path = tmp_path / "b.yaml"
    path.write_text(ROUTE.replace("NAME", "first"))
    with anyio.fail_after(20):
        async with contextlib.aclosing(watch(tmp_path)) as configs:
            config = await anext(configs)
            assert routes(config) == ["first"]
            gateway = config.resources[0]
            (tmp_path / ".b").write_text(ROUTE.replace("NAME", "second"))
            (tmp_path / ".b").replace(path)
            config = await anext(configs)
            assert routes(config) == ["second"]
            assert config.resources[0] is gateway  # not parsed again


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_an_edited_secret_changes_the_representation(tmp_path: Path) -> None:
    https = "{name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}"
    (tmp_path / "a.yaml").write_text(GATEWAY.partition("listeners:")[0] + f"listeners: [{https}]\n")
    path = tmp_path / "cert.json"
    path.write_text(secret("cert", "a.example"))
    with anyio.fail_after(20):
        async with contextlib.aclosing(watch(tmp_path)) as configs:
            config = await anext(configs)
            assert certificate(config) == issued("a.example")[0]
            (tmp_path / ".cert").write_text(secret("cert", "b.example"))
            (tmp_path / ".cert").replace(path)
            config = await anext(configs)
            assert certificate(config) == issued("b.example")[0]


def certificate(config: Config) -> str:
    (listener,) = config.ir["listeners"]
    (chain,) = listener["traffic"]["chains"]
    (only,) = chain["action"]["tls"]["certificates"]
    return str(only["chain"])
