"""Addresses on the command line: callbacks for click options."""

from __future__ import annotations

import ipaddress

import click

from kgw.addresses import Address, parse
from kgw.binding import Binding


def address(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Address | None:
    """Turns ``HOST:PORT`` into an `Address`."""
    try:
        return None if value is None else parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def network(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Refuses what is no network, as in ``10.200.0.0/16``."""
    try:
        if value is not None:
            ipaddress.ip_network(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


def bindings(
    _ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    """Refuses what is not ``[LISTENER=]IP[:PORT]``."""
    try:
        for one in value:
            Binding.parse(one)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value
