"""What the commands have in common that read manifests: ``-f``, ``-o``, loading, findings."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click

from kgw.cli.addresses import network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kgw.api.core.service import ServicePort
    from kgw.attach.options import PolicyOptions
    from kgw.attach.services import ServiceRow
    from kgw.config import Config
    from kgw.diagnostics import Finding
    from kgw.translate import Options

_Decorated = TypeVar("_Decorated", bound="Callable[..., Any]")


def files_option(*, help: str, required: bool = False) -> Callable[[_Decorated], _Decorated]:
    """``-f PATH``, any number of times; the argument is called ``files``."""
    return click.option(
        "-f",
        "--filename",
        "files",
        type=click.Path(exists=True, allow_dash=True),
        multiple=True,
        required=required,
        metavar="PATH",
        help=help,
    )


def address_pool_option() -> Callable[[_Decorated], _Decorated]:
    """``--address-pool CIDR``; the argument is called ``address_pool``."""
    return click.option(
        "--address-pool",
        callback=network,
        metavar="CIDR",
        help="Give each Gateway an address of its own out of these.",
    )


_POLICIES: Final = (
    click.option(
        "--global-policy-namespace",
        envvar="KGW_GLOBAL_POLICY_NAMESPACE",
        metavar="NAMESPACE",
        show_envvar=True,
        help="Whose policies may select targets in all namespaces.",
    ),
    click.option(
        "--policy-merge",
        envvar="KGW_POLICY_MERGE",
        metavar="JSON",
        show_envvar=True,
        help="Fields that policies on one target merge deeply, as in "
        """'{"trafficPolicy": {"extAuth": "DeepMerge"}}'.""",
    ),
    click.option(
        "--reference-grants",
        envvar="KGW_REFERENCE_GRANT_MODE",
        metavar="MODE",
        show_envvar=True,
        help="Who needs a ReferenceGrant: PERMISSIVE, STRICT (policies for GatewayExtensions, too) "
        "or OFF.",
    ),
    click.option(
        "--forward-to-loopback",
        envvar="KGW_FORWARD_TO_LOOPBACK",
        is_flag=True,
        show_envvar=True,
        help="Hosts that requests name may be this machine (dynamicForwardProxy).",
    ),
)


def policy_options() -> Callable[[_Decorated], _Decorated]:
    """What kgateway's environment variables say of policies; the argument is called ``policies``.

    It is a `kgw.attach.options.PolicyOptions`.
    """

    def decorate(function: _Decorated) -> _Decorated:
        @functools.wraps(function)
        def command(
            *args: Any,
            global_policy_namespace: str | None,
            policy_merge: str | None,
            reference_grants: str | None,
            forward_to_loopback: bool,
            **more: Any,
        ) -> Any:
            from kgw.attach.options import PolicyOptions

            try:
                policies = PolicyOptions.of(
                    global_namespace=global_policy_namespace,
                    merge=policy_merge,
                    reference_grants=reference_grants,
                    forward_to_loopback="true" if forward_to_loopback else None,
                )
            except ValueError as error:
                raise click.UsageError(str(error)) from None
            return function(*args, policies=policies, **more)

        for option in reversed(_POLICIES):
            command = option(command)
        return cast("_Decorated", command)

    return decorate


def translation_options(policies: PolicyOptions, address_pool: str | None = None) -> Options:
    """What the options of a command come to."""
    from kgw.translate import AddressPool, Options

    pool = None if address_pool is None else AddressPool(address_pool)
    return Options(pool=pool, policies=policies)


def output_option(*more: str) -> Callable[[_Decorated], _Decorated]:
    """``-o table|json``, or one of *more*; the argument is called ``output``."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", *more, "json"]),
        default="table",
        show_default=True,
        help="How to print.",
    )


def print_findings(findings: Iterable[Finding]) -> None:
    """Prints findings to stderr, with a summary, if there are any."""
    findings = list(findings)
    if findings:
        from kgw.cli.terminal import colored
        from kgw.diagnostics import render_all

        click.echo(render_all(findings, color=colored(sys.stderr)) + "\n", err=True)


def services(config: Config) -> list[ServiceRow]:
    """Returns the table of services."""
    from kgw.attach.services import services

    return services(config.resources)


def ports(config: Config, row: ServiceRow) -> tuple[ServicePort, ...]:
    """Returns the ports that a service of the table declares."""
    from kgw.api import Service

    for resource in config.resources:
        if isinstance(resource, Service) and resource.key[2:] == (row.namespace, row.name):
            return tuple(resource.spec.ports)
    return ()


def service(config: Config, host: str) -> ServiceRow | None:
    """Returns a service that has a VIP, by its name as a client in namespace ``default`` writes it.

    That is ``name``, ``name.namespace``, ``name.namespace.svc`` or
    ``name.namespace.svc.cluster.local``, in any case, with or without a final dot.
    """
    labels = host.lower().rstrip(".").removesuffix(".cluster.local").removesuffix(".svc").split(".")
    name, namespace = (*labels, "default")[:2]
    if len(labels) > 2:
        return None
    for row in services(config):
        if (row.name, row.namespace) == (name, namespace) and row.vips:
            return row
    return None
