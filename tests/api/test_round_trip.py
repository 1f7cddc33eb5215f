"""Models to YAML and back."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.translate.support import EDGE, MESH

from kgw import api
from kgw.api import HTTPRoute, ObjectMeta, Opaque, Secret, dumps, examine, loads
from kgw.api.duration import Duration
from kgw.api.gateway.http_route import HTTPRouteSpec, Rule, Timeouts
from kgw.config import Config
from kgw.errors import ConfigError

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted((ROOT / "examples" / "waypoint").glob("*.yaml"))
ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: a
  uid: 0f1e
spec:
  novel: [1, null]
  rules:
  - timeouts:
      request: 180s
    name: null
    sessionPersistence: {idleTimeout: 1h}
  parentRefs:
  - kind: Gateway
    name: edge
status: {parents: []}
"""
SECRET = """\
apiVersion: v1
kind: Secret
metadata: {name: a}
data: {key: c2VjcmV0}
stringData: {text: hidden}
"""


#: A field that an earlier version of the Gateway API had.
IDLE = "spec.rules[0].sessionPersistence.idleTimeout"


def route(**spec: object) -> HTTPRoute:
    return HTTPRoute(
        metadata=ObjectMeta(name="a", namespace="b", labels={"on": "yes"}),
        spec=HTTPRouteSpec.model_validate(spec),
    )


