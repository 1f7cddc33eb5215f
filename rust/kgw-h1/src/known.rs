//! Field names the data plane touches, found by a perfect hash built at compile time.

macro_rules! known {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// A field name with a number, so that lookups compare a byte instead of a string.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Known {
            $(#[doc = concat!("`", $name, "`")] $variant,)+
        }

        impl Known {
            /// Every known name, in declaration order.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Returns the name in lower case.
            pub const fn name(self) -> &'static str {
                NAMES[self as usize]
            }
        }

        const NAMES: &[&str] = &[$($name),+];
    };
}

known! {
    Host = "host",
    Connection = "connection",
    ContentLength = "content-length",
    TransferEncoding = "transfer-encoding",
    Te = "te",
    Upgrade = "upgrade",
    Http2Settings = "http2-settings",
    KeepAlive = "keep-alive",
    ProxyConnection = "proxy-connection",
    ProxyAuthenticate = "proxy-authenticate",
    ProxyAuthorization = "proxy-authorization",
    Trailer = "trailer",
    Expect = "expect",
    Date = "date",
    Server = "server",
    Via = "via",
    Allow = "allow",
    Accept = "accept",
    AcceptEncoding = "accept-encoding",
    ContentType = "content-type",
    ContentEncoding = "content-encoding",
    Location = "location",
    Origin = "origin",
    Vary = "vary",
    UserAgent = "user-agent",
    Cookie = "cookie",
    SetCookie = "set-cookie",
    Referer = "referer",
    Authorization = "authorization",
    RetryAfter = "retry-after",
    Forwarded = "forwarded",
    XForwardedFor = "x-forwarded-for",
    XForwardedProto = "x-forwarded-proto",
    XForwardedHost = "x-forwarded-host",
    XForwardedClientCert = "x-forwarded-client-cert",
    XRequestId = "x-request-id",
    Traceparent = "traceparent",
    XEnvoyAttemptCount = "x-envoy-attempt-count",
    XEnvoyDecoratorOperation = "x-envoy-decorator-operation",
    XEnvoyDownstreamServiceCluster = "x-envoy-downstream-service-cluster",
    XEnvoyDownstreamServiceNode = "x-envoy-downstream-service-node",
    XEnvoyExpectedRqTimeoutMs = "x-envoy-expected-rq-timeout-ms",
    XEnvoyExternalAddress = "x-envoy-external-address",
    XEnvoyForceTrace = "x-envoy-force-trace",
    XEnvoyHedgeOnPerTryTimeout = "x-envoy-hedge-on-per-try-timeout",
    XEnvoyInternal = "x-envoy-internal",
    XEnvoyIpTags = "x-envoy-ip-tags",
    XEnvoyMaxRetries = "x-envoy-max-retries",
    XEnvoyOriginalHost = "x-envoy-original-host",
    XEnvoyOriginalPath = "x-envoy-original-path",
    XEnvoyOverloaded = "x-envoy-overloaded",
    XEnvoyRetriableHeaderNames = "x-envoy-retriable-header-names",
    XEnvoyRetriableStatusCodes = "x-envoy-retriable-status-codes",
    XEnvoyRetryGrpcOn = "x-envoy-retry-grpc-on",
    XEnvoyRetryOn = "x-envoy-retry-on",
    XEnvoyUpstreamAltStatName = "x-envoy-upstream-alt-stat-name",
    XEnvoyUpstreamRqPerTryTimeoutMs = "x-envoy-upstream-rq-per-try-timeout-ms",
    XEnvoyUpstreamRqTimeoutMs = "x-envoy-upstream-rq-timeout-ms",
    XEnvoyUpstreamServiceTime = "x-envoy-upstream-service-time",
    GrpcStatus = "grpc-status",
    GrpcMessage = "grpc-message",
    GrpcTimeout = "grpc-timeout",
}

// === impl Known ===

impl Known {
    /// Returns the known name that equals `name` without regard to case.
    #[inline]
    pub fn of(name: &[u8]) -> Option<Self> {
        if name.is_empty() {
            return None;
        }
        let known = *Self::ALL.get(usize::from(TABLE[slot(name)]))?;
        equals(name, known.name().as_bytes()).then_some(known)
    }

