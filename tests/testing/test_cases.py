"""`kgw test`: Tests that YAML declares, and what is said of those that fail or are misspelled."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from tests.testing.manifests import EDGE, LIMIT

from kgw import api
from kgw.cli.test import command
from kgw.testing import cases
from kgw.testing.configuration import configuration

if TYPE_CHECKING:
    from click.testing import Result

    from kgw.testing.cases import Case

ROOT = Path(__file__).parents[2]
WAYPOINT = ROOT / "examples" / "waypoint"
TESTS = ROOT / "examples" / "waypoint-tests"
TIMEOUT = 60.0


def declared(steps: str, name: str = "it", spec: str = "") -> str:
    """A Test with these steps."""
    return f"""
apiVersion: kgw.dev/v1alpha1
kind: Test
metadata: {{name: {name}}}
spec:
  {spec}
  steps:
{steps}
"""


def run(*parts: str) -> list[Case]:
    """Runs all Tests of these manifests in front of the edge's."""
    config = configuration([EDGE, *parts])
    assert not [one for one in config.findings if (one.resource or "").startswith("Test")]
    return list(cases.run(config, cases.cases(config)))


def steps(*parts: str) -> Case:
    (case,) = run(LIMIT, declared("\n".join(parts)))
    return case


def kgw_test(tmp_path: Path, *parts: str, options: tuple[str, ...] = ()) -> Result:
    for number, part in enumerate(parts):
        (tmp_path / f"{number}.yaml").write_text(part)
    return CliRunner().invoke(command, [str(tmp_path), *options])


def messages(case: Case) -> list[str]:
    return [one.message for step in case.steps for one in step.failures]


# === Steps ===


def test_steps_are_taken_in_order_on_one_gateway() -> None:
    case = steps(
        "  - {request: {url: /api}, times: 2, expect: {status: 200, backend: api}}",
        "  - {request: {url: /api}, expect: {status: 429, flags: RL, noBackend: true}}",
        "  - advance: 29s",
        "  - {request: {url: /api}, expect: {status: 429}}",
        "  - {advance: 31s, name: a minute}",
        "  - {request: {url: /api}, times: 2, expect: {status: 200}}",
    )
    assert messages(case) == []
    assert [step.what for step in case.steps][3:5] == ["GET /api", "a minute: advance 31s"]
    assert case.steps[1].outcome == "429 RL, default/web/api/0"


def test_each_test_has_a_gateway_of_its_own() -> None:
    step = "  - {request: {url: /api}, times: 2, expect: {status: 200}}"
    done = run(LIMIT, declared(step, "one"), declared(step, "two"))
    assert [(case.name, case.failed) for case in done] == [
        ("default/one", False),
        ("default/two", False),
    ]


def test_everything_can_be_asked_and_expected() -> None:
    case = steps(
        "  - backend:",
        "      service: default/api",
        "      respond: {status: 201, headers: {X-Kind: fake}, json: {a: 1}, delay: 2s}",
        "      times: 1",
        "  - request:",
        "      method: POST",
        "      url: http://shop.example/api/v1?x=1",
        "      headers: {X-One: a}",
        "      json: {b: 2}",
        "      source: 127.0.0.9",
        "      listener: http",
        "    expect:",
        "      status: 201",
        "      route: default/web/api/0",
        "      backend: api",
        "      flags: ''",
        "      details: via_upstream",
        "      headers: {x-kind: fake, x-served-by: edge}",
        "      absentHeaders: [x-other]",
        "      contains: '\"a\"'",
        "      json: {a: 1}",
        "      log: {duration: 2000, authority: shop.example}",
        "      policies: [TrafficPolicy default/limit]",
        "      received:",
        "        method: POST",
        "        path: /api/v1",
        "        target: /api/v1?x=1",
        "        query: {x: '1'}",
        "        headers: {x-one: a, x-team: web}",
        "        absentHeaders: [cookie]",
        "        json: {b: 2}",
        "  - request: {method: PUT, url: /api, host: other.example, body: hello}",
        "    expect: {status: 200, log: {authority: other.example}, received: {body: hello}}",
    )
    assert messages(case) == []


def test_backends_do_what_they_are_told() -> None:
    case = steps(
        "  - backend: {service: shop, does: Hang, times: 1}",
        "  - request: &shop {url: /shop, headers: {x-beta: '1'}}",
        "    expect: {status: 504, flags: UT}",
        "  - {request: *shop, expect: {status: 200}}",
        "  - backend: {service: shop, does: Reset}",
        "  - {request: *shop, expect: {status: 503, flags: UC}}",
        "  - backend: {service: shop, does: Refuse}",
        "  - {request: *shop, expect: {status: 503}}",
        "  - backend: {service: shop, respond: {status: 418}}",
        "  - {request: *shop, expect: {status: 418}}",
        "  - backend: {service: shop, does: Echo}",
        "  - {request: *shop, expect: {status: 200, contains: default/shop}}",
    )
    assert messages(case) == []
    assert case.steps[0].what == "backend shop hangs"
    assert case.steps[7].what == "backend shop responds 418"


