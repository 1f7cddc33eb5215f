"""Secrets and ConfigMaps; a Secret is shown nowhere."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from pydantic import ValidationError

from kgw import Config, diagnostics, load
from kgw.api import ConfigMap, Secret, parse
from kgw.source.memory import RawObject, from_objects

CANARY = "canary-in-a-coal-mine"
ENCODED = base64.b64encode(CANARY.encode()).decode()


def secret(**fields: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cert"}, **fields}


def read(value: dict[str, Any]) -> Secret:
    resource, findings = parse(RawObject(value))
    assert findings == []
    assert isinstance(resource, Secret)
    return resource


def test_data_is_base64_with_or_without_line_breaks() -> None:
    lines = f"{ENCODED[:8]}\n{ENCODED[8:]}\n"
    assert read(secret(data={"a": ENCODED, "b": lines})).read("a") == CANARY.encode()
    assert read(secret(data={"a": ENCODED, "b": lines})).read("b") == CANARY.encode()
    assert read(secret(data={"a": ENCODED})).read("c") is None


def test_text_wins_over_data() -> None:
    found = read(secret(data={"a": ENCODED}, stringData={"a": "text"}))
    assert found.read("a") == b"text"


def test_a_config_map_is_text() -> None:
    value = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "ca"},
        "data": {"ca.crt": "PEM"},
        "binaryData": {"b": "AA=="},
    }
    resource, findings = parse(RawObject(value))
    assert isinstance(resource, ConfigMap)
    assert (resource.data, findings) == ({"ca.crt": "PEM"}, [])


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"data": {"tls.key": CANARY + "?"}}, "KGW207", 'data["tls.key"]'),
        ({"data": {"tls.key": [CANARY]}}, "KGW205", 'data["tls.key"]'),
        ({"data": CANARY}, "KGW205", "data"),
        ({"stringData": {"tls.key": {"a": CANARY}}}, "KGW205", 'stringData["tls.key"]'),
        ({"type": "kubernetes.io/tls", "data": {"tls.key": ENCODED}}, "KGW208", "data"),
        ({"immutable": CANARY}, "KGW205", "immutable"),
        ({"dta": {"tls.key": ENCODED}}, "KGW203", "dta"),
    ],
)
def test_what_is_wrong_is_told_without_the_value(
    fields: dict[str, Any], code: str, field: str
) -> None:
    resource, (finding,) = parse(RawObject(secret(**fields)))
    assert (finding.code, finding.field) == (code, field)
    for text in (repr(finding), str(finding), repr(resource), str(finding.to_json())):
        assert CANARY not in text
        assert ENCODED not in text


def test_a_secret_is_in_no_repr_and_in_no_dump() -> None:
    applied = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps({"a": ENCODED})}
    value = secret(
        metadata={"name": "cert", "annotations": applied},
        data={"a": ENCODED},
        stringData={"b": CANARY},
        more=CANARY,
    )
    config = Config.from_objects([value])
    (resource,) = config.resources
    shown = [repr(resource), str(resource), str(resource.model_dump()), resource.model_dump_json()]
    shown += [repr(config), repr(RawObject(value)), repr(from_objects([value]))]
    for text in shown:
        assert CANARY not in text
        assert ENCODED not in text


@pytest.mark.parametrize("listed", [False, True])
def test_the_lines_of_a_secret_are_not_shown(listed: bool, tmp_path: Any) -> None:
    # JSON on one line: the mark under a finding would show what stands beside it.
    value = secret(data={"a": ENCODED, "b": CANARY + "?"}, tpye="x")
    document = {"apiVersion": "v1", "kind": "List", "items": [value]} if listed else value
    file = tmp_path / "secret.json"
    file.write_text(json.dumps(document) + "\n---\n" + json.dumps(document))
    config = load(file)
    assert {one.code for one in config.findings} == {"KGW203", "KGW207", "KGW301"}
    report = diagnostics.render_all(config.findings)
    assert f"{file}:1:" in report
    assert CANARY not in report
    assert ENCODED not in report


def test_text_is_not_taken_for_bytes() -> None:
    text: Any = ENCODED
    with pytest.raises(TypeError, match="password must be bytes, not str"):
        Secret.of("s", {"password": text})
    with pytest.raises(TypeError, match="certificate must be bytes, not str"):
        Secret.tls("s", text, b"key")
    with pytest.raises(TypeError, match="key must be bytes, not str"):
        Secret.tls("s", b"certificate", text)


def test_an_error_of_the_model_has_no_value() -> None:
    with pytest.raises(ValidationError, match="base64 with padding") as caught:
        Secret.model_validate(secret(data={"a": CANARY}))
    assert CANARY not in str(caught.value)
    with pytest.raises(ValidationError, match="valid string") as caught:
        Secret.model_validate(secret(stringData={"a": [CANARY]}))
    assert CANARY not in str(caught.value)
