"""Access log formats as Python sees them: checked, shown, and documented."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.waypoint_log import TEN_KEYS

from kgw._native import access_log
from kgw.errors import ConfigError

DOCUMENT = Path(__file__).parents[2] / "docs" / "access-log.md"


def test_a_line_is_compact_sorted_and_typed() -> None:
    line = access_log.render_example("json", json.dumps(TEN_KEYS))
    assert line == (
        '{"authority":"ollama","bytes_received":0,"bytes_sent":18,"method":"GET","path":"/",'
        '"protocol":"HTTP/1.1","request_id":"88c6504b-d3e3-4921-92af-d06f0f0ce877",'
        '"response_code":429,"response_flags":"RL","start_time":"2025-04-10T18:36:34.047Z"}\n'
    )


def test_text_is_written_as_it_is() -> None:
    line = access_log.render_example("text", "%REQ(:METHOD)% %ROUTE_NAME% %TRACE_ID% 100%%")
    assert line == "GET default/ollama/0/0 - 100%"


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("text", "%PROTOCOL%", None),
        ("json", json.dumps(TEN_KEYS), None),
        ("text", "%NOPE%", "unknown operator %NOPE%"),
        (
            "json",
            '{"code": "%RESPONSE_CODES%"}',
            "unknown operator %RESPONSE_CODES% (did you mean %RESPONSE_CODE%?)",
        ),
        ("json", '{"x": {"y": ["%REQ%"]}}', "REQ requires parameters"),
        ("json", '"%PROTOCOL%"', "a JSON format must be an object"),
        ("json", "{", "the format is not JSON: EOF while parsing an object at line 1 column 1"),
    ],
)
def test_check_names_what_is_wrong(kind: str, value: str, message: str | None) -> None:
    assert kind in ("json", "text")
    assert access_log.check("json" if kind == "json" else "text", value) == message


def test_an_example_of_a_wrong_format_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="NOPE"):
        access_log.render_example("text", "%NOPE%")


def test_a_kind_that_does_not_exist_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="xml"):
        access_log.check("xml", "")  # type: ignore[arg-type]


def test_the_document_names_exactly_the_operators_there_are() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    section = text.split("## Operators")[1].split("\n## ")[0]
    documented = set(re.findall(r"`%([A-Z][A-Z0-9_]+)[%(:]", section))
    assert documented == set(access_log.operators())


def test_the_formats_in_the_document_compile_and_print_what_it_says() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    examples = re.findall(r"```json\n(.*?)```\n\n```text\n(.*?)```", text, flags=re.DOTALL)
    assert examples
    for value, line in examples:
        assert access_log.render_example("json", value) == line
