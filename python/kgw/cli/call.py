"""``kgw call``: plays ztunnel, and prints what happens like ``curl -v``."""

from __future__ import annotations

import http.client
import re
import socket
import sys
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlsplit

import click

from kgw.addresses import Address, parse
from kgw.cli import terminal
from kgw.cli.addresses import address
from kgw.cli.exits import Exit
from kgw.cli.manifests import files_option
from kgw.mesh import MeshConnection, Origin, Request, status_line

if TYPE_CHECKING:
    from kgw.proxyproto import MeshIdentity

WAYPOINT = Address("127.0.0.1", 15088)
"""Where a waypoint listens unless told otherwise."""

_NOTE, _SENT, _RECEIVED = "blue", "cyan", "green"


class Target(NamedTuple):
    """What is called."""

    service: Address
    """The host as the user wrote it (a name or a VIP) and the service's port."""
    authority: str
    """The ``Host`` field."""
    path: str
    """The request target."""


@click.command(
    name="call",
    epilog=(
        "Answers go to stdout, everything else to stderr. Exit codes: 3 when no call got an "
        "answer, 4 when some did not; an answer of any status counts as one."
    ),
)
@click.argument("url", required=False)
@click.option("--to", metavar="VIP:PORT|URL", help="The service: its VIP and port, or a URL.")
@click.option(
    "--identity", metavar="spiffe://…", help="Who calls; without it, nobody in particular."
)
@click.option(
    "--via",
    callback=address,
    metavar="HOST:PORT",
    help=f"Where the waypoint listens.  [default: {WAYPOINT}; with --no-header what is called]",
)
@files_option(help="Manifests that say which VIP a service name has.")
@click.option("-X", "--request", "method", metavar="METHOD", help="The method.")
@click.option(
    "-H", "--header", "headers", metavar="NAME: VALUE", multiple=True, help="A header field."
)
@click.option("-d", "--data", metavar="TEXT|@FILE", help="A body; makes the method POST.")
@click.option("-n", "--count", type=click.IntRange(1), default=1, help="Number of calls.")
@click.option(
    "--source",
    callback=address,
    metavar="IP:PORT",
    help="Where the call comes from, as the header says it.",
)
@click.option("--no-header", is_flag=True, help="Send no PROXY header: for a plain HTTP listener.")
@click.option(
    "--max-time",
    type=click.FloatRange(0, 1e6, min_open=True),
    default=600.0,
    metavar="SECONDS",
    help="Give up after so long without a byte.  [default: 600]",
)
@click.option("-s", "--silent", is_flag=True, help="Print only bodies.")
def command(
    url: str | None,
    to: str | None,
    identity: str | None,
    via: Address | None,
    files: tuple[str, ...],
    method: str | None,
    headers: tuple[str, ...],
    data: str | None,
    count: int,
    source: Address | None,
    no_header: bool,
    max_time: float,
    silent: bool,
) -> None:
    """Send a request the way the mesh does, and show the answer.

    Opens a connection to the waypoint, writes the PROXY protocol header that Istio's ztunnel
    writes, then the request.

    \b
      kgw call --to 10.96.238.187:80
      kgw call http://ollama/ -f examples/waypoint
      kgw call http://ollama/api/generate -f examples/waypoint -d '{"prompt": "why"}' \\
        --identity spiffe://cluster.local/ns/default/sa/client
    """
    target, service = _aim(url, to)
    request = _request(method, target, headers, data)
    origin = None if no_header else _origin(_resolve(service, files), identity, source)
    if via is None:
        via = service if origin is None else WAYPOINT
    connection = MeshConnection(via, origin, max_time)
    printer = _Printer(silent=silent)
    answered = 0
    try:
        for _ in range(count):
            answered += _exchange(connection, request, printer, target)
            if answered == 0 and connection.sock is None and printer.refused:
                break
    finally:
        connection.close()
    if answered < count:
        raise click.exceptions.Exit(Exit.PARTIAL if answered else Exit.UNREACHABLE)


# === What to call ===


def _aim(url: str | None, to: str | None) -> tuple[Target, Address]:
    """Returns what is asked for, and the service that is dialled for it.

    Both are the same unless a URL and ``--to`` are given: then the URL is what is asked for.
    """
    if url is None and to is None:
        raise click.UsageError("say what to call: a URL, or --to VIP:PORT")
    target = _target(url or to or "")
    return target, target.service if url is None or to is None else _target(to).service


