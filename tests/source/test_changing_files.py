"""Files that change: what is kept of them is what reading them anew would give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from kgw.config import Config, Session
from kgw.source import Files

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

NAMES = ("a.yaml", "b.yaml", "c.json")

DOCUMENTS = (
    "kind: Service\napiVersion: v1\nmetadata: {name: one}\nspec: {ports: [{port: 80}]}\n",
    "kind: Service\napiVersion: v1\nmetadata: {name: one}\nspec: {porst: []}\n",
    "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\n"
    "spec:\n  parentRefs: [{name: nobody}]\n  rules: [{matches: [{path: {type: Wrong}}]}]\n",
    "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: s}\n"
    "spec:\n  parentRefs:\n  - name: nobody\n",
    "kind: List\napiVersion: v1\nitems:\n- {kind: Service, apiVersion: v1, metadata: {name: two}}\n"
    "- not an object\n",
    "just text\n",
    "# nothing\n\n",
    "kind: [\n",
    "kind: Secret\napiVersion: v1\nmetadata: {name: x}\ndata: {a: no base64}\n",
    "key: 1\nkey: 2\n",
    "%YAML 1.2\n---\nkind: Service\n",
)

contents = st.lists(st.sampled_from(DOCUMENTS), max_size=6).map("---\n".join)

#: A file, and what is written to it, or that it is removed.
edits = st.tuples(st.sampled_from(NAMES), st.one_of(st.none(), contents, contents))


def shown(config: Config) -> list[object]:
    """All that a configuration says about its files."""
    return [
        [str(one.key) for one in config.resources],
        [one.to_json() for one in config.findings],
        [(one.source, one.location) for one in config.findings],
        config.ir_bytes,
        config.files,
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(edits, max_size=10), st.booleans())
def test_what_is_kept_is_what_would_be_read(
    tmp_path_factory: pytest.TempPathFactory, several: list[tuple[str, str | None]], told: bool
) -> None:
    directory = tmp_path_factory.mktemp("manifests")
    files, session = Files(directory), Session()
    for name, content in [("a.yaml", DOCUMENTS[0]), *several]:
        path = directory / name
        if content is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(content)
        loaded = files.load({str(path)} if told else None)
        anew = Files(directory).load()
        assert loaded.digest == anew.digest
        assert [one.object for one in loaded.objects] == [one.object for one in anew.objects]
        assert [one.to_json() for one in loaded.findings] == [
            one.to_json() for one in anew.findings
        ]
        assert shown(session.from_loaded(loaded)) == shown(Config.from_loaded(anew))


def test_lines_that_are_put_in_front_move_what_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("---\n" + DOCUMENTS[0] + "---\n" + DOCUMENTS[3])
    files, session = Files(tmp_path), Session()
    first = session.from_loaded(files.load())
    path.write_text("---\n# more\n" + DOCUMENTS[0] + "---\n" + DOCUMENTS[3])
    second = session.from_loaded(files.load())
    assert second.resources[1] is first.resources[1]
    (before,), (after,) = first.findings, second.findings
    assert (before.location, after.location) != (None, None)
    assert before.location is not None
    assert after.location is not None
    assert after.location.line == before.location.line + 1
    assert after.source is not None
    assert after.source.line(after.location.line) == "  - name: nobody"
    assert str(before).startswith(f"{path}:{before.location.line}:")


def test_of_a_file_that_is_named_nothing_else_is_looked_at(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text(DOCUMENTS[0])
    second.write_text(DOCUMENTS[3])
    files = Files(tmp_path)
    before = files.load()
    first.write_text(DOCUMENTS[0].replace("80", "81"))
    second.write_text(DOCUMENTS[3].replace("nobody", "somebody"))
    after = files.load({str(second)})
    assert after.objects[0] is before.objects[0]
    assert after.objects[1].object["spec"] == {"parentRefs": [{"name": "somebody"}]}
    assert files.load().objects[0].object["spec"] == {"ports": [{"port": 81}]}
