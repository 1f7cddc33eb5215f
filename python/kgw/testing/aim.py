"""Where a request of a test goes: which listener, which service, which ``Host``.

A test says as little as is needed: a path where there is one listener, a URL where there are more,
the service as a client in the mesh would name it where the listener is a waypoint's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from kgw.addresses import Address, parse
from kgw.mesh import Origin
from kgw.proxyproto import MeshIdentity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Aim", "aim"]

DEFAULT_HOST = "localhost"
"""The ``Host`` of requests that name none."""


class Aim(NamedTuple):
    """Where a request goes."""

    listener: Mapping[str, Any]
    """The listener of the IR."""
    authority: str
    """The ``Host`` field."""
    target: str
    """The request target."""
    origin: Origin | None
    """What a PROXY protocol header says first; none sends none."""
    source: Address | None
    """What the client's socket is bound to, if anything."""
    server_name: str | None
    """The TLS server name; none where there is no TLS."""
    table: str | None
    """The route table that decides, as far as that can be told."""

    @property
    def url(self) -> str:
        """The request's URL, for people."""
        scheme = "http" if self.server_name is None else "https"
        return f"{scheme}://{self.authority}{self.target}"


def aim(
    listeners: Iterable[Mapping[str, Any]],
    url: str,
    *,
    host: str | None = None,
    to: str | None = None,
    listener: str | None = None,
    identity: str | MeshIdentity | None = None,
    source: str | None = None,
) -> Aim:
    """Returns where a request goes. See `kgw.testing.Gateway.request` for the arguments.

    Raises:
        ValueError: nothing goes there, or several do; the message says what there is.
    """
    own = [one for one in listeners if _speaks_http(one)]
    given = _Url.parse(url)
    found = _listener(own, given, to, listener)
    who = MeshIdentity.parse(identity) if isinstance(identity, str) else identity
    where = None if source is None else parse(source, 0)
    if where is not None and where.ip is None:
        raise ValueError(f"source {source!r} is not IP[:PORT]")
    traffic = found["traffic"]
    if traffic["type"] == "waypoint":
        destination, table = _destination(found, given, to, who)
        authority = host or given.authority or str(destination).removesuffix(":80")
        says = Origin(destination, who, where)
        return Aim(found, authority, given.target, says, None, None, table)
    if who is not None:
        raise ValueError(f"{found['id']} is no waypoint's listener, so it believes no identity")
    if to is not None:
        raise ValueError(f"{found['id']} is no waypoint's listener: `to` names a mesh service")
    authority = host or given.authority or DEFAULT_HOST
    name = urlsplit(f"//{authority}").hostname or ""
    tls = traffic["type"] == "tls"
    table = _chain_table(traffic, name) if tls else traffic["route_table"]
    origin = None
    if found.get("proxy_protocol") is not None:
        origin = Origin(_declared(found), None, where)
        where = None
    elif where is not None and not (where.ip and where.ip.is_loopback):
        raise ValueError(
            f"a client cannot come from {where.host}: {found['id']} takes no PROXY protocol "
            "header. Where it believes X-Forwarded-For, send that; else come from an address in "
            "127.0.0.0/8"
        )
    return Aim(found, authority, given.target, origin, where, name if tls else None, table)