def _target(text: str) -> Target:
    if not _VISIBLE.fullmatch(text):
        encoded = quote(text, safe=_AS_IT_IS, errors="surrogateescape")
        raise click.UsageError(f"{text!r} has to be percent-encoded, perhaps as {encoded!r}")
    if "://" not in text:
        try:
            service = parse(text, 80)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        return Target(service, _authority(service), "/")
    try:
        parts = urlsplit(text)
        service = Address(parts.hostname or "", 80 if parts.port is None else parts.port)
    except ValueError as error:
        raise click.UsageError(f"{text!r}: {error}") from None
    if parts.scheme != "http":
        raise click.UsageError(f"{text!r}: only http:// URLs can be called")
    if not service.host:
        raise click.UsageError(f"{text!r} has no host")
    path = parts.path or "/"
    return Target(
        service, parts.netloc.rpartition("@")[2], f"{path}?{parts.query}" if parts.query else path
    )


_VISIBLE = re.compile(r"[!-~]*")
"""What a request line may have in it: visible ASCII."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A method or a field name (RFC 9110 section 5.6.2)."""

_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
"""A field value: no control characters but the tab (RFC 9110 section 5.5)."""

_AS_IT_IS = "".join(map(chr, range(0x21, 0x7F)))
"""What `quote` leaves alone of a URL that is not encoded yet, or in part."""


def _authority(service: Address) -> str:
    return str(service).removesuffix(":80")


def _resolve(service: Address, files: tuple[str, ...]) -> Address:
    if service.ip is not None:
        return service
    if not files:
        raise click.UsageError(
            f"which VIP has {service.host!r}? Say -f DIR with its Service, "
            f"or --to VIP:{service.port}"
        )
    from kgw.cli import manifests
    from kgw.config import load

    config = load(files)
    found = manifests.service(config, service.host)
    if found is None:
        terminal.fail(f"no Service {service.host!r} with a VIP in the manifests", Exit.FINDINGS)
    declared = [port.port for port in manifests.ports(config, found) if port.protocol == "TCP"]
    if service.port not in declared:
        terminal.fail(
            f"Service {found.namespace}/{found.name} has no port {service.port} "
            f"(it has {', '.join(map(str, declared)) or 'none'}; --to calls one all the same)",
            Exit.USAGE,
        )
    return Address(found.vips[0], service.port)


def _origin(service: Address, identity: str | None, source: Address | None) -> Origin:
    origin = Origin(service, _identity(identity), source)
    try:
        origin.header(Address("127.0.0.1", 1))
    except ValueError as error:
        raise click.UsageError(f"no PROXY header can say that: {error}") from None
    return origin


def _identity(text: str | None) -> MeshIdentity | None:
    if text is None:
        return None
    from kgw.proxyproto import MeshIdentity

    try:
        return MeshIdentity.parse(text)
    except ValueError as error:
        raise click.UsageError(f"--identity: {error}") from None


def _request(
    method: str | None, target: Target, headers: tuple[str, ...], data: str | None
) -> Request:
    from kgw._native import __version__

    if method is not None and not _TOKEN.fullmatch(method):
        raise click.UsageError(f"-X {method!r} is not a method")
    given: list[tuple[str, str]] = []
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon or not _TOKEN.fullmatch(name.strip()):
            raise click.UsageError(f"-H {header!r} is not 'Name: value'")
        if not _VALUE.fullmatch(value.strip()):
            raise click.UsageError(f"-H {header!r} has a control character in its value")
        given.append((name.strip(), value.strip()))
    names = {name.lower() for name, _ in given}
    fields = [
        (name, value)
        for name, value in (
            ("Host", target.authority),
            ("User-Agent", f"kgw/{__version__}"),
            ("Accept", "*/*"),
        )
        if name.lower() not in names
    ]
    fields += given
    body = None if data is None else _body(data)
    if body is not None:
        if "content-type" not in names:
            fields.append(("Content-Type", "application/x-www-form-urlencoded"))
        if not names & {"content-length", "transfer-encoding"}:
            fields.append(("Content-Length", str(len(body))))
    return Request(method or ("GET" if body is None else "POST"), target.path, tuple(fields), body)


