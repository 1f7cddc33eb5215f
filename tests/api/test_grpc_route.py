"""GRPCRoutes that an API server would refuse, in its words."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from kgw.api import GRPCRoute


def route(**rule: Any) -> GRPCRoute:
    return GRPCRoute.model_validate({"metadata": {"name": "a"}, "spec": {"rules": [rule]}})


@pytest.mark.parametrize(
    "method",
    [
        {"service": "foo.Bar"},
        {"service": ".foo.Bar"},
        {"method": "Login"},
        {"service": "foo.Bar", "method": "_Login2", "type": "Exact"},
        {"service": "f(oo|ar).*", "method": "[A-Z]+", "type": "RegularExpression"},
    ],
)
def test_what_is_called_is_named_by_service_method_or_both(method: dict[str, str]) -> None:
    (rule,) = route(matches=[{"method": method}]).spec.rules
    (match,) = rule.matches
    assert match.method is not None
    assert match.method.model_dump(exclude_unset=True) == method


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({"type": "Exact"}, "One or both of 'service' or 'method' must be specified"),
        ({"service": "foo.Test.Example", "method": "Foo.Test.Example"}, "method must only contain"),
        ({"service": "foo.(Bar|Baz)"}, "service must only contain valid characters"),
        ({"service": "foo/Bar"}, "service must only contain valid characters"),
        ({"service": "foo.1"}, "service must only contain valid characters"),
        ({"method": "[a-z]"}, "method must only contain valid characters"),
        ({"service": "a" * 1025}, "at most 1024 characters"),
        ({"service": "a", "type": "Prefix"}, "RegularExpression"),
    ],
)
def test_other_names_of_methods_are_refused(method: dict[str, str], words: str) -> None:
    with pytest.raises(ValidationError, match=words.replace("(", r"\(")):
        route(matches=[{"method": method}])


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ([{"type": "RequestRedirect", "requestRedirect": {}}], "RequestHeaderModifier"),
        (
            [{"type": "ExtensionRef", "requestHeaderModifier": {"remove": ["a"]}}],
            "filter.requestHeaderModifier must be nil if the filter.type is not",
        ),
        ([{"type": "RequestMirror"}], "filter.requestMirror must be specified for RequestMirror"),
        (
            [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["a"]}}] * 2,
            "ResponseHeaderModifier filter cannot be repeated",
        ),
    ],
)
@pytest.mark.parametrize("backend", [False, True])
def test_filters_that_do_not_go_together_are_refused(
    filters: list[Any], words: str, backend: bool
) -> None:
    given = {"filters": filters}
    with pytest.raises(ValidationError, match=words):
        route(**({"backendRefs": [{"name": "b", "port": 1, **given}]} if backend else given))


def test_there_are_at_most_128_matches_and_no_name_twice() -> None:
    rules: list[Any] = [{"matches": [{}] * 64}, {"matches": [{}] * 64}, {"matches": [{}]}]
    with pytest.raises(ValidationError, match="must be less than 128"):
        GRPCRoute.model_validate({"metadata": {"name": "a"}, "spec": {"rules": rules}})
    with pytest.raises(ValidationError, match="Rule name must be unique within the route"):
        GRPCRoute.model_validate(
            {"metadata": {"name": "a"}, "spec": {"rules": [{"name": "x"}, {"name": "x"}]}}
        )
