"""Fills the fuzzers' corpora with the inputs of the tests: what a mutation should start from."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

FUZZ = Path(__file__).parent
ROOT = FUZZ.parent

SETTINGS = (b"\x01", b"\xff")
"""First byte of the targets with settings: in the smallest steps and the largest."""


def vectors(name: str) -> Any:
    """Returns a file of test data."""
    return json.loads((ROOT / "tests" / "data" / name).read_text())


def messages(name: str) -> Iterator[bytes]:
    """Returns test messages, without those that are lists of parts because they are huge."""
    for vector in vectors(name):
        if isinstance(vector["data"], str):
            yield vector["data"].encode("latin-1")


def h1_request() -> Iterator[bytes]:
    """Returns requests after the settings."""
    for message in messages("http1_requests.json"):
        yield from (settings + message for settings in SETTINGS)


def h1_vs_hyper() -> Iterator[bytes]:
    """Returns requests as they are."""
    yield from messages("http1_requests.json")


def h1_response() -> Iterator[bytes]:
    """Returns responses after the settings."""
    for message in messages("http1_responses.json"):
        yield from (settings + message for settings in SETTINGS)


def h1_chunked() -> Iterator[bytes]:
    """Returns chunked bodies after the settings."""
    for name in ("http1_requests.json", "http1_responses.json"):
        for message in messages(name):
            head, _, body = message.partition(b"\r\n\r\n")
            if b"chunked" in head.lower():
                yield from (settings + body for settings in SETTINGS)


def h2_frames() -> Iterator[bytes]:
    """Returns frames of all types after the settings, behind a preface and without."""
    frames = b"".join(
        len(payload).to_bytes(3) + bytes([kind, kind & 5]) + bytes(4) + payload
        for kind in (4, 1, 9, 0, 2, 3, 6, 8, 7, 5, 0xBE)
        for payload in (b"", bytes(8))
    )
    yield b"\x01" + frames
    yield b"\xff" + frames * 20
    yield b"\x06PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frames


def path() -> Iterator[bytes]:
    """Returns spellings of a path after the settings."""
    for spelling in (
        "/a/../b/./c//d?q=../x",
        "/%61dmin/%2e%2e/%2F..%5c/;x/..;/y",
        "/a%252e/%00/%c0%ae/%ff",
        "\\admin\\..\\x#y",
    ):
        yield from (bytes([settings]) + spelling.encode("latin-1") for settings in range(32))


def traceparent() -> Iterator[bytes]:
    """Returns what requests say of traces."""
    yield b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    yield b"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-more"


def grpc_web_text() -> Iterator[bytes]:
    """Returns messages of gRPC-Web in base64 after the settings."""
    for settings in SETTINGS:
        yield settings + b"AAAAAAA="
        yield settings + b"AAAAAANhYmM=AAAAAANhYmM=gAAAAA1ncnBjLXN0YXR1czow"
        yield settings + b"AAAAAANhYmM=AA"


def redis_reply() -> Iterator[bytes]:
    """Returns replies of each kind after the settings."""
    for settings in SETTINGS:
        yield settings + b"+OK\r\n-NOSCRIPT No matching script.\r\n:-1\r\n"
        yield settings + b"$5\r\na\r\nbc\r\n$-1\r\n*-1\r\n"
        yield settings + b"*4\r\n:1\r\n*2\r\n:2\r\n$0\r\n\r\n:0\r\n:1200000000\r\n"


def log_format() -> Iterator[bytes]:
    """Returns settings, a path, a zero byte and a format: text, or the JSON of a format's tree."""
    for request in vectors("access_log_operators.json")["requests"]:
        operators = list(request["operators"])
        for operator in operators:
            yield from (settings + b"/a\0" + operator.encode() for settings in SETTINGS)
        tree = {"list": operators[:3], "text": "".join(operators[3:6]), "other": [1, True, None]}
        yield b"\x00/\xff\0" + json.dumps(tree).encode()


def manifest() -> Iterator[bytes]:
    """Returns manifests."""
    for path in sorted((ROOT / "examples").rglob("*.yaml")):
        yield path.read_bytes()
    yield b"a: &a [1]\nb: [*a, *a]\n<<: *a\n"
    yield b"a: |\n  b\n---\n? [k]\n: !!str 1\n...\n"
    yield b'{"a": [1.5e3, null]}'