class _Url(NamedTuple):
    """A URL, or the path of one."""

    scheme: str | None
    host: str
    port: int | None
    authority: str
    target: str

    @classmethod
    def parse(cls, text: str) -> _Url:
        if text.startswith("/") or text == "*":
            return cls(None, "", None, "", text)
        parts = urlsplit(text)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{text!r} is neither a path (/…) nor a URL (http://HOST/…)")
        target = parts.path or "/"
        if parts.query:
            target += f"?{parts.query}"
        authority = parts.netloc.rpartition("@")[2]
        return cls(parts.scheme, parts.hostname, parts.port, authority, target)

    @property
    def default_port(self) -> int:
        return 443 if self.scheme == "https" else 80


def _speaks_http(listener: Mapping[str, Any]) -> bool:
    traffic = listener["traffic"]
    if traffic["type"] == "tls":
        return any(chain["action"]["type"] == "http" for chain in traffic["chains"])
    return traffic["type"] in ("http", "waypoint")


def _declared(listener: Mapping[str, Any]) -> Address:
    """The address that a listener has in the manifests, as one address on it."""
    address = parse(listener["bind"][0])
    hosts = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    return Address(hosts.get(address.host, address.host), address.port)


# === Listeners ===


def _listener(
    listeners: list[Mapping[str, Any]], url: _Url, to: str | None, name: str | None
) -> Mapping[str, Any]:
    """The listener that a request is for."""
    if not listeners:
        raise ValueError("the configuration has no listener for HTTP")
    if name is not None:
        found = [one for one in listeners if f"/{one['id']}".endswith(f"/{name}")]
        return _only(found, f"listener {name!r}", listeners)
    waypoints = [one for one in listeners if one["traffic"]["type"] == "waypoint"]
    if to is not None:
        if not waypoints:
            raise ValueError("`to` names a mesh service, and there is no waypoint to reach it by")
        return _only(waypoints, "a waypoint's listener", listeners)
    others = [one for one in listeners if one not in waypoints]
    if not others or not waypoints:
        found = listeners
    elif url.host:
        found = [one for one in waypoints if _named(one, url.host)] or others
    else:
        found = listeners
    if url.scheme is not None and found != waypoints:
        found = _of_port(found, url) or found
        encrypted = url.scheme == "https"
        found = [one for one in found if (one["traffic"]["type"] == "tls") == encrypted]
        wanted = f"a listener for {url.scheme} on port {url.port or url.default_port}"
        return _only(found, wanted, listeners)
    return _only(found, "a listener that this could be for", listeners)


def _of_port(listeners: list[Mapping[str, Any]], url: _Url) -> list[Mapping[str, Any]]:
    port = url.port or url.default_port
    found = [one for one in listeners if any(parse(bind).port == port for bind in one["bind"])]
    if url.port is not None and not found:
        _only(found, f"a listener on port {url.port}", listeners)
    return found


def _only(
    found: list[Mapping[str, Any]], wanted: str, listeners: list[Mapping[str, Any]]
) -> Mapping[str, Any]:
    if len(found) == 1:
        return found[0]
    known = ", ".join(
        f"{one['id']} ({one['traffic']['type']}, port {_declared(one).port})" for one in listeners
    )
    much = "more than one" if found else "no"
    raise ValueError(
        f"there is {much} {wanted.removeprefix('a ')}; say `listener=` or a URL. There are: {known}"
    )


def _chain_table(traffic: Mapping[str, Any], name: str) -> str | None:
    """The table of the chain for a server name, the most specific first."""
    labels = name.split(".")
    candidates = [name, *(f"*.{'.'.join(labels[at:])}" for at in range(1, len(labels))), "*"]
    for candidate in candidates:
        for chain in traffic["chains"]:
            if candidate in chain["server_names"]:
                table = chain["action"].get("route_table")
                return None if table is None else str(table)
    return None


# === Services of a waypoint ===


def _named(listener: Mapping[str, Any], host: str) -> list[Mapping[str, Any]]:
    """The destinations of a waypoint that a host names: by virtual IP, or as a client in namespace
    ``default`` writes the Service."""
    given = host.lower().rstrip(".")
    known = given.removesuffix(".cluster.local").removesuffix(".clusterset.local")
    labels = known.removesuffix(".svc").split(".")
    name, namespace = (*labels, "default")[:2]
    service = f"{namespace}/{name}" if len(labels) <= 2 else ""
    return [
        one
        for one in listener["traffic"]["destinations"]
        if one["address"] == host
        or (
            one["service"] == service
            and one.get("cluster_set", False) == given.endswith(".clusterset.local")
        )
    ]


def _destination(
    listener: Mapping[str, Any], url: _Url, to: str | None, who: MeshIdentity | None
) -> tuple[Address, str | None]:
    """The virtual IP and port that a client dials, and the route table for it."""
    destinations = listener["traffic"]["destinations"]
    known = ", ".join(dict.fromkeys(f"{one['service']}:{one['port']}" for one in destinations))
    if to is not None:
        host, port = parse(to, 80)
        if "/" in host:
            namespace, _, name = host.partition("/")
            host = f"{name}.{namespace}"
    elif url.host:
        host, port = url.host, url.port or 80
    else:
        ports = {(one["service"], one["port"]) for one in destinations}
        if len(ports) != 1:
            raise ValueError(
                f"which service is called? Say a URL, as in http://SERVICE{url.target}, or `to=`. "
                f"{listener['id']} serves: {known or 'none'}"
            )
        host, port = destinations[0]["address"], destinations[0]["port"]
    found = [one for one in _named(listener, host) if one["port"] == port]
    if found:
        # Clients of some namespaces have routes of their own.
        own = found[0].get("clients", {}).get(who.namespace) if who is not None else None
        return Address(found[0]["address"], port), (own or found[0]).get("route_table")
    address = Address(host, port)
    if address.ip is None:
        raise ValueError(
            f"{listener['id']} serves no service {host} on port {port}. "
            f"It serves: {known or 'none'}"
        )
    return address, None  # a connection to what the waypoint does not serve