    /// Returns the bit of this name in a presence set.
    pub(crate) const fn bit(self) -> u64 {
        1 << self as u8
    }
}

/// Whether `name` is `known` in letters of any case. `known` has lower-case letters, digits and `-` only.
///
/// Eight bytes at a time, of which the last eight may overlap those before: this runs for each field of
/// each message.
#[inline]
fn equals(name: &[u8], known: &[u8]) -> bool {
    const CASE: u64 = u64::from_ne_bytes([0x20; 8]);
    const NO_CONTROL: u64 = u64::from_ne_bytes([0x60; 8]);
    if name.len() != known.len() {
        return false;
    }
    let (Some(last), Some(last_known)) = (name.last_chunk(), known.last_chunk()) else {
        return name.eq_ignore_ascii_case(known);
    };
    let same = |bytes: &[u8; 8], known: &[u8; 8]| {
        let (bytes, known) = (u64::from_ne_bytes(*bytes), u64::from_ne_bytes(*known));
        // With the bit of the case set, a control character can look like `-` or a digit; it has
        // neither of two bits of which every other has one.
        let other = (bytes & NO_CONTROL) | ((bytes & NO_CONTROL) << 1);
        (bytes | CASE) == known && other & (CASE << 1) == CASE << 1
    };
    let mut chunks = name.as_chunks().0.iter().zip(known.as_chunks().0);
    chunks.all(|(bytes, known)| same(bytes, known)) && same(last, last_known)
}

/// Slot of a name in [`TABLE`]; letters of either case give the same slot.
const fn slot(name: &[u8]) -> usize {
    let len = name.len();
    let key = (len as u64 & 0xff)
        | ((name[0] | 0x20) as u64) << 8
        | ((name[len.saturating_sub(3)] | 0x20) as u64) << 16
        | ((name[len / 2] | 0x20) as u64) << 24
        | ((name[len - 1] | 0x20) as u64) << 32;
    (key.wrapping_mul(SEED) >> (64 - TABLE_BITS)) as usize
}

/// Builds the table, or tells that two names share a slot.
const fn table() -> Option<[u8; TABLE_SIZE]> {
    let mut table = [EMPTY; TABLE_SIZE];
    let mut index = 0;
    while index < NAMES.len() {
        let at = slot(NAMES[index].as_bytes());
        if table[at] != EMPTY {
            return None;
        }
        table[at] = index as u8;
        index += 1;
    }
    Some(table)
}

/// A multiplier without a collision, found by trial; the build fails if two names share a slot.
const SEED: u64 = 0x1773_308c_dc6b_13ab;

static TABLE: [u8; TABLE_SIZE] = match table() {
    Some(table) => table,
    None => panic!("two known names share a slot: choose another SEED"),
};

const TABLE_BITS: u32 = 8;
const TABLE_SIZE: usize = 1 << TABLE_BITS;
const EMPTY: u8 = u8::MAX;
const _: () = assert!(NAMES.len() <= 64, "presence sets are one u64");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        for &known in Known::ALL {
            assert_eq!(Known::of(known.name().as_bytes()), Some(known));
            let upper = known.name().to_ascii_uppercase();
            assert_eq!(Known::of(upper.as_bytes()), Some(known));
        }
    }

    /// With the bit of the case set, `\r` looks like `-`.
    #[test]
    fn a_name_that_differs_in_one_byte_is_another() {
        for &known in Known::ALL {
            let name = known.name().as_bytes();
            for at in 0..name.len() {
                for byte in 0..=u8::MAX {
                    let mut other = name.to_vec();
                    other[at] = byte;
                    assert_eq!(
                        equals(&other, name),
                        other.eq_ignore_ascii_case(name),
                        "{other:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn near_misses_are_unknown() {
        for name in [
            "",
            "h",
            "hosts",
            "hosT2",
            "c\u{fe}okie",
            "x-envoy-",
            "\0ost",
        ] {
            assert_eq!(Known::of(name.as_bytes()), None, "{name:?}");
        }
    }
}