def crd_object() -> Iterator[bytes]:
    """Returns which definition, and an object of the kind in JSON; all kinds with each."""
    lines = (ROOT / "rust/kgw-schema/crds/gateway-api.jsonl").read_text().splitlines()
    metadata = {"name": "a.b", "namespace": "c", "labels": {"a/b": "c"}, "annotations": {"d": ""}}
    ref = {"name": "a", "namespace": "b", "port": 1, "kind": "Service", "group": ""}
    filters = [{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath"}}}]
    listener = {"name": "a", "port": 1, "protocol": "TLS", "tls": {"mode": "Terminate"}}
    spec = {
        "parentRefs": [ref, ref],
        "hostnames": ["*.a.b", "10.0.0.1"],
        "rules": [
            {"matches": [{"path": {"value": "/a//b"}}], "filters": filters, "backendRefs": [ref]}
        ],
        "listeners": [listener, listener],
        "addresses": [{"value": "1.2.3.4"}, {"type": "Hostname", "value": "a"}],
        "targetRefs": [ref],
        "validation": {"hostname": "a", "subjectAltNames": [{"type": "URI", "uri": "a:b"}]},
        "retryConstraint": {"budget": {"interval": "1h"}},
        "controllerName": "a.b/c",
    }
    for number in range(len(lines)):
        whole: dict[str, Any] = {"metadata": metadata, "spec": spec, "status": spec}
        for value in (whole, {"spec": None}, {}):
            yield bytes([number]) + json.dumps(value).encode()


def cel() -> Iterator[bytes]:
    """Returns the rules of the definitions, and expressions of the tests, each with a value."""
    value = json.dumps({"v": [{"a": 1.5, "b": "text"}, [], None, True]}).encode()
    packed = (ROOT / "rust/kgw-schema/crds/gateway-api.jsonl").read_text()
    tests = (ROOT / "rust/kgw-schema/tests/language.rs").read_text()
    rules = {json.loads(rule) for rule in re.findall(r'"rule":("(?:[^"\\]|\\.)*")', packed)}
    rules |= {
        json.loads(rule) for rule in re.findall(r'^ +("(?:[^"\\]|\\.)*"),$', tests, re.MULTILINE)
    }
    for rule in sorted(rules):
        yield rule.encode() + b"\0" + value


def template() -> Iterator[bytes]:
    """Returns the templates of the tests, each with a body."""
    tests = (ROOT / "rust/kgw-template/tests/functions.rs").read_text()
    texts = re.findall(r'r#"([^"].*?)"#', tests) + re.findall(r'"([^"\\]*{[{%][^"\\]*)"', tests)
    for text in sorted(set(texts)):
        yield text.encode() + b'\0{"model": "a", "tags": [1, null], "header": {"k": true}}'


def event_stream() -> Iterator[bytes]:
    """Returns bodies of events, in both framings."""
    for framing in (b"\0", b"\1"):
        yield framing + b"event: x\ndata: a\ndata: b\r\n\r\n: c\n\ndata: [DONE]\n\n"


def proxy_header() -> Iterator[bytes]:
    """Returns headers of both versions, good and bad."""
    yield from (bytes.fromhex(vector["hex"]) for vector in vectors("proxy_protocol.json"))
    yield from messages("proxy_protocol_cases.json")


def write() -> None:
    """Writes one file per seed, named by its content, so that a second run adds nothing."""
    for seeds in (
        h1_request,
        h1_vs_hyper,
        h1_response,
        h1_chunked,
        h2_frames,
        path,
        grpc_web_text,
        traceparent,
        redis_reply,
        log_format,
        manifest,
        crd_object,
        cel,
        template,
        event_stream,
        proxy_header,
    ):
        corpus = FUZZ / "corpus" / seeds.__name__
        corpus.mkdir(parents=True, exist_ok=True)
        for seed in seeds():
            name = hashlib.sha1(seed, usedforsecurity=False).hexdigest()
            (corpus / name).write_bytes(seed)


if __name__ == "__main__":
    write()
