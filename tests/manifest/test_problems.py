"""What is wrong with a text, rendered as users see it."""

from __future__ import annotations

import textwrap

import pytest

from kgw.diagnostics import render
from kgw.source import parse_text

GOLDEN = {
    "unclosed bracket": (
        "a: [1, 2\n",
        """\
        error[KGW103]: unclosed bracket '['
         --> m.yaml:1:4
          |
        1 | a: [1, 2
          |    ^
          = help: close the bracket""",
    ),
    "tab": (
        "spec:\n\trules: []\n",
        """\
        error[KGW103]: tabs disallowed within this context (block indentation)
         --> m.yaml:2:2
          |
        2 | \trules: []
          | \t^
          = help: indent with spaces, not tabs""",
    ),
    "colon in a value": (
        "spec:\n  url: http: //x\n",
        """\
        error[KGW103]: mapping values are not allowed in this context
         --> m.yaml:2:12
          |
        2 |   url: http: //x
          |            ^
          = help: check the indentation, and quote a value that contains `: `""",
    ),
    "template": (
        "name: {{ .Values.name }}\n",
        """\
        error[KGW107]: a key must be a string, not a mapping
         --> m.yaml:1:8
          |
        1 | name: {{ .Values.name }}
          |        ^^^^^^^^^^^^^^^^
          = help: this looks like a template: render it first, as with `helm template`""",
    ),
    "key twice": (
        "metadata:\n  name: a\n  labels: {}\n  name: b\n",
        """\
        error[KGW104]: the key `name` is given twice, first on line 2
         --> m.yaml:4:3
          |
        4 |   name: b
          |   ^^^^""",
    ),
    "unknown alias": (
        "hostnames: [*.example.com]\n",
        """\
        error[KGW105]: the alias `*.example.com` names no anchor of this document
         --> m.yaml:1:13
          |
        1 | hostnames: [*.example.com]
          |             ^^^^^^^^^^^^^
          = help: quote a value that begins with `*`""",
    ),
    "boolean key": (
        "on: {}\n",
        """\
        warning[KGW108]: the key `on` is read as a boolean, not as its text: it becomes `true`
         --> m.yaml:1:1
          |
        1 | on: {}
          | ^^
          = help: quote the key""",
    ),
    "tag": (
        "a: !Ref x\n",
        """\
        error[KGW109]: the tag `!Ref` has no meaning in a manifest
         --> m.yaml:1:4
          |
        1 | a: !Ref x
          |    ^^^^
          = help: quote a value that begins with `!`""",
    ),
    "control character": (
        "a: \x1b[31mred\n",
        """\
        error[KGW103]: control character U+001B
         --> m.yaml:1:4
          |
        1 | a: \N{REPLACEMENT CHARACTER}[31mred
          |    ^
          = help: write it as an escape in double quotes, as in "\\x1b\"""",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_rendering(name: str) -> None:
    text, expected = GOLDEN[name]
    _, findings = parse_text(text, "m.yaml")
    assert render(findings[0]) == textwrap.dedent(expected)


def test_a_broken_document_costs_only_itself() -> None:
    text = "kind: A\nmetadata: {name: a}\n---\nkind: [\n---\nkind: C\nmetadata: {name: c}\n"
    objects, findings = parse_text(text, "m.yaml")
    assert [(one.kind, one.origin and one.origin.document) for one in objects] == [
        ("A", 0),
        ("C", 2),
    ]
    assert [(one.code, one.location and one.location.line) for one in findings] == [("KGW103", 4)]


def test_not_utf8_is_a_problem_of_its_document() -> None:
    objects, findings = parse_text(b"a: 1\n---\nb: \xff\n", "m.yaml")
    assert len(objects) == 1
    assert [str(one) for one in findings] == [
        "m.yaml:3:4: error[KGW102]: the text is not UTF-8: byte 0xff"
    ]
