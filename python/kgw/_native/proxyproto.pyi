"""PROXY protocol headers. Public as ``kgw.proxyproto``."""

from collections.abc import Sequence
from typing import ClassVar, Literal, Self, final

from typing_extensions import Buffer

__all__ = ["MeshIdentity", "ProxyHeader", "Ssl", "parse_proxy_header"]

def parse_proxy_header(
    data: Buffer, *, max_header: int = 4096, v1: bool = True, v2: bool = True
) -> ProxyHeader:
    """The PROXY protocol header that ``data`` begins with.

    Bytes after the header are ignored: they belong to the payload, which begins at
    ``data[header.length:]``.

    Args:
        data: all bytes received so far on a connection.
        max_header: the longest header accepted, in bytes.
        v1: whether version 1, the line of text, is accepted.
        v2: whether version 2, the binary header, is accepted.

    Raises:
        IncompleteProxyHeader: ``data`` may become a header with more bytes.
        ProxyProtocolError: ``data`` is not, and cannot become, an acceptable header.
    """

@final
class ProxyHeader:
    """A PROXY protocol header, parsed or to be written. Immutable.

    Headers with the same contents are equal, whatever the version they came in.

    Args:
        source: host and port that the connection came from. The host is an IP address; names are
            not resolved. Source and destination are of one family, IPv4 or IPv6.
        destination: host and port that the connection was made to.
        command: ``"proxy"`` for a relayed connection, ``"local"`` for one of the sender's own.
        transport: ``"stream"``, the default with addresses, or ``"dgram"``; without addresses,
            ``"unspec"`` is possible and the default.
        unix: names of source and destination when they are Unix sockets, at most 108 bytes each.
        identity: the client's mesh identity.
        authority: the host name that the client asked for.
        alpn: the application protocol negotiated by ALPN.
        unique_id: an id of the connection, at most 128 bytes.
        ssl: what the client's TLS connection was like.
        netns: the sender's network namespace.
        tlvs: more TLVs, as pairs of type and value.

    Raises:
        ValueError: no such header can be written; for instance a TLV is given twice, or source and
            destination are of different families.
    """

    def __new__(
        cls,
        source: tuple[str, int] | None = None,
        destination: tuple[str, int] | None = None,
        *,
        command: Literal["proxy", "local"] = "proxy",
        transport: Literal["stream", "dgram", "unspec"] | None = None,
        unix: tuple[bytes, bytes] | None = None,
        identity: MeshIdentity | None = None,
        authority: str | None = None,
        alpn: bytes | None = None,
        unique_id: bytes | None = None,
        ssl: Ssl | None = None,
        netns: str | None = None,
        tlvs: Sequence[tuple[int, bytes]] = ...,
    ) -> Self: ...
    def encode(self, version: int = 2, crc32c: bool = False) -> bytes:
        """The header's bytes.

        Args:
            version: 1 for the line of text, 2 for the binary header.
            crc32c: whether to append a checksum, in version 2.

        Raises:
            ValueError: version 1 cannot express the header: it has TLVs, a checksum, datagrams or
                Unix sockets.
        """

    @property
    def version(self) -> int:
        """The version it was parsed from, 1 or 2; 2 if it was constructed."""

    @property
    def length(self) -> int:
        """The number of bytes it was parsed from; if it was constructed, of ``encode()``."""

    @property
    def command(self) -> Literal["proxy", "local"]:
        """``"local"`` when the sender made the connection on its own behalf.

        The connection's real endpoints apply then. A version 1 ``UNKNOWN`` is ``"local"``, too.
        """

    @property
    def family(self) -> Literal["unspec", "inet", "inet6", "unix"]:
        """The address family on the wire."""

    @property
    def transport(self) -> Literal["unspec", "stream", "dgram"]:
        """The transport of the proxied connection."""

    @property
    def source(self) -> tuple[str, int] | None:
        """Host and port that the connection came from, when that is an IP address.

        An IPv4-mapped IPv6 address is given as IPv4.
        """

    @property
    def destination(self) -> tuple[str, int] | None:
        """Host and port that the connection was made to, when that is an IP address.

        An IPv4-mapped IPv6 address is given as IPv4.
        """

    @property
    def unix(self) -> tuple[bytes, bytes] | None:
        """The names of source and destination when they are Unix sockets."""

    @property
    def identity(self) -> MeshIdentity | None:
        """The workload that the connection came from, as ztunnel authenticated it.

        None when the TLV (0xD0) is absent or empty.
        """

    @property
    def tlvs(self) -> list[tuple[int, bytes]]:
        """All TLVs, in order, as pairs of type and value; without the checksum."""

    @property
    def alpn(self) -> bytes | None:
        """The application protocol negotiated by ALPN."""

    @property
    def authority(self) -> str | None:
        """The host name that the client asked for (SNI)."""

    @property
    def unique_id(self) -> bytes | None:
        """The id of the connection."""

    @property
    def ssl(self) -> Ssl | None:
        """What the client's TLS connection was like."""

    @property
    def netns(self) -> str | None:
        """The sender's network namespace."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class MeshIdentity:
    """Who a mesh workload is, as its mTLS certificate says. Immutable.

    ``str()`` gives ``spiffe://<trust domain>/ns/<namespace>/sa/<service account>``. Each part is
    made of ASCII letters, digits, ``-``, ``.`` and ``_``.

    Raises:
        ValueError: a part is empty or has other characters.
    """

    __match_args__: ClassVar[tuple[str, str, str]]

    def __new__(cls, trust_domain: str, namespace: str, service_account: str) -> Self: ...
    @classmethod
    def parse(cls, uri: str) -> MeshIdentity:
        """The identity that ``uri`` names.

        Raises:
            ValueError: it is not ``spiffe://<trust domain>/ns/<namespace>/sa/<service account>``.
        """

    @property
    def trust_domain(self) -> str:
        """The trust domain, as in ``cluster.local``."""

    @property
    def namespace(self) -> str:
        """The Kubernetes namespace."""

    @property
    def service_account(self) -> str:
        """The Kubernetes service account."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Ssl:
    """What the TLS connection between the client and the sender was like. Immutable.

    Args:
        client: bits: 1 the client connected over TLS, 2 it presented a certificate on this
            connection, 4 it presented one in this connection's TLS session.
        verify: 0 when the certificate was verified.
        version: the TLS version, as in ``TLSv1.3``.
        cn: the common name of the client's certificate.
        cipher: the cipher.
        sig_alg: the algorithm that signed the certificate that the client was shown.
        key_alg: the algorithm of that certificate's key.
    """

    def __new__(
        cls,
        client: int,
        verify: int = 0,
        *,
        version: str | None = None,
        cn: str | None = None,
        cipher: str | None = None,
        sig_alg: str | None = None,
        key_alg: str | None = None,
    ) -> Self: ...
    @property
    def client(self) -> int:
        """The client's bits, see the class."""

    @property
    def verify(self) -> int:
        """0 when the client's certificate was verified."""

    @property
    def version(self) -> str | None:
        """The TLS version, as in ``TLSv1.3``."""

    @property
    def cn(self) -> str | None:
        """The common name of the client's certificate."""

    @property
    def cipher(self) -> str | None:
        """The cipher."""

    @property
    def sig_alg(self) -> str | None:
        """The algorithm that signed the certificate that the client was shown."""

    @property
    def key_alg(self) -> str | None:
        """The algorithm of that certificate's key."""

    @property
    def is_tls(self) -> bool:
        """Whether the client connected over TLS."""

    @property
    def is_verified(self) -> bool:
        """Whether the client presented a certificate, and it was verified."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
