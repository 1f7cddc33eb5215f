"""``kgw demo``: the waypoint scenario for real, on one machine, without a cluster."""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import signal
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import NoReturn

import click

from kgw.addresses import Address
from kgw.cli import terminal
from kgw.cli.call import WAYPOINT
from kgw.cli.demo import scenario
from kgw.cli.demo.ollama import standing_in
from kgw.cli.demo.waypoint import NotStarted, Waypoint
from kgw.cli.exits import Exit


@click.command(name="demo")
@click.option(
    "--once", is_flag=True, help="End after the four calls; exit 0 if all is as it should."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=WAYPOINT.port,
    show_default=True,
    help="Where the waypoint listens, on 127.0.0.1; 0 takes any free port.",
)
def command(once: bool, port: int) -> None:
    """Run the waypoint scenario: four calls, the fourth rate limited.

    Starts a small stand-in for Ollama and a waypoint with the manifests of the scenario, calls
    four times as Istio's ztunnel would, and shows each answer with its access log line. Then it
    stays up for calls and edits of your own until Ctrl-C.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    bind = Address(WAYPOINT.host, port)
    with (
        tempfile.TemporaryDirectory(prefix="kgw-demo-") as name,
        contextlib.ExitStack() as ollama,
    ):
        directory = Path(name)
        try:
            endpoint = ollama.enter_context(standing_in(scenario.ENDPOINTS))
        except OSError as error:
            _no_endpoint(error)
        _copy_manifests(directory, endpoint)
        _serve(directory, bind, endpoint, once)


def _no_endpoint(error: OSError) -> NoReturn:
    hint = ""
    if error.errno == errno.EADDRINUSE:
        port = scenario.ENDPOINT.port
        hint = (
            f"; does an Ollama listen on port {port} of all addresses? "
            "Stop it while the demo runs, or have it listen on 127.0.0.1 alone"
        )
    terminal.fail(
        f"cannot listen on {scenario.ENDPOINT}, where cluster.yaml has the endpoint of ollama, "
        f"nor on {scenario.ENDPOINTS[1].host} to {scenario.ENDPOINTS[-1].host}: "
        f"{error.strerror or error}{hint}",
        Exit.UNREACHABLE,
    )


def _copy_manifests(directory: Path, endpoint: Address) -> None:
    """Copies the manifests, so that an edit changes this demo and not the installation."""
    usual = f"[{scenario.ENDPOINT.host}]"
    for file in resources.files(__name__).iterdir():
        if file.name.endswith(".yaml"):
            text = file.read_text().replace(usual, f"[{endpoint.host}]")
            (directory / file.name).write_text(text)


def _serve(directory: Path, bind: Address, endpoint: Address, once: bool) -> None:
    _say("kgw demo: a waypoint, a service behind it, and a client\n", bold=True)
    _say(f"  ollama    {endpoint}, a stand-in for Service default/ollama")
    _say(f"  waypoint  {bind}, where Istio's ztunnel would send {scenario.OLLAMA}")
    _say(f"  manifests {directory}, copies of examples/waypoint\n")
    try:
        with Waypoint(directory, bind) as waypoint:
            answers = _play(waypoint)
            problems = scenario.problems(answers)
            _explain(problems)
            if not once:
                _stay(waypoint, directory)
    except NotStarted as error:
        if error.code == Exit.UNREACHABLE:
            terminal.fail(f"{bind} is taken; --port chooses another port", Exit.UNREACHABLE)
        terminal.fail(f"the waypoint did not start: {error}", Exit.FINDINGS)
    if once and problems:
        raise click.exceptions.Exit(Exit.FINDINGS)


# === What is seen ===


def _play(waypoint: Waypoint) -> list[scenario.Answer]:
    answers = []
    for number in range(1, len(scenario.STATUSES) + 1):
        _say(f"\n{number}. GET http://ollama/ as {scenario.IDENTITY}", bold=True)
        try:
            answer = scenario.call(waypoint)
        except (OSError, http.client.HTTPException) as error:
            terminal.fail(f"no answer: {str(error) or type(error).__name__}", Exit.UNREACHABLE)
        answers.append(answer)
        _show(answer)
    return answers


def _say(text: str, *, fg: str | None = None, bold: bool | None = None) -> None:
    """Everything is for the eye, and in order: one stream for all of it."""
    click.secho(text, fg=fg, bold=bold)


def _show(answer: scenario.Answer) -> None:
    color = "green" if answer.status == 200 else "yellow"
    _say(f"   < {answer.status_line}", fg=color)
    for name, value in answer.fields:
        _say(f"   < {name}: {value}")
    _say(f"   {answer.body.decode(errors='replace')}")
    _say(f"   log: {answer.log_line or '(no line came)'}", fg="cyan")


def _explain(problems: list[str]) -> None:
    if problems:
        _say("\nThis is not the expected outcome:", fg="red", bold=True)
        for problem in problems:
            _say(f"  - {problem}")
        return
    _say("\nAs expected: three calls pass and the fourth is limited.", fg="green", bold=True)
    _say(
        "  Each call opened a connection with a PROXY protocol header, as Istio's ztunnel does.\n"
        f"  Its destination {scenario.OLLAMA} chose Service ollama, the HTTPRoute its endpoint;\n"
        "  the TrafficPolicy allowed three calls a minute (RL: rate limited); the\n"
        "  HTTPListenerPolicy wrote the log lines."
    )


# === Staying up ===


def _stay(waypoint: Waypoint, directory: Path) -> None:
    kgw = _own_name()
    where = "" if waypoint.address == WAYPOINT else f" --via {waypoint.address}"
    _say(
        "\nIt stays up until Ctrl-C. In another terminal:\n"
        f"  {kgw} call http://ollama/ -f {directory}{where}\n"
        f"  {kgw} call http://ollama/api/generate -d '{{}}' -f {directory}{where}\n"
        f"  {kgw} services -f {directory}\n"
        f"Edit {directory / 'trafficpolicy-ratelimit.yaml'}: the next call follows it.\n"
    )
    try:
        while waypoint.running:
            line = waypoint.line(None)
            if line is None:
                break
            _say(f"   log: {line}", fg="cyan")
    except KeyboardInterrupt:
        _say("\nstopping")
        return
    terminal.fail("the waypoint ended", Exit.UNREACHABLE)


def _own_name() -> str:
    """Returns how a user in this directory types this very command."""
    own = Path(sys.argv[0])
    inside = own.is_absolute() and own.is_relative_to(Path.cwd()) and own.name == "kgw"
    if inside:
        return os.fspath(own.relative_to(Path.cwd()))
    return os.fspath(own) if own.name == "kgw" and not own.is_absolute() else "kgw"
