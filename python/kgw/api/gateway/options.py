"""Options of listeners that neither the Gateway API nor kgateway has a field for.

They are annotations of a Gateway: ``kgw.dev/OPTION`` for all of its listeners, and
``kgw.dev/OPTION.LISTENER`` for one, which goes first. ``OPTIONS`` is the table of them;
``docs/configuration.md`` has the same table for people, and a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kgw.api import duration, quantity
from kgw.api.base import Remark
from kgw.diagnostics import Severity, suggest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

#: What the names of the annotations start with.
PREFIX: Final = "kgw.dev/"


@dataclass(frozen=True, slots=True)
class Form:
    """How the value of an option is written."""

    #: What is legal, in words.
    legal: str
    #: The value in the representation; raises ``ValueError``.
    parse: Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Option:
    """One option."""

    name: str
    #: The field of the representation's listener; empty for what the routes of a listener have.
    field: str
    form: Form


@dataclass(frozen=True, slots=True)
class Chosen:
    """The value of an option, and the annotation that says so."""

    value: Any
    annotation: str


def _switch(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _whole(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = quantity.whole(text)
        if not least <= number <= most:
            raise ValueError(text)
        return number

    return parse


def _choice(**values: str) -> Form:
    return Form(", ".join(values), lambda text: _chosen(text, values))


def _chosen(text: str, values: Mapping[str, str]) -> str:
    if text not in values:
        raise ValueError(text)
    return values[text]


_SWITCH: Final = Form("true, false", _switch)
_TIME: Final = Form(duration.LEGAL + "; 0s is none", duration.milliseconds)
_COUNT: Final = Form("a whole number; 0 is none", _whole(0, 2**32 - 1))

OPTIONS: Final = (
    Option(
        "buffer-bytes",
        "http.buffer_bytes",
        Form("1Ki to 16Mi", _whole(1024, 16 * 1024 * 1024)),
    ),
    Option(
        "codec",
        "http.codec",
        _choice(Auto="auto", HTTP1="http1", HTTP2="http2"),
    ),
    Option(
        "connection-balance",
        "balance",
        _choice(Exact="exact", Kernel="kernel"),
    ),
    Option(
        "escaped-slashes",
        "http.escaped_slashes",
        _choice(
            KeepUnchanged="keep_unchanged",
            Reject="reject",
            UnescapeAndForward="unescape_and_forward",
            UnescapeAndRedirect="unescape_and_redirect",
        ),
    ),
    Option("grpc-web", "", _SWITCH),
    Option(
        "headers-with-underscores",
        "http.underscores",
        _choice(Allow="allow", Drop="drop", Reject="reject"),
    ),
    Option(
        "http2-max-frame-size",
        "http.http2.max_frame_size",
        Form("16Ki to 16777215", _whole(16_384, 16_777_215)),
    ),
    Option("max-connection-duration", "http.max_connection_duration_ms", _TIME),
    Option("max-connections", "max_connections", _COUNT),
    Option(
        "max-target-bytes",
        "http.max_target_bytes",
        Form("0 to 8Mi; 0 is none", _whole(0, 8 * 1024 * 1024)),
    ),
    Option("merge-slashes", "http.merge_slashes", _SWITCH),
    Option("normalize-path", "http.normalize_path", _SWITCH),
    Option(
        "proxy-protocol-max-bytes",
        "proxy_protocol.max_header_bytes",
        # A header without addresses has 16 bytes, the longest there can be 65,551.
        Form("16 to 65551", _whole(16, 65_551)),
    ),
    Option("proxy-protocol-timeout", "proxy_protocol.header_timeout_ms", _TIME),
    Option("proxy-protocol-v1", "proxy_protocol.accept_v1", _SWITCH),
    Option("request-head-timeout", "http.request_head_timeout_ms", _TIME),
    Option("request-id-in-response", "http.request_id.in_response", _SWITCH),
    Option("request-timeout", "http.request_timeout_ms", _TIME),
    Option("strict-paths", "http.strict_paths", _SWITCH),
    Option("strip-client-address", "http.strip_client_address", _SWITCH),
    Option("tcp-idle-timeout", "forward.idle_timeout_ms", _TIME),
    Option("udp-idle-timeout", "datagrams.idle_timeout_ms", _TIME),
)

_BY_NAME: Final = {one.name: one for one in OPTIONS}


def chosen(
    annotations: Mapping[str, str], listeners: Iterable[str]
) -> dict[tuple[str, str], Chosen]:
    """The values of the options that are valid, by option and listener (empty for all)."""
    found = {}
    names = frozenset(listeners)
    for annotation, text in annotations.items():
        if not annotation.startswith(PREFIX):
            continue
        name, _, listener = annotation.removeprefix(PREFIX).partition(".")
        option = _BY_NAME.get(name)
        if option is None or (listener and listener not in names):
            continue
        try:
            found[name, listener] = Chosen(option.form.parse(text), annotation)
        except ValueError:
            continue
    return found


def remarks(annotations: Mapping[str, str], listeners: Iterable[str]) -> Iterator[Remark]:
    """What is wrong with the annotations: a name, a listener, a value."""
    names = tuple(listeners)
    for annotation, text in annotations.items():
        if not annotation.startswith(PREFIX):
            continue
        path = ("metadata", "annotations", annotation)
        name, dot, listener = annotation.removeprefix(PREFIX).partition(".")
        option = _BY_NAME.get(name)
        if option is None:
            near = suggest(name, _BY_NAME)
            yield Remark(
                "KGW203",
                Severity.WARNING,
                f"unknown annotation `{annotation}`",
                path,
                hint=f"did you mean `{PREFIX}{near}{dot}{listener}`?" if near else None,
            )
            continue
        if dot and listener not in names:
            near = suggest(listener, names)
            yield Remark(
                "KGW303",
                Severity.ERROR,
                f"annotation `{annotation}`: the Gateway has no listener named {listener}",
                path,
                legal=", ".join(names),
                hint=f"did you mean `{PREFIX}{name}.{near}`?" if near else None,
            )
        try:
            option.form.parse(text)
        except ValueError:
            near = suggest(text, option.form.legal.split(", "))
            yield Remark(
                "KGW207",
                Severity.ERROR,
                f"`{text}` is not a legal value of `{annotation}`",
                path,
                legal=option.form.legal,
                hint=f"did you mean `{near}`?" if near else None,
            )
