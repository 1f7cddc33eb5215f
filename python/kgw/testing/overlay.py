"""A configuration as it is tested: the same routes and policies, other endpoints, one more log.

Of what the engine is given, this changes

* the endpoints of every cluster, which are fake backends; those speak HTTP/1.1 without TLS whatever
  the cluster does. A PROXY protocol header is kept: fake backends read it.
* the access logs of every listener: one log takes the place of all. Its lines have what is known
  about a request (`RECORD`), and in it the lines that the policies' own logs would have.

Everything else is as `kgw run` would serve it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kgw.config import Config
from kgw.translate.clusters import Cluster
from kgw.translate.translation import Translation

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["RECORD", "Address", "Endpoint", "cluster_backend", "overlaid", "policy_lines"]

RECORD: Final[Mapping[str, str]] = {
    "access_log_type": "%ACCESS_LOG_TYPE%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "authority": "%REQ(:AUTHORITY)%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "client_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "client_identity": "%FILTER_STATE(io.istio.peer_principal:PLAIN)%",
    "connection_id": "%CONNECTION_ID%",
    "duration": "%DURATION%",
    "listener_name": "%LISTENER_NAME%",
    "local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "local_reply_body": "%LOCAL_REPLY_BODY%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "peer_address": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
    "protocol": "%PROTOCOL%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "response_code": "%RESPONSE_CODE%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "response_flags": "%RESPONSE_FLAGS%",
    "route_name": "%ROUTE_NAME%",
    "start_time": "%START_TIME%",
    "upstream_cluster": "%UPSTREAM_CLUSTER%",
    "upstream_failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "upstream_host": "%UPSTREAM_HOST%",
    "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
    "upstream_path": "%REQ(:PATH)%",
}
"""What a log record has, whatever the policies say, and the operator behind each key."""

_CLUSTER: Final = re.compile(
    r"(?:kube|import|external|backend)_([^_]+)_([^_]+)_([0-9]+)(?:_[a-z0-9]+)?(?:@.*)?"
)


class Endpoint(NamedTuple):
    """What a fake backend stands for."""

    backend: str
    """``namespace/name`` of the Service, XBackend or Backend."""
    port: int
    """Its port."""


Address = Callable[[Endpoint, bool], tuple[str, int]]
"""Says where an endpoint is served; the second argument is whether a PROXY header comes first."""


def cluster_backend(cluster: str) -> Endpoint:
    """Returns the Service port, or the XBackend, of a cluster of the IR.

    Raises:
        ValueError: the id is of another form than `docs/ir.md` says.
    """
    found = _CLUSTER.fullmatch(cluster)
    if found is None:
        raise ValueError(f"{cluster!r} is not a cluster of a Service, XBackend or Backend")
    return Endpoint(f"{found[1]}/{found[2]}", int(found[3]))


def overlaid(config: Config, address: Address, log: str) -> Config:
    """Returns a configuration for the engine under test.

    Args:
        config: what is tested.
        address: says where each endpoint is served.
        log: path of the file that log records are written to.
    """
    before = config.translation
    clusters = {
        name: Cluster(_cluster(name, cluster.ir, address), cluster.findings)
        for name, cluster in before.clusters.items()
    }
    listeners = [
        {**listener, "access_logs": [_log(listener.get("access_logs", ()), log)]}
        for listener in before.listeners
    ]
    translation = Translation(
        replace(before.base, listeners=listeners),
        before.records,
        clusters,
        before.hosts,
        before.route_count,
        before.noted,
    )
    return Config(config.resources, translation, config.findings, config.files)


#: What says where a cluster is, and how it is spoken to there.
_PLACES: Final = ("dns", "forward_proxy", "protocol", "tls")


def _cluster(name: str, ir: Mapping[str, Any], address: Address) -> dict[str, Any]:
    kept = {key: value for key, value in ir.items() if key not in _PLACES}
    host, port = address(cluster_backend(name), "proxy_protocol" in ir)
    return {**kept, "endpoints": [f"{host}:{port}"]}


def _log(policies: list[Mapping[str, Any]], path: str) -> dict[str, Any]:
    """The log in place of those of the policies: a record, and in it what they would write.

    Text is one member of the object, so an operator that stands alone in it keeps its type, which
    `policy_lines` undoes.
    """
    lines = {
        str(number): {"path": log["path"], **log["format"]} for number, log in enumerate(policies)
    }
    return {"path": path, "format": {"json": {"record": dict(RECORD), "policies": lines}}}


def policy_lines(line: Mapping[str, Any]) -> list[dict[str, Any] | str]:
    """Returns what the policies' access logs say, in their order, of a line of the log."""
    found: list[dict[str, Any] | str] = []
    for _, log in sorted(line["policies"].items(), key=lambda one: int(one[0])):
        if "json" in log:
            found.append(log["json"])
            continue
        text = log["text"]
        if text is None:
            text = "-"
        elif not isinstance(text, str):
            text = json.dumps(text, separators=(",", ":"))
        found.append(text)
    return found
