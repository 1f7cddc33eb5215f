"""Addresses out of a pool: each Gateway's own, those it asks for, and what cannot be had."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.translate.support import EDGE, MESH, codes, run, status

from kgw.translate import AddressPool, Options

A, B, C = ("default", "a"), ("default", "b"), ("default", "c")


def given_to(pool: AddressPool, **wanted: list[str]) -> dict[str, tuple[str, ...]]:
    found = pool.assign({("default", name): asked for name, asked in wanted.items()})
    return {name: one.addresses for (_, name), one in found.items()}


def problems(pool: AddressPool, **wanted: list[str]) -> dict[str, list[str]]:
    found = pool.assign({("default", name): asked for name, asked in wanted.items()})
    return {name: [text for _, _, text in one.problems] for (_, name), one in found.items()}


# === The pool ===


def test_each_gateway_has_its_own_and_keeps_it() -> None:
    pool = AddressPool("10.0.0.0/28")
    first = given_to(pool, a=[""], b=[""])
    assert len(set(first.values())) == 2
    assert given_to(pool, c=[""], b=[""], a=[""])["a"] == first["a"]
    assert given_to(pool, a=[""])["a"] == first["a"]


def test_another_process_comes_to_the_same() -> None:
    one, other = (AddressPool("10.0.0.0/16") for _ in range(2))
    assert given_to(one, a=[""], b=[""]) == given_to(other, b=[""], a=[""])


def test_what_somebody_has_is_not_given_to_who_names_it() -> None:
    pool = AddressPool("10.0.0.0/28")
    (address,) = given_to(pool, a=[""])["a"]
    assert problems(pool, b=[address], a=[""])["b"] == [f"address {address} is another Gateway's"]
    # Once it is free it can be had.
    assert given_to(pool, b=[address]) == {"b": (address,)}


def test_what_is_named_is_taken_before_what_is_not() -> None:
    (address,) = given_to(AddressPool("10.0.0.0/28"), a=[""])["a"]
    found = given_to(AddressPool("10.0.0.0/28"), a=[""], b=[address])
    assert found["b"] == (address,)
    assert found["a"] != (address,)


def test_held_addresses_stay() -> None:
    pool = AddressPool("10.0.0.0/28", {A: ["10.0.0.9"], B: ["10.0.0.9", "192.0.2.1", "x"]})
    found = given_to(pool, b=[""], a=[""])
    assert found["a"] == ("10.0.0.9",)
    assert found["b"] != ("10.0.0.9",)


@pytest.mark.parametrize(
    ("network", "count"),
    [("10.0.0.0/29", 6), ("10.0.0.0/30", 2), ("10.0.0.0/31", 2), ("10.0.0.1/32", 1)],
)
def test_a_pool_has_as_many_as_there_are_hosts(network: str, count: int) -> None:
    pool = AddressPool(network)
    wanted = {("default", str(number)): [""] for number in range(count + 1)}
    found = pool.assign(wanted)
    assert len({one.addresses for one in found.values() if one.addresses}) == count
    (last,) = found["default", str(count)].problems
    assert last == (0, False, f"the pool {network} has no free address")


@pytest.mark.parametrize("address", ["10.0.0.0", "10.0.0.15", "10.0.1.1", "::1", "x"])
def test_what_is_no_hosts_address_of_the_pool_cannot_be_had(address: str) -> None:
    found = AddressPool("10.0.0.0/28").assign({A: [address]})[A]
    assert found.addresses == ()
    assert found.problems == ((0, True, f"address {address} is not in the pool 10.0.0.0/28"),)


def test_ipv6_is_a_pool_too() -> None:
    pool = AddressPool("fd00::/64")
    found = given_to(pool, a=["fd00::5"], b=[""])
    assert found["a"] == ("fd00::5",)
    assert found["b"][0].startswith("fd00:")
    assert given_to(AddressPool("::/120"), a=[""])["a"][0].startswith("::")


@pytest.mark.parametrize("network", ["10.0.0.1/24", "10.0.0.0/33", "host", ""])
def test_what_is_no_network_is_refused(network: str) -> None:
    with pytest.raises(ValueError, match=r"network|host bits|Empty|netmask"):
        AddressPool(network)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from("abcdef"),
            st.lists(st.sampled_from(["", "10.0.0.1", "10.0.0.2", "10.0.0.3"]), max_size=2),
        ),
        max_size=6,
    )
)
def test_nobody_shares_or_loses_an_address(steps: list[dict[str, list[str]]]) -> None:
    pool = AddressPool("10.0.0.0/29")
    before: dict[str, tuple[str, ...]] = {}
    asked: dict[str, list[str]] = {}
    for step in steps:
        found = given_to(pool, **step)
        every = [one for addresses in found.values() for one in addresses]
        assert len(every) == len(set(every))
        for name, addresses in found.items():
            if name in before and asked[name] == step[name] and len(before[name]) == len(addresses):
                assert addresses == before[name]
        before, asked = found, step


# === Gateways ===


def edge(name: str, more: str = "", port: int = 80) -> str:
    return EDGE.partition("---")[0].replace("{name: edge}", f"{{name: {name}}}").replace(
        "port: 80", f"port: {port}"
    ) + (f"  {more}\n" if more else "")


def pooled(network: str = "10.200.0.0/24") -> Options:
    return Options(pool=AddressPool(network))


def test_several_gateways_have_one_port() -> None:
    found = run(edge("a"), edge("b"), options=pooled())
    addresses = [status(found, f"Gateway default/{name}").addresses for name in ("a", "b")]
    assert all(len(one) == 1 and one[0]["type"] == "IPAddress" for one in addresses)
    binds = [one["bind"] for one in found.ir["listeners"]]
    assert binds == [[f"{one[0]['value']}:80"] for one in addresses]
    assert codes(found) == []


def test_addresses_that_are_asked_for_are_given() -> None:
    more = "addresses: [{type: IPAddress, value: 10.200.0.9}, {type: IPAddress}]"
    found = run(edge("a", more), options=pooled())
    own = status(found, "Gateway default/a")
    assert own.addresses[0] == {"type": "IPAddress", "value": "10.200.0.9"}
    assert len(own.addresses) == 2
    (listener,) = found.ir["listeners"]
    assert listener["bind"] == [f"{one['value']}:80" for one in own.addresses]


def test_an_address_that_cannot_be_had_is_told_and_the_rest_is_served() -> None:
    more = "addresses: [{value: 10.99.0.1}, {value: 10.200.0.9}]"
    found = run(edge("a", more), options=pooled())
    (accepted, programmed, _) = status(found, "Gateway default/a").conditions
    assert (accepted.status, accepted.reason) == ("True", "Accepted")
    assert (programmed.status, programmed.reason) == ("False", "AddressNotUsable")
    assert [one["bind"] for one in found.ir["listeners"]] == [["10.200.0.9:80"]]
    (finding,) = found.findings
    assert (finding.code, finding.field) == ("KGW417", "spec.addresses[0]")


def test_without_any_address_nothing_is_bound() -> None:
    found = run(edge("a", "addresses: [{value: 10.99.0.1}]"), options=pooled())
    assert found.ir["listeners"] == []
    own = status(found, "Gateway default/a")
    assert own.addresses == ()
    programmed = own.listeners[0].conditions[3]
    assert (programmed.status, programmed.reason) == ("False", "Pending")


def test_a_pool_may_be_too_small() -> None:
    found = run(edge("a"), edge("b"), options=pooled("10.0.0.1/32"))
    reasons = {status(found, f"Gateway default/{one}").conditions[1].reason for one in ("a", "b")}
    assert reasons == {"Programmed", "AddressNotAssigned"}


@pytest.mark.parametrize("kind", ["Hostname", "NamedAddress", "example.com/odd"])
def test_only_ip_addresses_are_supported(kind: str) -> None:
    more = f"addresses: [{{type: {kind}, value: x}}, {{value: 10.99.0.1}}]"
    for options in (None, pooled()):
        found = run(edge("a", more), options=options)
        (accepted, programmed, _) = status(found, "Gateway default/a").conditions
        assert (accepted.status, accepted.reason) == ("False", "UnsupportedAddress")
        assert programmed.status == "False"
        assert found.ir["listeners"] == []
        assert codes(found) == ["KGW417"]


def test_without_a_pool_addresses_have_no_effect_and_that_is_told() -> None:
    found = run(edge("a", "addresses: [{value: 10.200.0.9}]"))
    assert [one["bind"] for one in found.ir["listeners"]] == [["0.0.0.0:80", "[::]:80"]]
    (finding,) = found.findings
    assert (finding.code, finding.severity.value) == ("KGW417", "warning")


def test_a_waypoint_beyond_loopback_is_warned_about() -> None:
    found = run(MESH, options=pooled())
    assert codes(found) == ["KGW409"]
    assert codes(run(MESH, options=pooled("127.10.0.0/24"))) == []
