//! `kgw._native.proxyproto`: PROXY protocol headers.
//!
//! A Python `ProxyHeader` owns its contents as a [`Builder`], so one that was parsed and one that
//! was constructed are the same kind of thing and compare equal.
//!
//! What has a Python name is documented for Python, in its notation and as in the stub.

#![allow(clippy::doc_markdown)] // the docs are in Python notation, as said above

use std::net::{IpAddr, SocketAddr};

use kgw_proxyproto::{
    Addresses, Builder, Command, Error, Family, MeshIdentity, Options, Transport, Version, kind,
};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple, PyType};

use crate::error;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyProxyHeader>()?;
    module.add_class::<PyMeshIdentity>()?;
    module.add_class::<PySsl>()?;
    module.add_function(wrap_pyfunction!(parse_proxy_header, module)?)
}

/// The PROXY protocol header that ``data`` begins with.
///
/// Bytes after the header are ignored: they belong to the payload, which begins at
/// ``data[header.length:]``.
///
/// Args:
///     data: all bytes received so far on a connection.
///     max_header: the longest header accepted, in bytes.
///     v1: whether version 1, the line of text, is accepted.
///     v2: whether version 2, the binary header, is accepted.
///
/// Raises:
///     IncompleteProxyHeader: ``data`` may become a header with more bytes.
///     ProxyProtocolError: ``data`` is not, and cannot become, an acceptable header.
#[pyfunction]
#[pyo3(signature = (data, *, max_header=4096, v1=true, v2=true))]
fn parse_proxy_header(
    data: &Bound<'_, PyAny>,
    max_header: usize,
    v1: bool,
    v2: bool,
) -> PyResult<PyProxyHeader> {
    let options = Options { max_header, v1, v2 };
    if let Ok(data) = data.cast::<PyBytes>() {
        return PyProxyHeader::parse(data.py(), data.as_bytes(), &options);
    }
    // Another thread could write to the memory of any other object: parse a
    // copy.
    let py = data.py();
    let copy = PyBuffer::<u8>::get(data)?.to_vec(py)?;
    PyProxyHeader::parse(py, &copy, &options)
}

// === ProxyHeader ===

/// A PROXY protocol header, parsed or to be written. Immutable.
///
/// Headers with the same contents are equal, whatever the version they came in.
///
/// Args:
///     source: host and port that the connection came from. The host is an IP address; names are
///         not resolved. Source and destination are of one family, IPv4 or IPv6.
///     destination: host and port that the connection was made to.
///     command: ``"proxy"`` for a relayed connection, ``"local"`` for one of the sender's own.
///     transport: ``"stream"``, the default with addresses, or ``"dgram"``; without addresses,
///         ``"unspec"`` is possible and the default.
///     unix: names of source and destination when they are Unix sockets, at most 108 bytes each.
///     identity: the client's mesh identity.
///     authority: the host name that the client asked for.
///     alpn: the application protocol negotiated by ALPN.
///     unique_id: an id of the connection, at most 128 bytes.
///     ssl: what the client's TLS connection was like.
///     netns: the sender's network namespace.
///     tlvs: more TLVs, as pairs of type and value.
///
/// Raises:
///     ValueError: no such header can be written; for instance a TLV is given twice, or source and
///         destination are of different families.
#[pyclass(name = "ProxyHeader", module = "kgw.proxyproto", frozen, eq, hash)]
struct PyProxyHeader {
    contents: Builder,
    version: u8,
    length: usize,
}

impl PyProxyHeader {
    fn parse(py: Python<'_>, data: &[u8], options: &Options) -> PyResult<Self> {
        let header =
            kgw_proxyproto::parse(data, options).map_err(|error| protocol_error(py, error))?;
        Ok(Self {
            contents: Builder::from(&header).crc32c(false),
            version: match header.version {
                Version::V1 => 1,
                Version::V2 => 2,
            },
            length: header.len(),
        })
    }

