"""Which files a path stands for, and what is in them."""

from __future__ import annotations

import io
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from kgw.source import Files, from_objects, load

if TYPE_CHECKING:
    from pathlib import Path

SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: %s}\n"


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def names(paths: Any) -> list[str]:
    return [one.name for one in load(paths).objects]


def test_a_directory_is_its_manifests_in_order_and_not_below(tmp_path: Path) -> None:
    for name in ["b.yaml", "a.yml", "c.json", "notes.txt", ".hidden.yaml", "d.yaml~"]:
        write(tmp_path / name, SERVICE % name.strip(".").replace(".", "-"))
    (tmp_path / "below").mkdir()
    write(tmp_path / "below" / "e.yaml", SERVICE % "e")
    (tmp_path / "dir.yaml").mkdir()
    loaded = load(tmp_path)
    assert [one.name for one in loaded.objects] == ["a-yml", "b-yaml", "c-json"]
    assert loaded.files == tuple(str(tmp_path / name) for name in ["a.yml", "b.yaml", "c.json"])
    assert loaded.findings == []


def test_several_paths_are_read_in_the_order_given_and_each_file_once(tmp_path: Path) -> None:
    first = write(tmp_path / "z.txt", SERVICE % "first")
    second = write(tmp_path / "a.yaml", SERVICE % "second")
    assert names([first, tmp_path, second]) == ["first", "second"]
    assert names(first) == ["first"]


def test_standard_input_is_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.TextIOWrapper(io.BytesIO((SERVICE % "piped").encode()))
    monkeypatch.setattr(sys, "stdin", text)
    files = Files("-")
    [one] = files.load().objects
    assert one.name == "piped"
    assert one.origin is not None
    assert one.origin.describe(("metadata", "name")) == "<stdin>:3:18"
    assert files.load().objects == [one]  # read once


def test_what_cannot_be_read_is_a_finding_and_the_rest_is_loaded(tmp_path: Path) -> None:
    good = write(tmp_path / "good.yaml", SERVICE % "good")
    broken = tmp_path / "dangling.yaml"
    broken.symlink_to(tmp_path / "nowhere")
    missing = tmp_path / "missing.yaml"
    loaded = load([str(missing), tmp_path, good])
    assert [one.name for one in loaded.objects] == ["good"]
    assert [str(one) for one in loaded.findings] == [
        f"{missing}: error[KGW101]: `{missing}` cannot be read: no such file or directory",
        f"{broken}: error[KGW101]: `{broken}` cannot be read: no such file or directory",
    ]


def test_an_empty_directory_is_worth_a_warning(tmp_path: Path) -> None:
    [finding] = load(tmp_path).findings
    assert (finding.code, str(finding.severity)) == ("KGW110", "warning")


def test_a_list_is_its_members_with_their_places(tmp_path: Path) -> None:
    path = write(
        tmp_path / "list.yaml",
        "apiVersion: v1\nkind: List\nitems:\n"
        "- apiVersion: v1\n  kind: Service\n  metadata:\n    name: one\n"
        "- kind: List\n  items:\n  - {kind: Service, metadata: {name: two}}\n"
        "- not an object\n",
    )
    loaded = load(path)
    places = {
        one.name: one.origin and one.origin.describe(("metadata", "name")) for one in loaded.objects
    }
    assert places == {"one": f"{path}:7:11", "two": f"{path}:10:38"}
    assert [(one.code, one.location and one.location.line) for one in loaded.findings] == [
        ("KGW201", 11)
    ]


def test_members_of_a_typed_list_are_of_its_kind() -> None:
    loaded = from_objects(
        [{"apiVersion": "v1", "kind": "ServiceList", "items": [{"metadata": {"name": "a"}}]}]
    )
    [one] = loaded.objects
    assert (one.kind, one.object["apiVersion"], one.name) == ("Service", "v1", "a")


def test_the_last_definition_is_used_and_reported(tmp_path: Path) -> None:
    first = write(tmp_path / "a.yaml", SERVICE % "x" + "spec: {m: 1}\n")
    second = write(
        tmp_path / "b.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: x, namespace: default}\nspec: {m: 2}\n"
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: x, namespace: other}\n",
    )
    loaded = load([first, second])
    assert [(one.namespace, one.object.get("spec")) for one in loaded.objects] == [
        ("default", {"m": 2}),
        ("other", None),
    ]
    assert [str(one) for one in loaded.findings] == [
        f"{second}:3:18: Service default/x: warning[KGW301]: "
        f"the object is defined more than once, before at {first}:1:1"
    ]


def test_objects_without_a_name_are_not_the_same(tmp_path: Path) -> None:
    loaded = from_objects([{"kind": "Job", "metadata": {"generateName": "j-"}}] * 2)
    assert len(loaded.objects) == 2
    assert loaded.findings == []


def test_what_is_no_object_is_a_finding(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "just text\n---\n- 1\n---\n5\n---\n# nothing\n")
    loaded = load(path)
    assert loaded.objects == []
    assert [str(one) for one in loaded.findings] == [
        f"{path}:{place}: error[KGW201]: a manifest is an object with `apiVersion` and `kind`, "
        f"not {what}"
        for place, what in [("1:1", "`just text`"), ("3:1", "a list"), ("5:1", "`5`")]
    ]