def _body(data: str) -> bytes:
    if not data.startswith("@"):
        return data.encode()
    try:
        with click.open_file(data[1:], "rb") as file:
            content: bytes = file.read()
    except OSError as error:
        raise click.UsageError(f"-d {data}: {error.strerror}") from None
    return content


# === One call ===


def _exchange(
    connection: MeshConnection, request: Request, printer: _Printer, target: Target
) -> bool:
    """Makes one call; returns whether it was answered in full."""
    reused = connection.sock is not None
    response = None
    try:
        if not reused:
            _connect(connection, printer)
        else:
            printer.note(f"Re-using the connection to {target.authority}")
        response = _send(connection, request, printer, reused)
        printer.received(response)
        printer.body(response)
    except _Refused as error:
        printer.refused = True
        printer.trouble(str(error))
    except http.client.IncompleteRead:
        printer.trouble(_CUT_OFF)
    except (ConnectionResetError, BrokenPipeError):  # closed without an answer too
        if response is not None:
            printer.trouble(_CUT_OFF)
        elif connection.origin is not None:
            printer.trouble(_CLOSED)
        else:
            printer.trouble("the connection was closed without an answer")
    except TimeoutError:
        printer.trouble(f"no byte came for {connection.timeout:g} s")
    except (OSError, http.client.HTTPException, ValueError) as error:
        printer.trouble(str(error) or type(error).__name__)
    else:
        if connection.sock is None:
            printer.note("Closing the connection")
        else:
            printer.note(f"Connection to host {target.authority} left intact")
        return True
    connection.close()
    return False


_CUT_OFF = "the connection was closed before the end of the answer"

_CLOSED = (
    "the waypoint closed the connection without an answer: "
    "does it serve this VIP and port (kgw services)?"
)


class _Refused(Exception):
    """The waypoint cannot be connected to."""


def _connect(connection: MeshConnection, printer: _Printer) -> None:
    via = Address(connection.host, connection.port)
    printer.note(f"Trying {via}...")
    try:
        connection.connect()
    except (OSError, socket.gaierror) as error:
        reason = error.strerror or str(error)
        hint = (
            " (start one with: kgw demo, or kgw run -f DIR)"
            if via == WAYPOINT and connection.origin
            else ""
        )
        raise _Refused(f"cannot connect to {via}: {reason}{hint}") from None
    printer.note(f"Connected to {via}")
    if connection.origin is not None:
        printer.note(f"PROXY v2 header: {connection.origin.describe(connection.own)}")


def _send(
    connection: MeshConnection, request: Request, printer: _Printer, reused: bool
) -> http.client.HTTPResponse:
    printer.sent(request)
    try:
        return request.send(connection)
    except (http.client.RemoteDisconnected, ConnectionError):
        # A peer may close an idle connection at any time; on a new one the same is an answer.
        if not reused:
            raise
    connection.close()
    printer.note("The connection was closed meanwhile")
    _connect(connection, printer)
    return request.send(connection)


class _Printer:
    """Prints like ``curl -v``: ``*`` what happens, ``>`` what is sent, ``<`` what is received."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self.refused = False

    def note(self, text: str) -> None:
        self._line("*", text, _NOTE)

    def sent(self, request: Request) -> None:
        for line in request.head():
            self._line(">", line, _SENT)
        self._line(">", "", _SENT)
        if request.body:
            self.note(f"{len(request.body)} bytes of body sent")

    def received(self, response: http.client.HTTPResponse) -> None:
        self._line("<", status_line(response), _RECEIVED)
        for name, value in response.getheaders():
            self._line("<", f"{name}: {value}", _RECEIVED)
        self._line("<", "", _RECEIVED)

    def trouble(self, text: str) -> None:
        terminal.flush()
        terminal.say(click.style("* ", fg=_NOTE) + click.style(text, fg="red"))

    def body(self, response: http.client.HTTPResponse) -> None:
        """Writes the body as it arrives. Raises `IncompleteRead` when it is cut off."""
        last = b"\n"
        while piece := response.read1(65536):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            last = piece
        if not last.endswith(b"\n") and sys.stdout.isatty():
            sys.stdout.buffer.write(b"\n")
        terminal.flush()
        missing = response.length
        response.close()
        if missing:
            raise http.client.IncompleteRead(b"", missing)

    def _line(self, mark: str, text: str, color: str) -> None:
        if not self._silent:
            terminal.say(f"{click.style(mark, fg=color)} {text}".rstrip())
