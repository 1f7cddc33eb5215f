//! The attributes of a request that a service can be told: Envoy's names, and what they say.

use kgw_h1::Request;
use serde_json::{Map, Value};

use crate::conn::Peers;
use crate::protobuf::text;

/// An attribute that is told.
#[derive(Debug)]
pub(super) struct Attribute {
    /// As it is written in the configuration.
    name: String,
    what: What,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum What {
    Path,
    UrlPath,
    Query,
    Host,
    Scheme,
    Method,
    Protocol,
    /// The first field of this name.
    Header(Vec<u8>),
    /// All fields of this name.
    Headers(Vec<u8>),
    AllHeaders,
    Time,
    SourceAddress,
    SourcePort,
    DestinationAddress,
    DestinationPort,
    Mtls,
    ServerName,
    Principal,
    RouteName,
    ClusterName,
    /// One that says nothing here: there is no such thing when a request is told.
    Nothing,
}

/// What attributes are about.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) request: &'a Request,
    pub(crate) peers: &'a Peers,
    /// The client, as far as it can be trusted.
    pub(crate) source: std::net::SocketAddr,
    /// When the request began. Nanoseconds since 1970.
    pub(crate) began: u64,
    pub(crate) route: &'a str,
    pub(crate) cluster: &'a str,
}

/// Roots of attributes, of which others say nothing about a request that is on its way.
const ROOTS: [&str; 9] = [
    "request",
    "response",
    "source",
    "destination",
    "connection",
    "upstream",
    "xds",
    "metadata",
    "filter_state",
];

impl Attribute {
    /// An attribute by its name, or why there is none.
    pub(super) fn compile(name: &str) -> Result<Self, String> {
        let what = match name {
            "request.path" => What::Path,
            "request.url_path" => What::UrlPath,
            "request.query" => What::Query,
            "request.host" => What::Host,
            "request.scheme" => What::Scheme,
            "request.method" => What::Method,
            "request.protocol" => What::Protocol,
            "request.headers" => What::AllHeaders,
            "request.referer" => What::Header(b"referer".to_vec()),
            "request.useragent" => What::Header(b"user-agent".to_vec()),
            "request.id" => What::Header(b"x-request-id".to_vec()),
            "request.time" => What::Time,
            "source.address" => What::SourceAddress,
            "source.port" => What::SourcePort,
            "destination.address" => What::DestinationAddress,
            "destination.port" => What::DestinationPort,
            "connection.mtls" => What::Mtls,
            "connection.requested_server_name" => What::ServerName,
            "source.principal" | "connection.uri_san_peer_certificate" => What::Principal,
            "xds.route_name" => What::RouteName,
            "xds.cluster_name" => What::ClusterName,
            other => match header(other) {
                Some(header) => What::Headers(header),
                None if is_attribute(other) => What::Nothing,
                None => return Err(format!("{other:?} is not an attribute of a request")),
            },
        };
        Ok(Self {
            name: name.to_owned(),
            what,
        })
    }
}

/// The name in `request.headers['name']`.
fn header(name: &str) -> Option<Vec<u8>> {
    let quoted = name.strip_prefix("request.headers[")?.strip_suffix(']')?;
    let quote = quoted
        .chars()
        .next()
        .filter(|first| matches!(first, '\'' | '"'))?;
    let name = quoted.strip_prefix(quote)?.strip_suffix(quote)?;
    kgw_h1::is_valid_name(name.as_bytes()).then(|| name.to_ascii_lowercase().into_bytes())
}

/// Whether a name is one that an attribute may have: words with dots between them.
fn is_attribute(name: &str) -> bool {
    let mut words = name.split('.');
    let is_word = |word: &str| {
        let is_in_words = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        !word.is_empty() && word.bytes().all(is_in_words)
    };
    words.next().is_some_and(|root| ROOTS.contains(&root)) && words.all(is_word)
}

/// What a request's attributes say. Those that say nothing are left out.
pub(super) fn told(attributes: &[Attribute], subject: &Subject<'_>) -> Map<String, Value> {
    let said = attributes.iter().filter_map(|attribute| {
        let value = attribute.what.of(subject)?;
        Some((attribute.name.clone(), value))
    });
    said.collect()
}

impl What {
    fn of(&self, subject: &Subject<'_>) -> Option<Value> {
        let Subject { request, peers, .. } = *subject;
        let of_bytes = |bytes: &[u8]| Value::from(text(bytes));
        Some(match self {
            Self::Path => of_bytes(request.path()),
            Self::UrlPath => of_bytes(request.path_only()),
            Self::Query => of_bytes(request.query().unwrap_or_default()),
            Self::Host => of_bytes(request.authority()),
            Self::Scheme => (if peers.is_secure { "https" } else { "http" }).into(),
            Self::Method => of_bytes(request.method()),
            Self::Protocol => request.version().as_str().into(),
            Self::Header(name) => of_bytes(request.headers().get(name)?),
            Self::Headers(name) => joined(request, name)?,
            Self::AllHeaders => all_headers(request),
            Self::Time => rfc3339(subject.began).into(),
            Self::SourceAddress => subject.source.to_string().into(),
            Self::SourcePort => f64::from(subject.source.port()).into(),
            Self::DestinationAddress => peers.local.to_string().into(),
            Self::DestinationPort => f64::from(peers.local.port()).into(),
            Self::Mtls => peers.principal.is_some().into(),
            Self::ServerName => peers.server_name.as_deref().unwrap_or_default().into(),
            Self::Principal => peers.principal.as_deref()?.into(),
            Self::RouteName => subject.route.into(),
            Self::ClusterName => subject.cluster.into(),
            Self::Nothing => return None,
        })
    }
}

fn joined(request: &Request, name: &[u8]) -> Option<Value> {
    let mut values = request.headers().get_all(name);
    let mut joined = text(values.next()?);
    for value in values {
        joined.push(',');
        joined.push_str(&text(value));
    }
    Some(joined.into())
}

fn all_headers(request: &Request) -> Value {
    let mut all = Map::new();
    for (name, _) in request.headers() {
        let name = name.to_ascii_lowercase();
        if let Some(value) = joined(request, &name) {
            all.insert(text(&name), value);
        }
    }
    Value::Object(all)
}

/// A moment as text, to the millisecond.
fn rfc3339(nanos: u64) -> String {
    let seconds = nanos / 1_000_000_000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, in eras of 400 years (proleptic Gregorian calendar).
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = year_of_era + era * 400 + carry;
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    let millis = nanos / 1_000_000 % 1_000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, what) in [
            ("request.path", What::Path),
            ("request.headers['X-A']", What::Headers(b"x-a".to_vec())),
            ("request.headers[\"x-a\"]", What::Headers(b"x-a".to_vec())),
            ("response.code", What::Nothing),
            ("upstream.address", What::Nothing),
        ] {
            assert_eq!(Attribute::compile(name).unwrap().what, what, "{name}");
        }
        for bad in [
            "",
            "a.b",
            "request.",
            "request.headers['x a']",
            "request.path == '/'",
        ] {
            assert!(Attribute::compile(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn moments() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            rfc3339(1_709_210_096_789_000_000),
            "2024-02-29T12:34:56.789Z"
        );
    }
}
