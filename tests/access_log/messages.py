"""What access log services are told, decoded by the numbers of the public definitions.

A message is a dictionary by the names of its fields. A shape says of each number what it is: a
name and what the field holds, which is a number, text, bytes, the shape of a message, or several of
these in a list. Fields that no shape knows fail a test: something was written that is not looked
at.
"""

from __future__ import annotations

import struct
from typing import Any, Final

Shape = dict[int, "tuple[str, Any]"]

#: A time: seconds and nanoseconds.
TIME: Final[Shape] = {1: ("seconds", int), 2: ("nanos", int)}
_NUMBER: Final[Shape] = {1: ("value", int)}

VALUE: Final[Shape] = {
    1: ("null", int),
    2: ("number", float),
    3: ("string", str),
    4: ("bool", int),
}
STRUCT: Final[Shape] = {1: ("fields", [{1: ("key", str), 2: ("value", VALUE)}])}
VALUE[5] = ("struct", STRUCT)
VALUE[6] = ("list", {1: ("values", [VALUE])})

ADDRESS: Final[Shape] = {
    1: ("socket_address", {1: ("protocol", int), 2: ("address", str), 3: ("port", int)}),
}

_PAIR: Final[Shape] = {1: ("key", str), 2: ("value", str)}

_CERTIFICATE: Final[Shape] = {
    1: ("subject_alt_name", [{1: ("uri", str), 2: ("dns", str)}]),
    2: ("subject", str),
    3: ("issuer", str),
}

_FLAGS: Final = (
    "failed_local_healthcheck",
    "no_healthy_upstream",
    "upstream_request_timeout",
    "local_reset",
    "upstream_remote_reset",
    "upstream_connection_failure",
    "upstream_connection_termination",
    "upstream_overflow",
    "no_route_found",
    "delay_injected",
    "fault_injected",
    "rate_limited",
)

COMMON: Final[Shape] = {
    1: ("sample_rate", float),
    2: ("downstream_remote_address", ADDRESS),
    3: ("downstream_local_address", ADDRESS),
    4: (
        "tls_properties",
        {
            1: ("tls_version", int),
            2: ("tls_cipher_suite", _NUMBER),
            3: ("tls_sni_hostname", str),
            4: ("local_certificate_properties", _CERTIFICATE),
            5: ("peer_certificate_properties", _CERTIFICATE),
            6: ("tls_session_id", str),
            7: ("ja3_fingerprint", str),
        },
    ),
    5: ("start_time", TIME),
    6: ("time_to_last_rx_byte", TIME),
    7: ("time_to_first_upstream_tx_byte", TIME),
    8: ("time_to_last_upstream_tx_byte", TIME),
    9: ("time_to_first_upstream_rx_byte", TIME),
    10: ("time_to_last_upstream_rx_byte", TIME),
    11: ("time_to_first_downstream_tx_byte", TIME),
    12: ("time_to_last_downstream_tx_byte", TIME),
    13: ("upstream_remote_address", ADDRESS),
    14: ("upstream_local_address", ADDRESS),
    15: ("upstream_cluster", str),
    16: (
        "response_flags",
        {number: (name, int) for number, name in enumerate(_FLAGS, 1)}
        | {13: ("unauthorized_details", {1: ("reason", int)})},
    ),
    17: ("metadata", {1: ("filter_metadata", [{1: ("key", str), 2: ("value", STRUCT)}])}),
    18: ("upstream_transport_failure_reason", str),
    19: ("route_name", str),
    20: ("downstream_direct_remote_address", ADDRESS),
    23: ("duration", TIME),
    24: ("upstream_request_attempt_count", int),
    25: ("connection_termination_details", str),
    26: ("stream_id", str),
    28: ("downstream_transport_failure_reason", str),
    29: ("downstream_wire_bytes_sent", int),
    30: ("downstream_wire_bytes_received", int),
    31: ("upstream_wire_bytes_sent", int),
    32: ("upstream_wire_bytes_received", int),
    33: ("access_log_type", int),
}

REQUEST: Final[Shape] = {
    1: ("request_method", int),
    2: ("scheme", str),
    3: ("authority", str),
    4: ("port", _NUMBER),
    5: ("path", str),
    6: ("user_agent", str),
    7: ("referer", str),
    8: ("forwarded_for", str),
    9: ("request_id", str),
    10: ("original_path", str),
    11: ("request_headers_bytes", int),
    12: ("request_body_bytes", int),
    13: ("request_headers", [_PAIR]),
    14: ("upstream_header_bytes_sent", int),
    15: ("downstream_header_bytes_received", int),
}