    fn encoded(&self, version: u8, crc32c: bool) -> PyResult<Vec<u8>> {
        let mut wire = Vec::new();
        match version {
            1 if crc32c => Err(Error::NotInV1),
            1 => self.contents.encode_v1(&mut wire),
            2 if crc32c => self.contents.clone().crc32c(true).encode(&mut wire),
            2 => self.contents.encode(&mut wire),
            _ => return Err(PyValueError::new_err("version must be 1 or 2")),
        }
        .map_err(value_error)?;
        Ok(wire)
    }
}

impl PartialEq for PyProxyHeader {
    fn eq(&self, other: &Self) -> bool {
        self.contents == other.contents
    }
}

impl std::hash::Hash for PyProxyHeader {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.contents.tlvs().as_bytes().hash(state);
        self.contents.addresses().source().hash(state);
        self.contents.addresses().destination().hash(state);
    }
}

#[pymethods]
impl PyProxyHeader {
    #[new]
    #[pyo3(signature = (
        source=None, destination=None, *, command="proxy", transport=None, unix=None, identity=None,
        authority=None, alpn=None, unique_id=None, ssl=None, netns=None, tlvs=Vec::new(),
    ))]
    #[allow(clippy::too_many_arguments)] // one for each part of a header
    fn new(
        source: Option<(String, u16)>,
        destination: Option<(String, u16)>,
        command: &str,
        transport: Option<&str>,
        unix: Option<(Vec<u8>, Vec<u8>)>,
        identity: Option<&Bound<'_, PyMeshIdentity>>,
        authority: Option<&str>,
        alpn: Option<Vec<u8>>,
        unique_id: Option<Vec<u8>>,
        ssl: Option<&Bound<'_, PySsl>>,
        netns: Option<&str>,
        tlvs: Vec<(u8, Vec<u8>)>,
    ) -> PyResult<Self> {
        let mut header = match (command, source, destination, unix) {
            ("proxy", Some(source), Some(destination), None) => {
                let (source, destination) =
                    (socket_address(&source)?, socket_address(&destination)?);
                if source.is_ipv4() != destination.is_ipv4() {
                    return Err(PyValueError::new_err(format!(
                        "source {source} and destination {destination} are of different families"
                    )));
                }
                Builder::proxy(source, destination)
            }
            ("proxy", None, None, Some((source, destination))) => {
                Builder::unix(&source, &destination).map_err(value_error)?
            }
            ("proxy", None, None, None) => Builder::unspec(),
            ("local", None, None, None) => Builder::local(),
            ("local", ..) => return Err(PyValueError::new_err("a LOCAL header has no addresses")),
            ("proxy", ..) => {
                return Err(PyValueError::new_err(
                    "give both source and destination, or unix, or neither",
                ));
            }
            _ => return Err(PyValueError::new_err("command must be 'proxy' or 'local'")),
        };
        let unspecified = header.transport() == Transport::Unspec;
        header = match (transport, header.command()) {
            (None, _) => header,
            (Some("unspec"), _) if unspecified => header,
            (Some("stream"), Command::Proxy) => header.stream(),
            (Some("dgram"), Command::Proxy) => header.dgram(),
            _ => {
                return Err(PyValueError::new_err(
                    "transport must be 'stream' or 'dgram', or 'unspec' without addresses",
                ));
            }
        };
        let identity = identity.map(|identity| identity.get().uri.clone());
        let ssl = ssl.map(|ssl| ssl.get().encoded());
        for (kind, value) in [
            (kind::ALPN, alpn),
            (
                kind::AUTHORITY,
                authority.map(|text| text.as_bytes().to_vec()),
            ),
            (kind::UNIQUE_ID, unique_id),
            (kind::SSL, ssl.transpose()?),
            (kind::NETNS, netns.map(|text| text.as_bytes().to_vec())),
            (kind::MESH_IDENTITY, identity.map(String::into_bytes)),
        ] {
            if let Some(value) = value {
                header = header.tlv(kind, &value).map_err(value_error)?;
            }
        }
        for (kind, value) in tlvs {
            header = header.tlv(kind, &value).map_err(value_error)?;
        }
        let mut header = Self {
            contents: header,
            version: 2,
            length: 0,
        };
        header.length = header.encoded(2, false)?.len();
        Ok(header)
    }

    /// The header's bytes.
    ///
    /// Args:
    ///     version: 1 for the line of text, 2 for the binary header.
    ///     crc32c: whether to append a checksum, in version 2.
    ///
    /// Raises:
    ///     ValueError: version 1 cannot express the header: it has TLVs, a checksum, datagrams or
    ///         Unix sockets.
    #[pyo3(signature = (version=2, crc32c=false))]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        version: u8,
        crc32c: bool,
    ) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.encoded(version, crc32c)?))
    }

    /// The version it was parsed from, 1 or 2; 2 if it was constructed.
    #[getter]
    fn version(&self) -> u8 {
        self.version
    }

    /// The number of bytes it was parsed from; if it was constructed, of ``encode()``.
    #[getter]
    fn length(&self) -> usize {
        self.length
    }

    /// ``"local"`` when the sender made the connection on its own behalf.
    ///
    /// The connection's real endpoints apply then. A version 1 ``UNKNOWN`` is ``"local"``, too.
    #[getter]
    fn command(&self) -> &'static str {
        match self.contents.command() {
            Command::Local => "local",
            Command::Proxy => "proxy",
        }
    }

    /// The address family on the wire.
    #[getter]
    fn family(&self) -> &'static str {
        match self.contents.addresses().family() {
            Family::Unspec => "unspec",
            Family::Inet => "inet",
            Family::Inet6 => "inet6",
            Family::Unix => "unix",
        }
    }

    /// The transport of the proxied connection.
    #[getter]
    fn transport(&self) -> &'static str {
        match self.contents.transport() {
            Transport::Unspec => "unspec",
            Transport::Stream => "stream",
            Transport::Dgram => "dgram",
        }
    }

    /// Host and port that the connection came from, when that is an IP address.
    ///
    /// An IPv4-mapped IPv6 address is given as IPv4.
    #[getter]
    fn source(&self) -> Option<(String, u16)> {
        self.contents.addresses().source().map(host_and_port)
    }

    /// Host and port that the connection was made to, when that is an IP address.
    ///
    /// An IPv4-mapped IPv6 address is given as IPv4.
    #[getter]
    fn destination(&self) -> Option<(String, u16)> {
        self.contents.addresses().destination().map(host_and_port)
    }

    /// The names of source and destination when they are Unix sockets.
    #[getter]
    fn unix<'py>(&self, py: Python<'py>) -> Option<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        match self.contents.addresses() {
            Addresses::Unix {
                source,
                destination,
            } => Some((
                PyBytes::new(py, source.name()),
                PyBytes::new(py, destination.name()),
            )),
            _ => None,
        }
    }

    /// The workload that the connection came from, as ztunnel authenticated it.
    ///
    /// None when the TLV (0xD0) is absent or empty.
    #[getter]
    fn identity(&self) -> Option<PyMeshIdentity> {
        self.contents.tlvs().identity().map(PyMeshIdentity::from)
    }

    /// All TLVs, in order, as pairs of type and value; without the checksum.
    #[getter]
    fn tlvs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(
            py,
            self.contents
                .tlvs()
                .iter()
                .map(|tlv| (tlv.kind, PyBytes::new(py, tlv.value)))
                .collect::<Vec<_>>(),
        )
    }

    /// The application protocol negotiated by ALPN.
    #[getter]
    fn alpn<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        let alpn = self.contents.tlvs().alpn()?;
        Some(PyBytes::new(py, alpn))
    }

    /// The host name that the client asked for (SNI).
    #[getter]
    fn authority(&self) -> Option<&str> {
        self.contents.tlvs().authority()
    }

    /// The id of the connection.
    #[getter]
    fn unique_id<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        let id = self.contents.tlvs().unique_id()?;
        Some(PyBytes::new(py, id))
    }

    /// What the client's TLS connection was like.
    #[getter]
    fn ssl(&self) -> Option<PySsl> {
        let ssl = self.contents.tlvs().ssl()?;
        Some(PySsl {
            client: ssl.client,
            verify: ssl.verify,
            version: ssl.version().map(str::to_owned),
            cn: ssl.cn().map(str::to_owned),
            cipher: ssl.cipher().map(str::to_owned),
            sig_alg: ssl.sig_alg().map(str::to_owned),
            key_alg: ssl.key_alg().map(str::to_owned),
        })
    }

    /// The sender's network namespace.
    #[getter]
    fn netns(&self) -> Option<&str> {
        self.contents.tlvs().netns()
    }

    fn __repr__(&self) -> String {
        let mut parts = vec![
            format!("<ProxyHeader v{}", self.version),
            self.command().to_owned(),
        ];
        let addresses = self.contents.addresses();
        if let Some((source, destination)) = addresses.source().zip(addresses.destination()) {
            parts.push(format!("{source} -> {destination}"));
        } else if self.contents.command() == Command::Proxy {
            parts.push(self.family().to_owned());
        }
        if let Some(identity) = self.contents.tlvs().identity() {
            parts.push(format!("as {identity}"));
        }
        parts.join(" ") + ">"
    }
}