def test_what_fails_says_where_it_is_expected_and_ends_the_test() -> None:
    case = steps(
        "  - request: {url: /api}",
        "    times: 3",
        "    expect:",
        "      status: 200",
        "      flags: ''",
        "  - advance: 1s",
    )
    assert messages(case) == [
        "request 3: status: expected 200, got 429",
        "request 3: flags: expected '', got 'RL'",
    ]
    assert [case.place(one.path) for one in case.steps[0].failures] == [
        "<text 3>:11:15",
        "<text 3>:12:14",
    ]
    assert case.skipped == 1
    assert '  response_flags: "RL"' in case.steps[0].details


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("{request: {url: /api}, expect: {noAnswer: true}}", "expected no answer, got 200"),
        ("{request: {url: ftp://x}, expect: {status: 200}}", "'ftp://x' is neither a path"),
        ("{backend: {service: nobody, does: Hang}}", "no route leads to a Service 'nobody'"),
        ("{request: {url: /api}, expect: {noRoute: true}}", "route: expected none, got 'default"),
        ("{request: {url: /api}, expect: {noBackend: true}}", "backend: expected none, got"),
    ],
)
def test_what_cannot_be_or_is_not_is_a_failure(step: str, message: str) -> None:
    (found,) = messages(steps(f"  - {step}"))
    assert found.startswith(message)


def test_no_answer_can_be_expected_and_be_missed() -> None:
    where = "  - {request: {url: http://10.9.9.9/}, expect: {%s}}"
    config = configuration([WAYPOINT, declared(where % "noAnswer: true")])
    (case,) = cases.run(config, cases.cases(config))
    assert (messages(case), case.steps[0].outcome) == ([], "no answer")
    config = configuration([WAYPOINT, declared(where % "status: 200")])
    (case,) = cases.run(config, cases.cases(config))
    assert messages(case)[0].endswith("the waypoint serves no 10.9.9.9:80")


def test_manifests_with_errors_fail_unless_a_test_is_about_them() -> None:
    broken = EDGE.replace("{name: api, port: 8080}]\n", "{name: nobody, port: 8080}]\n")
    step = "  - {request: {url: /api}, expect: {status: 500}}"
    done = run(broken, declared(step, "strict"), declared(step, "tolerant", "allowErrors: true"))
    assert [case.failed for case in done] == [True, False]
    assert "nobody" in messages(done[0])[0]


# === What cannot be a Test ===


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("{advance: 1s, request: {url: /}, expect: {}}", "not request and advance"),
        ("{name: nothing}", "not none of them"),
        ("{request: {url: /}}", "a request has an `expect`"),
        ("{advance: 1s, expect: {}}", "expect goes with a request, not with advance"),
        ("{advance: 1s, times: 2}", "times goes with a request, not with advance"),
        ("{advance: 5}", "5 has no unit"),
        ("{request: {url: /}, expect: {status: 200, noAnswer: true}}", "of no answer"),
        ("{request: {url: /}, expect: {route: a, noRoute: true}}", "cannot both be given"),
        ("{request: {url: /}, expect: {backend: a, noBackend: true}}", "cannot both be given"),
        ("{request: {url: /}, expect: {noBackend: true, received: {}}}", "cannot both be given"),
        ("{request: {body: a, json: 1}, expect: {}}", "body and json cannot both be given"),
        ("{request: {method: 'A B'}, expect: {}}", "'A B'"),
        ("{backend: {service: a, does: Hang, respond: {}}}", "respond goes with"),
        ("{backend: {service: a, does: Respond}}", "respond goes with"),
        ("{backend: {service: a, does: Reset, times: 2}}", "times has no meaning"),
        ("{backend: {service: a, respond: {body: a, json: 1}}}", "cannot both be given"),
        ("{backend: {service: a, respond: {status: 99}}}", "out of bounds"),
    ],
)
def test_contradictions_are_refused_where_they_stand(step: str, message: str) -> None:
    config = configuration([EDGE, declared(f"  - {step}")])
    found = [one for one in config.errors if one.resource == "Test default/it"]
    assert any(message in one.message for one in found), config.findings
    assert all(one.location is not None for one in found)


def test_a_misspelled_field_is_no_field_that_is_fulfilled(tmp_path: Path) -> None:
    steps = "  - {request: {url: /api}, expect: {statsu: 500}}"
    result = kgw_test(tmp_path, EDGE, declared(steps))
    assert result.exit_code == 1
    assert "did you mean `status`?" in result.stderr
    assert "1.yaml:8:" in result.stderr
    assert result.stdout == ""


