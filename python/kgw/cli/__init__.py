"""The ``kgw`` command: one command per file, imported when it is used.

``kgw --version`` and ``kgw --help`` must answer at once, so this module imports nothing but click
and knows each command only by its module and its one-line help.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from kgw.cli.exits import Exit
from kgw.cli.streams import OutputLost, discard_output, protect

if TYPE_CHECKING:
    from collections.abc import Mapping

_COMMANDS: Mapping[str, str] = {
    "call": "Send a request the way the mesh does, and show the answer.",
    "check": "Check manifests; show findings and the status of every resource.",
    "demo": "Run the waypoint scenario: four calls, the fourth rate limited.",
    "explain": "Explain what becomes of a request, and why.",
    "migrate": "Rewrite manifests of earlier versions of kgateway.",
    "run": "Serve what manifests say, and follow their changes.",
    "schema": "Print JSON Schemas of manifests, for editors.",
    "services": "Show the services, their VIPs, waypoints and endpoints.",
    "test": "Run the Tests that stand beside manifests, without a cluster.",
}
"""Each command by name: the module ``kgw.cli.NAME`` has a click command called ``command``."""


class _LazyGroup(click.Group):
    """A group whose commands are imported only when one of them runs.

    Whatever the command, Ctrl-C and a lost stdout end it without a traceback.
    """

    def main(self, *args: Any, **kwargs: Any) -> Any:
        protect()
        try:
            return super().main(*args, **kwargs)
        except OutputLost as lost:
            discard_output()
            if lost.broken_pipe:
                sys.exit(Exit.BROKEN_PIPE)
            click.echo(f"error: cannot write to stdout: {lost}", err=True)
            sys.exit(Exit.PARTIAL)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(Exit.INTERRUPTED) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = importlib.import_module(f"kgw.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"no such command {args[0]!r}{_suggestion(args[0])}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_COMMANDS.items()))


def _suggestion(word: str) -> str:
    import difflib

    close = difflib.get_close_matches(word, _COMMANDS, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(_COMMANDS)}"


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from kgw._native import __version__

        click.echo(f"kgw {__version__}")
        ctx.exit()


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=(
        "Exit codes: 0 ok, 1 findings, 2 usage, 3 cannot reach or bind, 4 partly done, "
        "130 interrupted, 141 stdout closed by its reader. "
        "Colours are used on a terminal only, and never when NO_COLOR is set."
    ),
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
@click.pass_context
def main(ctx: click.Context) -> None:
    """A Gateway API waypoint and ingress proxy.

    Reads Kubernetes manifests (Gateway API, kgateway policies, Services, EndpointSlices) from files
    and serves them from this process.
    """
    # https://no-color.org: any value but the empty string switches colours off.
    if os.environ.get("NO_COLOR"):
        ctx.color = False