def ordered(value: object) -> object:
    """A value that is equal to another only if the keys have the same order."""
    if isinstance(value, dict):
        return [(key, ordered(item)) for key, item in value.items()]
    return [ordered(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_the_scenario_is_written_as_the_same_documents(path: Path) -> None:
    text = path.read_text()
    written = dumps(loads(text))
    assert ordered(list(yaml.safe_load_all(written))) == ordered(list(yaml.safe_load_all(text)))
    assert loads(written) == loads(text)


@pytest.mark.parametrize("text", [MESH, EDGE, ROUTE])
def test_what_was_read_is_written_with_its_order_nulls_and_unknown_fields(text: str) -> None:
    written = dumps(loads(text))
    assert ordered(list(yaml.safe_load_all(written))) == ordered(list(yaml.safe_load_all(text)))


def test_a_model_reads_back_equal() -> None:
    made = route(
        parent_refs=[{"name": "edge"}],
        rules=[{"matches": [{"path": {"value": "/a"}}], "timeouts": {"request": "1m30s"}}, {}],
    )
    assert loads(made.to_yaml()) == [made]


def test_a_model_is_written_without_defaults_and_nulls() -> None:
    made = HTTPRoute(
        metadata=ObjectMeta(name="a", namespace=None),
        spec=HTTPRouteSpec(rules=(Rule(name=None, timeouts=Timeouts(request=Duration("180s"))),)),
    )
    assert made.to_yaml() == (
        "apiVersion: gateway.networking.k8s.io/v1\n"
        "kind: HTTPRoute\n"
        "metadata:\n"
        "  name: a\n"
        "spec:\n"
        "  rules:\n"
        "  - timeouts:\n"
        "      request: 180s\n"
    )


@given(
    st.lists(
        st.builds(
            Rule.model_validate,
            st.fixed_dictionaries(
                {},
                optional={
                    "timeouts": st.fixed_dictionaries(
                        {"request": st.integers(0, 10**9).map(Duration)}
                    ),
                    "matches": st.lists(
                        st.fixed_dictionaries(
                            {},
                            optional={
                                "method": st.sampled_from(["GET", "POST"]),
                                "path": st.fixed_dictionaries(
                                    {"value": st.from_regex("/[a-z0-9]{1,6}", fullmatch=True)}
                                ),
                            },
                        ),
                        max_size=3,
                    ),
                    "backendRefs": st.lists(
                        st.fixed_dictionaries(
                            {"name": st.sampled_from(["on", "80", "a"]), "port": st.just(80)},
                            optional={"weight": st.integers(0, 100)},
                        ),
                        max_size=2,
                    ),
                },
            ),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_model_reads_back_equal_and_is_written_the_same(rules: list[Rule]) -> None:
    made = route(rules=rules)
    (read,) = loads(made.to_yaml())
    assert read == made
    assert read.to_yaml() == made.to_yaml()


def test_an_object_of_an_unknown_kind_is_written_whole() -> None:
    text = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  uid: b\nrefused: 1\nspec: {}\n"
    (pod,) = loads(text)
    assert isinstance(pod, Opaque)
    assert pod.to_yaml() == text
    (other,) = loads(text.replace("refused: 1", "refused: 2"))
    assert pod != other
    assert loads(text) == [pod]


def test_an_unknown_object_can_be_made() -> None:
    pod = Opaque(api_version="v1", kind="Pod", metadata=ObjectMeta(name="a"), spec={"b": None})
    assert pod.to_dict() == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a"},
        "spec": {"b": None},
    }


def test_a_secret_is_written_when_that_is_asked_for() -> None:
    read = loads(SECRET)[0]
    made = Secret(
        metadata=ObjectMeta(name="a"), data={"key": b"secret"}, string_data={"text": "hidden"}
    )
    assert read == made
    for one in (read, made):
        with pytest.raises(ValueError, match="a is only written with secrets=True"):
            dumps([one])
        assert yaml.safe_load(dumps([one], secrets=True)) == yaml.safe_load(SECRET)


def test_a_refused_secret_is_not_written_either() -> None:
    raw = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"k": "?"}}
    (refused,) = Config.from_objects([raw]).resources
    assert isinstance(refused, Opaque)
    with pytest.raises(ValueError, match="secrets=True"):
        refused.to_yaml()


def test_what_is_written_can_be_changed_without_changing_the_object() -> None:
    (read,) = loads(ROUTE)
    read.to_dict()["spec"]["rules"].clear()
    assert len(read.to_dict()["spec"]["rules"]) == 1


def test_errors_are_raised_with_their_place() -> None:
    wrong = ROUTE.replace("180s", "180") + "---\n" + ROUTE.replace("name: a\n", "name: 5\n")
    with pytest.raises(ConfigError) as caught:
        loads(wrong, name="mine")
    assert "--> mine:10:16\n" in str(caught.value)
    assert "2 errors" in str(caught.value)
    assert caught.value.resource == "HTTPRoute default/a"


def test_a_changed_copy_is_what_was_changed() -> None:
    (read,) = loads(ROUTE)
    assert read.key.name == "a"
    changed = read.model_copy(update={"metadata": ObjectMeta(name="b")})
    assert (changed.key.name, changed.origin, changed.findings) == ("b", None, None)
    assert changed.to_dict()["metadata"] == {"name": "b"}
    assert changed.to_dict()["spec"]["rules"][0]["timeouts"] == {"request": "180s"}
    assert changed.to_dict()["spec"]["novel"] == [1, None]


def test_an_object_that_was_read_can_be_copied_and_pickled() -> None:
    (read,) = loads(ROUTE)
    assert read.origin.locate() is not None
    for made in (copy.deepcopy(read), read.model_copy(), pickle.loads(pickle.dumps(read))):
        assert made == read
        assert made.to_yaml() == read.to_yaml()
        assert made.origin == read.origin


# === What is said about models, as about manifests ===


def test_unknown_and_unsupported_fields_of_a_model_are_found() -> None:
    made = route(rules=[{"sessionPersistence": {"idleTimeout": "1h"}, "matchs": []}])
    found = {(one.code, one.resource, one.field) for one in Config.from_objects([made]).findings}
    assert found >= {
        ("KGW501", "HTTPRoute b/a", IDLE),
        ("KGW203", "HTTPRoute b/a", "spec.rules[0].matchs"),
    }


def test_a_policy_that_is_not_enforced_is_a_defect_of_the_model() -> None:
    made = api.TrafficPolicy.model_validate(
        {"metadata": {"name": "a"}, "spec": {"ai": {"promptGuard": {}}}}
    )
    config = Config.from_objects([made])
    assert [one.field for one in config.errors] == ["spec.ai"]
    assert [one.code for one in made.defects] == ["KGW501"]


def test_what_was_not_validated_is_refused() -> None:
    unchecked = HTTPRoute.model_construct(
        metadata=ObjectMeta(name="a"), spec={"rules": [{"timeouts": {"request": "soon"}}]}
    )
    config = Config.from_objects([unchecked])
    assert [(one.resource, one.field) for one in config.errors] == [
        ("HTTPRoute default/a", "spec.rules[0].timeouts.request")
    ]
    (refused,) = config.resources
    assert isinstance(refused, Opaque)
    assert refused.refused


def test_an_object_without_a_name_is_left_out() -> None:
    nameless = route().model_copy(update={"metadata": {"name": ""}})
    config = Config.from_objects([nameless])
    assert (config.resources, [one.code for one in config.errors]) == ((), ["KGW202"])


def test_a_version_that_is_not_served_is_found() -> None:
    made = route().model_copy(update={"api_version": "gateway.networking.k8s.io/v9"})
    assert [one.code for one in Config.from_objects([made]).errors] == ["KGW210"]


def test_a_model_is_examined_once_and_stays_the_same_object() -> None:
    made = route()
    assert made.findings is None
    assert examine(made) is made
    assert made.findings == ()
    assert Config.from_objects([made]).resources == (made,)
    (read,) = loads(ROUTE)
    assert examine(read) is read
    assert read.findings is not None
    found = {(one.code, one.field) for one in read.findings}
    assert found == {("KGW203", "spec.novel"), ("KGW501", IDLE)}


def test_what_was_found_when_a_resource_was_read_is_in_its_configuration() -> None:
    config = Config.from_objects(loads(ROUTE))
    assert {"spec.novel", IDLE} <= {one.field for one in config.findings}
