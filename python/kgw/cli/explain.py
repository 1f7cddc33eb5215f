"""``kgw explain``: what becomes of a request, and why, without sending it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from kgw.cli import terminal
from kgw.cli.addresses import address
from kgw.cli.exits import Exit
from kgw.cli.manifests import (
    address_pool_option,
    files_option,
    output_option,
    policy_options,
    print_findings,
    translation_options,
)

if TYPE_CHECKING:
    from kgw.addresses import Address
    from kgw.attach.options import PolicyOptions
    from kgw.explaining import Question
    from kgw.proxyproto import MeshIdentity
    from kgw.translate import Options

_STYLES = {
    "head": {"bold": True},
    "good": {"fg": "green"},
    "bad": {"fg": "red"},
    "dim": {"dim": True},
}


@click.command(
    name="explain",
    epilog=(
        "The explanation goes to stdout, findings about manifests to stderr. An answer of the "
        "proxy itself, such as 404, is explained like any other. Exit codes: 1 when the manifests "
        "cannot be read or serve nothing, 2 when the request is no request or says too little."
    ),
)
@click.argument("request", nargs=-1, required=True, metavar="[METHOD] URL")
@files_option(help="Manifests: a file, or a directory of them.", required=True)
@click.option(
    "-H", "--header", "headers", metavar="NAME: VALUE", multiple=True, help="A header field."
)
@click.option("--grpc", is_flag=True, help="A gRPC call: POST, with the fields that calls have.")
@click.option("--gateway", metavar="[NAMESPACE/]NAME", help="The Gateway that is dialled.")
@click.option(
    "--listener",
    metavar="[NAMESPACE/GATEWAY/]NAME",
    help="The listener that is dialled, whatever the URL's port is.",
)
@click.option("--sni", metavar="NAME", help="The server name, if it is not the URL's host.")
@click.option(
    "--to",
    metavar="[NAMESPACE/]NAME[:PORT]|VIP:PORT",
    help="The service of the mesh that is called, if it is not the URL's host.",
)
@click.option("--source-identity", metavar="spiffe://…", help="Who calls, in the mesh.")
@click.option("--source-namespace", metavar="NAME", help="The namespace of who calls, in the mesh.")
@click.option("--source", callback=address, metavar="IP:PORT", help="Where the request comes from.")
@address_pool_option()
@policy_options()
@click.option(
    "--all", "every", is_flag=True, help="Show all candidates, and settings without effect."
)
@click.option(
    "--lenient", is_flag=True, help="Explain what is served without objects that cannot be read."
)
@output_option()
def command(
    request: tuple[str, ...],
    files: tuple[str, ...],
    headers: tuple[str, ...],
    grpc: bool,
    gateway: str | None,
    listener: str | None,
    sni: str | None,
    to: str | None,
    source_identity: str | None,
    source_namespace: str | None,
    source: Address | None,
    address_pool: str | None,
    policies: PolicyOptions,
    every: bool,
    lenient: bool,
    output: str,
) -> None:
    """Explain what becomes of a request, and why.

    Tells which listener takes it and which route is used, and why no other is; what a backend gets,
    or what the proxy answers; and in which file and line everything that counts was written.
    Nothing is sent to anyone.

    \b
      kgw explain -f manifests/ GET http://shop.example/cart -H 'x-version: 2'
      kgw explain -f manifests/ https://shop.example/ --gateway edge
      kgw explain -f examples/waypoint http://ollama/ --source-namespace default
    """
    if len(request) > 2:
        raise click.UsageError(f"one request is explained at a time: {' '.join(request)!r}")
    method = request[0] if len(request) == 2 else "POST" if grpc else "GET"
    try:
        question = _question(
            method,
            request[-1],
            headers=[_field(one) for one in headers],
            grpc=grpc,
            gateway=gateway,
            listener=listener,
            sni=sni,
            to=to,
            identity=_identity(source_identity, source_namespace),
            source=source,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    options = translation_options(policies, address_pool)
    _explain(question, files, options, every=every, lenient=lenient, output=output)


def _question(method: str, url: str, **options: object) -> Question:
    from kgw.explaining import Question

    return Question.of(method, url, **options)  # type: ignore[arg-type]  # click has checked them


def _field(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise click.UsageError(f"{text!r} is not a header field: write 'NAME: VALUE'")
    return name.strip(), value.strip()


def _identity(identity: str | None, namespace: str | None) -> MeshIdentity | None:
    """Who calls: a namespace stands for any of its service accounts."""
    from kgw.proxyproto import MeshIdentity

    if identity is not None and namespace is not None:
        raise click.UsageError("an identity has a namespace: give one of both")
    if namespace is not None:
        return MeshIdentity("cluster.local", namespace, "default")
    return None if identity is None else MeshIdentity.parse(identity)


def _explain(
    question: Question,
    files: tuple[str, ...],
    options: Options,
    *,
    every: bool,
    lenient: bool,
    output: str,
) -> None:
    from kgw.config import load
    from kgw.explaining import explain
    from kgw.explaining.words import describe
    from kgw.proxy import unreadable

    config = load(files, options=options)
    print_findings(config.errors)
    if unreadable(config) and not lenient:
        raise click.exceptions.Exit(Exit.FINDINGS)
    if not config.listeners:
        where = ", ".join("standard input" if file == "-" else file for file in files)
        terminal.fail(f"nothing is served: no listener in {where}", Exit.FINDINGS)
    try:
        found = explain(config, question)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if output == "json":
        click.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
        return
    color = terminal.colored(sys.stdout)
    for line in describe(found, every=every, style=_style):
        click.echo(line, color=color)


def _style(text: str, style: str) -> str:
    return click.style(text, **_STYLES[style])  # type: ignore[arg-type]  # the table has its own