# === The command ===


def test_results_are_told_in_lines(tmp_path: Path) -> None:
    good = declared("  - {request: {url: /api}, expect: {status: 200}}", "good")
    bad = declared(
        "  - {request: {url: /api}, expect: {status: 200}}\n"
        "  - {request: {url: /api}, expect: {status: 500}}\n"
        "  - {advance: 1s}\n"
        "  - {advance: 1s}",
        "bad",
    )
    result = kgw_test(tmp_path, EDGE, good, bad)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0] == f"FAIL default/bad  ({tmp_path}/2.yaml:2:1)"
    assert lines[1] == "  ok   GET /api: 200, default/web/api/0 -> default/api"
    assert lines[2] == "  FAIL GET /api: 200, default/web/api/0 -> default/api"
    assert lines[3] == "       status: expected 500, got 200"
    assert lines[4] == f"         expected at {tmp_path}/2.yaml:9:45"
    assert "         default/web/api/0: prefix /api on *: selected" in lines
    assert "  2 steps not taken" in lines
    assert lines[-2] == f"ok   default/good  ({tmp_path}/1.yaml:2:1)"
    assert lines[-1].startswith("1 passed, 1 failed in ")

    chosen = kgw_test(tmp_path, options=("-k", "good", "-v"))
    assert chosen.exit_code == 0
    assert chosen.stdout.splitlines()[1] == lines[1]


def test_results_are_told_to_programs(tmp_path: Path) -> None:
    good = declared("  - {request: {url: /api}, expect: {status: 200}}", "good")
    bad = declared(
        "  - {request: {url: /api}, expect: {contains: '\\u0001'}}".replace("'", '"'), "bad"
    )
    result = kgw_test(tmp_path, EDGE, good, bad, options=("-o", "json"))
    assert result.exit_code == 1
    first, second = json.loads(result.stdout)["tests"]
    assert (first["name"], first["passed"], second["passed"]) == ("default/bad", False, True)
    (failure,) = first["steps"][0]["failures"]
    assert failure["place"] == f"{tmp_path}/2.yaml:8:47"
    assert second["steps"] == [
        {
            "what": "GET /api",
            "outcome": "200, default/web/api/0 -> default/api",
            "passed": True,
            "failures": [],
            "details": [],
        }
    ]

    result = kgw_test(tmp_path, options=("-o", "junit"))
    assert result.exit_code == 1
    suite = ElementTree.fromstring(result.stdout)
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    failures = {one.get("name"): one.find("failure") for one in suite}
    assert failures["default/good"] is None
    assert failures["default/bad"] is not None
    assert "2.yaml:8:47" in (failures["default/bad"].text or "")


def test_nothing_to_run_is_no_success(tmp_path: Path) -> None:
    result = kgw_test(tmp_path, EDGE)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "nothing to run: no Test in" in result.stderr
    result = kgw_test(tmp_path, EDGE, declared("  - {advance: 1s}"), options=("-k", "x"))
    assert "no Test with 'x' in its name" in result.stderr


def test_errors_of_manifests_are_told_once(tmp_path: Path) -> None:
    broken = EDGE.replace("{name: api, port: 8080}]\n", "{name: nobody, port: 8080}]\n")
    step = "  - {request: {url: /api}, expect: {status: 500}}"
    result = kgw_test(tmp_path, broken, declared(step, "one"), declared(step, "two"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("Service default/nobody") == 1
    tolerant = declared(step, "one", "allowErrors: true")
    assert kgw_test(tmp_path, broken, tolerant, declared(step, "two")).exit_code == 1
    result = kgw_test(tmp_path, broken, tolerant, declared(step, "two", "allowErrors: true"))
    assert (result.exit_code, result.stderr.count("nobody")) == (0, 0)


def test_the_examples_tests_pass_by_the_command_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kgw", "test", str(WAYPOINT), str(TESTS)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("3 passed in ")


def test_nothing_else_acts_on_a_test() -> None:
    config = configuration([WAYPOINT, TESTS])
    plain = configuration(WAYPOINT)
    assert config.ir == plain.ir
    assert config.statuses == plain.statuses
    assert [one for one in config.findings if one not in plain.findings] == []


def test_a_test_can_be_made_in_python_and_written_as_yaml() -> None:
    made: dict[str, Any] = {
        "apiVersion": "kgw.dev/v1alpha1",
        "kind": "Test",
        "metadata": {"name": "it"},
        "spec": {"steps": [{"request": {"json": {"a": 1}}, "expect": {"status": 200}}]},
    }
    (resource,) = api.loads(json.dumps(made))
    assert resource.to_dict() == made
    assert api.loads(api.dumps([resource])) == [resource]