RESPONSE: Final[Shape] = {
    1: ("response_code", _NUMBER),
    2: ("response_headers_bytes", int),
    3: ("response_body_bytes", int),
    4: ("response_headers", [_PAIR]),
    5: ("response_trailers", [_PAIR]),
    6: ("response_code_details", str),
    7: ("upstream_header_bytes_received", int),
    8: ("downstream_header_bytes_sent", int),
}

HTTP_ENTRY: Final[Shape] = {
    1: ("common_properties", COMMON),
    2: ("protocol_version", int),
    3: ("request", REQUEST),
    4: ("response", RESPONSE),
}

TCP_ENTRY: Final[Shape] = {
    1: ("common_properties", COMMON),
    2: ("connection_properties", {1: ("received_bytes", int), 2: ("sent_bytes", int)}),
}

_NODE: Final[Shape] = {
    1: ("id", str),
    2: ("cluster", str),
    3: ("metadata", bytes),
    4: ("locality", bytes),
    6: ("user_agent_name", str),
    7: ("user_agent_version", str),
    8: ("user_agent_build_version", bytes),
    9: ("extensions", [bytes]),
    10: ("client_features", [str]),
}

STREAM_MESSAGE: Final[Shape] = {
    1: ("identifier", {1: ("node", _NODE), 2: ("log_name", str)}),
    2: ("http_logs", {1: ("log_entry", [HTTP_ENTRY])}),
    3: ("tcp_logs", {1: ("log_entry", [TCP_ENTRY])}),
}

ANY_VALUE: Final[Shape] = {1: ("string", str)}
_ANY_PAIR: Final[Shape] = {1: ("key", str), 2: ("value", ANY_VALUE)}
ANY_VALUE[5] = ("array", {1: ("values", [ANY_VALUE])})
ANY_VALUE[6] = ("pairs", {1: ("values", [_ANY_PAIR])})

LOG_RECORD: Final[Shape] = {
    1: ("time", int),
    2: ("severity_number", int),
    5: ("body", ANY_VALUE),
    6: ("attributes", [_ANY_PAIR]),
    9: ("trace_id", bytes),
    10: ("span_id", bytes),
    11: ("observed_time", int),
}

EXPORT_REQUEST: Final[Shape] = {
    1: (
        "resource_logs",
        [
            {
                1: ("resource", {1: ("attributes", [_ANY_PAIR])}),
                2: ("scope_logs", [{1: ("scope", bytes), 2: ("log_records", [LOG_RECORD])}]),
            }
        ],
    ),
}

SPAN: Final[Shape] = {
    1: ("trace_id", bytes),
    2: ("span_id", bytes),
    3: ("trace_state", str),
    4: ("parent_span_id", bytes),
    5: ("name", str),
    6: ("kind", int),
    7: ("start", int),
    8: ("end", int),
    9: ("attributes", [_ANY_PAIR]),
    11: ("events", [{1: ("time", int), 2: ("name", str)}]),
    15: ("status", {2: ("message", str), 3: ("code", int)}),
    16: ("flags", int),
}

TRACES_REQUEST: Final[Shape] = {
    1: (
        "resource_spans",
        [
            {
                1: ("resource", {1: ("attributes", [_ANY_PAIR])}),
                2: ("scope_spans", [{1: ("scope", bytes), 2: ("spans", [SPAN])}]),
            }
        ],
    ),
}


def decode(data: bytes, shape: Shape) -> dict[str, Any]:
    """Decodes a message."""
    found: dict[str, Any] = {}
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = number()
        value: Any
        match tag & 7:
            case 0:
                value = number()
            case 1:
                value = data[at : at + 8]
                at += 8
            case 2:
                length = number()
                value = data[at : at + length]
                assert len(value) == length
                at += length
            case 5:
                value = data[at : at + 4]
                at += 4
            case kind:
                raise AssertionError(f"nothing here is of kind {kind}")
        name, kind = shape[tag >> 3]
        if isinstance(kind, list):
            found.setdefault(name, []).append(_value(value, kind[0]))
        else:
            found[name] = _value(value, kind)
    return found


def _value(value: Any, kind: Any) -> Any:
    if isinstance(kind, dict):
        return decode(value, kind)
    if kind is str:
        return value.decode()
    if kind is float:
        return struct.unpack("<d", value)[0]
    if kind is int and isinstance(value, bytes):
        return int.from_bytes(value, "little")
    assert isinstance(value, kind)
    return value


def pairs(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """A map, which is a list of entries on the wire."""
    found = {one["key"]: one.get("value", "") for one in entries}
    assert len(found) == len(entries)
    return found