def test_only_what_changed_is_parsed_again(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", SERVICE % "a")
    changing = tmp_path / "b.yaml"
    write(changing, SERVICE % "b")
    files = Files(tmp_path)
    before = files.load()
    again = files.load()
    assert again.digest == before.digest
    assert [*map(id, again.objects)] == [*map(id, before.objects)]
    write(changing, SERVICE % "c")
    after = files.load()
    assert after.digest != before.digest
    assert after.objects[0] is before.objects[0]
    assert after.objects[1].name == "c"


def test_a_file_saved_unchanged_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    write(path, SERVICE % "a")
    files = Files(tmp_path)
    before = files.load()
    os.utime(path, ns=(1, 1))
    assert files.load().digest == before.digest
    assert files.load().objects[0] is before.objects[0]


def test_the_digest_knows_files_that_come_go_and_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    files = Files(tmp_path)
    seen = [files.load().digest]
    write(path, SERVICE % "a")
    seen.append(files.load().digest)
    path.rename(tmp_path / "b.yaml")
    seen.append(files.load().digest)
    path.symlink_to(tmp_path / "nowhere")
    seen.append(files.load().digest)
    assert len(set(seen)) == 4
    path.unlink()
    assert files.load().digest == seen[2]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('key: "hush\\q"', "KGW103"),
        ("{key: hush, key: hush}", "KGW104"),
        ("key: *hush", "KGW105"),
        ("{n: hush}", "KGW108"),
        ("key: !hush x", "KGW109"),
    ],
)
def test_the_text_of_a_secret_with_mistakes_is_not_shown(
    tmp_path: Path, line: str, code: str
) -> None:
    path = tmp_path / "secret.yaml"
    text = f"kind: Secret\nmetadata: {{name: a}}\nstringData:\n  {line}\n"
    path.write_text(text)
    (finding,) = load(path).findings
    assert finding.code == code
    assert "hush" not in f"{finding.message}{finding.hint}"
    assert finding.source is not None
    place = finding.source.locate()
    assert place is not None
    assert place.line == 4
    assert finding.source.snippet(place) == []

    path.write_text(text.replace("Secret", "ConfigMap"))
    (shown,) = load(path).findings
    assert shown.source is not None
    assert "hush" in str(shown.source.snippet(place))


def test_what_was_forgotten_is_read_again(tmp_path: Path) -> None:
    objects = "---\n".join([SERVICE % "a", SERVICE % "b" + "spec: {ports: [{port: 80}]}\n"])
    path = write(tmp_path / "a.yaml", f"{objects}---\nkind: List\nitems: [{{kind: Service}}]\n")
    files = Files(path)
    for _ in range(2):  # the second time, behind other text
        loaded = files.load()
        before = [one.object for one in loaded.objects]
        for one in loaded.objects:
            one.forget()
        assert [one.object for one in loaded.objects] == before
        assert [one.name for one in loaded.objects][-3:] == ["a", "b", ""]
        places = [one.origin and one.origin.locate(("kind",)) for one in loaded.objects]
        assert None not in places
        write(
            tmp_path / "a.yaml",
            f"{SERVICE % 'c'}---\n{objects}---\nkind: List\nitems: [{{kind: Service}}]\n",
        )


def test_an_object_shows_no_more_than_its_name() -> None:
    [one] = from_objects(
        [{"kind": "Secret", "metadata": {"name": "a"}, "data": {"k": "v"}}]
    ).objects
    assert repr(one) == "<RawObject Secret default/a>"


def test_many_files_are_read_as_they_are_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = range(40)
    for number in numbers:
        write(tmp_path / f"{number:02}.yaml", SERVICE % f"s{number}")
    write(tmp_path / "05.yaml", SERVICE % "s4")
    write(tmp_path / "06.yaml", "a: [")
    (tmp_path / "07.yaml").unlink()
    (tmp_path / "07.yaml").symlink_to("nowhere")
    files = Files(tmp_path)
    loaded = files.load()
    with monkeypatch.context() as patch:
        patch.setattr("kgw.source.files._MANY", 1000)
        alone = load(tmp_path)
    assert [one.name for one in loaded.objects] == [one.name for one in alone.objects]
    assert len(loaded.objects) == 37
    assert loaded.findings == alone.findings
    assert loaded.digest == alone.digest
    assert loaded.files == alone.files
    # Some are new, and some are as they were, in their order.
    for number in numbers:
        write(tmp_path / f"{number:02}-more.yaml", SERVICE % f"more{number}")
    again = files.load()
    assert again.digest == load(tmp_path).digest
    known = set(map(id, loaded.objects))
    kept = [one for one in again.objects if not one.name.startswith("more")]
    assert [one.name for one in kept] == [one.name for one in loaded.objects]
    assert known.issuperset(map(id, kept))


def test_what_reads_ahead_ends_with_the_load(tmp_path: Path) -> None:
    for number in range(40):
        write(tmp_path / f"{number:02}.yaml", SERVICE % f"s{number}")
    before = threading.active_count()
    assert len(load(tmp_path).objects) == 40
    assert threading.active_count() == before