// === MeshIdentity ===

/// Who a mesh workload is, as its mTLS certificate says. Immutable.
///
/// ``str()`` gives ``spiffe://<trust domain>/ns/<namespace>/sa/<service account>``. Each part is
/// made of ASCII letters, digits, ``-``, ``.`` and ``_``.
///
/// Raises:
///     ValueError: a part is empty or has other characters.
#[pyclass(name = "MeshIdentity", module = "kgw.proxyproto", frozen, eq, hash)]
#[derive(PartialEq, Hash)]
struct PyMeshIdentity {
    /// Well-formed.
    uri: String,
}

impl PyMeshIdentity {
    fn parts(&self) -> PyResult<MeshIdentity<'_>> {
        MeshIdentity::parse(self.uri.as_bytes()).map_err(value_error)
    }
}

impl From<MeshIdentity<'_>> for PyMeshIdentity {
    fn from(identity: MeshIdentity<'_>) -> Self {
        Self {
            uri: identity.uri(),
        }
    }
}

#[pymethods]
impl PyMeshIdentity {
    #[new]
    fn new(trust_domain: &str, namespace: &str, service_account: &str) -> PyResult<Self> {
        MeshIdentity::new(trust_domain, namespace, service_account)
            .map(Self::from)
            .map_err(value_error)
    }

    /// The identity that ``uri`` names.
    ///
    /// Raises:
    ///     ValueError: it is not ``spiffe://<trust domain>/ns/<namespace>/sa/<service account>``.
    #[classmethod]
    fn parse(_class: &Bound<'_, PyType>, uri: &str) -> PyResult<Self> {
        MeshIdentity::parse(uri.as_bytes())
            .map(Self::from)
            .map_err(value_error)
    }

    #[classattr]
    fn __match_args__() -> (&'static str, &'static str, &'static str) {
        ("trust_domain", "namespace", "service_account")
    }

    /// The trust domain, as in ``cluster.local``.
    #[getter]
    fn trust_domain(&self) -> PyResult<&str> {
        Ok(self.parts()?.trust_domain)
    }

    /// The Kubernetes namespace.
    #[getter]
    fn namespace(&self) -> PyResult<&str> {
        Ok(self.parts()?.namespace)
    }

    /// The Kubernetes service account.
    #[getter]
    fn service_account(&self) -> PyResult<&str> {
        Ok(self.parts()?.service_account)
    }

    fn __str__(&self) -> &str {
        &self.uri
    }

    fn __repr__(&self) -> String {
        format!("MeshIdentity.parse('{}')", self.uri)
    }

    fn __reduce__<'py>(
        slf: &Bound<'py, Self>,
    ) -> PyResult<(Bound<'py, PyType>, Bound<'py, PyTuple>)> {
        let parts = slf.get().parts()?;
        let arguments = (parts.trust_domain, parts.namespace, parts.service_account);
        Ok((slf.get_type(), arguments.into_pyobject(slf.py())?))
    }
}

// === Ssl ===

/// What the TLS connection between the client and the sender was like. Immutable.
///
/// Args:
///     client: bits: 1 the client connected over TLS, 2 it presented a certificate on this
///         connection, 4 it presented one in this connection's TLS session.
///     verify: 0 when the certificate was verified.
///     version: the TLS version, as in ``TLSv1.3``.
///     cn: the common name of the client's certificate.
///     cipher: the cipher.
///     sig_alg: the algorithm that signed the certificate that the client was shown.
///     key_alg: the algorithm of that certificate's key.
#[pyclass(name = "Ssl", module = "kgw.proxyproto", frozen, eq, hash, get_all)]
#[derive(PartialEq, Hash)]
struct PySsl {
    /// The client's bits, see the class.
    client: u8,
    /// 0 when the client's certificate was verified.
    verify: u32,
    /// The TLS version, as in ``TLSv1.3``.
    version: Option<String>,
    /// The common name of the client's certificate.
    cn: Option<String>,
    /// The cipher.
    cipher: Option<String>,
    /// The algorithm that signed the certificate that the client was shown.
    sig_alg: Option<String>,
    /// The algorithm of that certificate's key.
    key_alg: Option<String>,
}

impl PySsl {
    /// The value of the TLV.
    fn encoded(&self) -> PyResult<Vec<u8>> {
        let texts = [
            (kind::SSL_VERSION, &self.version),
            (kind::SSL_CN, &self.cn),
            (kind::SSL_CIPHER, &self.cipher),
            (kind::SSL_SIG_ALG, &self.sig_alg),
            (kind::SSL_KEY_ALG, &self.key_alg),
        ];
        let sub_tlvs = texts
            .iter()
            .filter_map(|(kind, text)| Some((*kind, text.as_ref()?.as_bytes())));
        let header = Builder::unspec()
            .ssl(self.client, self.verify, sub_tlvs)
            .map_err(value_error)?;
        Ok(header.tlvs().get(kind::SSL).unwrap_or_default().to_vec())
    }

    fn view(&self) -> kgw_proxyproto::Ssl<'static> {
        kgw_proxyproto::Ssl::new(self.client, self.verify)
    }
}

#[pymethods]
impl PySsl {
    #[new]
    #[pyo3(signature = (
        client, verify=0, *, version=None, cn=None, cipher=None, sig_alg=None, key_alg=None,
    ))]
    #[allow(clippy::too_many_arguments)] // one for each part of the TLV
    fn new(
        client: u8,
        verify: u32,
        version: Option<String>,
        cn: Option<String>,
        cipher: Option<String>,
        sig_alg: Option<String>,
        key_alg: Option<String>,
    ) -> PyResult<Self> {
        let ssl = Self {
            client,
            verify,
            version,
            cn,
            cipher,
            sig_alg,
            key_alg,
        };
        ssl.encoded()?;
        Ok(ssl)
    }

    /// Whether the client connected over TLS.
    #[getter]
    fn is_tls(&self) -> bool {
        self.view().is_tls()
    }

    /// Whether the client presented a certificate, and it was verified.
    #[getter]
    fn is_verified(&self) -> bool {
        self.view().is_verified()
    }

    fn __repr__(&self) -> String {
        let mut parts = vec![format!("Ssl({:#04x}, {}", self.client, self.verify)];
        for (name, value) in [
            ("version", &self.version),
            ("cn", &self.cn),
            ("cipher", &self.cipher),
            ("sig_alg", &self.sig_alg),
            ("key_alg", &self.key_alg),
        ] {
            if let Some(value) = value {
                parts.push(format!("{name}={value:?}"));
            }
        }
        parts.join(", ") + ")"
    }
}

// === conversions ===

/// Names are not resolved: that would block.
fn socket_address((host, port): &(String, u16)) -> PyResult<SocketAddr> {
    match host.parse::<IpAddr>() {
        Ok(ip) => Ok(SocketAddr::new(ip, *port)),
        Err(_) => Err(PyValueError::new_err(format!(
            "not an IP address: {host:?}"
        ))),
    }
}

fn host_and_port(address: SocketAddr) -> (String, u16) {
    (address.ip().to_string(), address.port())
}

/// Arguments that cannot be a header.
fn value_error(error: Error) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// Bytes that are not, or not yet, a header.
fn protocol_error(py: Python<'_>, error: Error) -> PyErr {
    match error {
        Error::Incomplete { need } => error::incomplete_proxy_header(py, need),
        error => error::proxy_protocol_error(py, &error),
    }
}
