//! Response flags: how a request ended, in Envoy's spellings.
//!
//! A request carries a small set of [`ResponseFlag`]s. The set keeps the order in which flags were
//! set, because access logs print it (`URX,UT`: the retries were used up, then the time ran out).

use std::fmt;

/// One way a request ended, or one thing that happened to it on the way.
///
/// The names and the two spellings are Envoy's (`StreamInfo::CoreResponseFlag`), but for the last.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum ResponseFlag {
    /// `LH`: the local health check failed.
    FailedLocalHealthCheck,
    /// `UH`: no endpoint of the cluster is healthy, or there is none.
    NoHealthyUpstream,
    /// `UT`: the route's or the attempt's time ran out.
    UpstreamRequestTimeout,
    /// `LR`: the proxy reset the stream.
    LocalReset,
    /// `UR`: the upstream reset the stream.
    UpstreamRemoteReset,
    /// `UF`: the connection to the upstream failed or took too long.
    UpstreamConnectionFailure,
    /// `UC`: the upstream closed the connection before it answered.
    UpstreamConnectionTermination,
    /// `UO`: a circuit breaker is open.
    UpstreamOverflow,
    /// `NR`: no host, route or filter chain matched.
    NoRouteFound,
    /// `DI`: a delay was injected.
    DelayInjected,
    /// `FI`: a fault was injected.
    FaultInjected,
    /// `RL`: a rate limit refused the request.
    RateLimited,
    /// `UAEX`: the external authorization service refused the request or failed.
    UnauthorizedExternalService,
    /// `RLSE`: the rate limit service failed and failures deny.
    RateLimitServiceError,
    /// `DC`: the client went away.
    DownstreamConnectionTermination,
    /// `URX`: the allowed number of attempts was used up.
    UpstreamRetryLimitExceeded,
    /// `SI`: nothing moved in either direction for too long.
    StreamIdleTimeout,
    /// `IH`: a proxy control header of the request is invalid.
    InvalidEnvoyRequestHeaders,
    /// `DPE`: the client broke the protocol.
    DownstreamProtocolError,
    /// `UMSDR`: the upstream stream lived too long.
    UpstreamMaxStreamDurationReached,
    /// `RFCF`: the response came from a cache.
    ResponseFromCacheFilter,
    /// `NFCF`: a filter's configuration has not arrived.
    NoFilterConfigFound,
    /// `DT`: the request or connection lived too long.
    DurationTimeout,
    /// `UPE`: the upstream broke the protocol.
    UpstreamProtocolError,
    /// `NC`: the route's cluster does not exist.
    NoClusterFound,
    /// `OM`: the overload protection ended the request.
    OverloadManager,
    /// `DF`: the upstream's name did not resolve.
    DnsResolutionFailed,
    /// `DO`: dropped by the endpoints' overload policy.
    DropOverload,
    /// `DR`: the client reset the stream.
    DownstreamRemoteReset,
    /// `UDO`: the endpoints' overload policy drops everything.
    UnconditionalDropOverload,
    /// `PFE`: a filter in Python failed to decide. The proxy's own, as Envoy's filters may have flags of
    /// theirs.
    PythonFilterError,
}

impl ResponseFlag {
    /// Every flag, in Envoy's order, then the proxy's own.
    pub const ALL: [Self; 31] = [
        Self::FailedLocalHealthCheck,
        Self::NoHealthyUpstream,
        Self::UpstreamRequestTimeout,
        Self::LocalReset,
        Self::UpstreamRemoteReset,
        Self::UpstreamConnectionFailure,
        Self::UpstreamConnectionTermination,
        Self::UpstreamOverflow,
        Self::NoRouteFound,
        Self::DelayInjected,
        Self::FaultInjected,
        Self::RateLimited,
        Self::UnauthorizedExternalService,
        Self::RateLimitServiceError,
        Self::DownstreamConnectionTermination,
        Self::UpstreamRetryLimitExceeded,
        Self::StreamIdleTimeout,
        Self::InvalidEnvoyRequestHeaders,
        Self::DownstreamProtocolError,
        Self::UpstreamMaxStreamDurationReached,
        Self::ResponseFromCacheFilter,
        Self::NoFilterConfigFound,
        Self::DurationTimeout,
        Self::UpstreamProtocolError,
        Self::NoClusterFound,
        Self::OverloadManager,
        Self::DnsResolutionFailed,
        Self::DropOverload,
        Self::DownstreamRemoteReset,
        Self::UnconditionalDropOverload,
        Self::PythonFilterError,
    ];

    /// Returns the short spelling, as `%RESPONSE_FLAGS%` prints it.
    pub const fn short(self) -> &'static str {
        SPELLINGS[self as usize].0
    }

    /// Returns the long spelling, as `%RESPONSE_FLAGS_LONG%` prints it.
    pub const fn long(self) -> &'static str {
        SPELLINGS[self as usize].1
    }
}

/// A text that is no flag.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("unknown response flag")]
pub struct UnknownFlag;

impl std::str::FromStr for ResponseFlag {
    type Err = UnknownFlag;

    /// Reads the short spelling.
    fn from_str(short: &str) -> Result<Self, UnknownFlag> {
        let mut all = Self::ALL.into_iter();
        all.find(|flag| flag.short() == short).ok_or(UnknownFlag)
    }
}

/// The flags of one request, each at most once, in the order in which they were set.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
pub struct ResponseFlags {
    len: u8,
    /// Indices into [`ResponseFlag::ALL`]; there is room for every flag.
    order: [u8; ResponseFlag::ALL.len()],
}

impl ResponseFlags {
    /// A request to which nothing remarkable happened.
    pub const NONE: Self = Self {
        len: 0,
        order: [0; ResponseFlag::ALL.len()],
    };

    /// Adds `flag` behind those already set; setting it again changes nothing.
    pub fn set(&mut self, flag: ResponseFlag) {
        if !self.contains(flag) {
            self.order[usize::from(self.len)] = flag as u8;
            self.len += 1;
        }
    }

    /// Returns the set with `flag` added.
    #[must_use]
    pub fn with(mut self, flag: ResponseFlag) -> Self {
        self.set(flag);
        self
    }

    /// Returns whether `flag` is set.
    pub fn contains(&self, flag: ResponseFlag) -> bool {
        self.indices().contains(&(flag as u8))
    }

    /// Returns whether no flag is set.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the flags in the order in which they were set.
    pub fn iter(&self) -> impl Iterator<Item = ResponseFlag> + '_ {
        self.indices()
            .iter()
            .map(|&index| ResponseFlag::ALL[usize::from(index)])
    }

    fn indices(&self) -> &[u8] {
        &self.order[..usize::from(self.len)]
    }
}

impl From<ResponseFlag> for ResponseFlags {
    fn from(flag: ResponseFlag) -> Self {
        Self::NONE.with(flag)
    }
}

impl FromIterator<ResponseFlag> for ResponseFlags {
    fn from_iter<I: IntoIterator<Item = ResponseFlag>>(flags: I) -> Self {
        flags.into_iter().fold(Self::NONE, Self::with)
    }
}

/// Prints the short spellings joined by commas, `-` for an empty set.
impl fmt::Display for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        for (index, flag) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            f.write_str(flag.short())?;
        }
        Ok(())
    }
}

impl fmt::Debug for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Short and long spellings, in the order of [`ResponseFlag::ALL`].
const SPELLINGS: [(&str, &str); ResponseFlag::ALL.len()] = [
    ("LH", "FailedLocalHealthCheck"),
    ("UH", "NoHealthyUpstream"),
    ("UT", "UpstreamRequestTimeout"),
    ("LR", "LocalReset"),
    ("UR", "UpstreamRemoteReset"),
    ("UF", "UpstreamConnectionFailure"),
    ("UC", "UpstreamConnectionTermination"),
    ("UO", "UpstreamOverflow"),
    ("NR", "NoRouteFound"),
    ("DI", "DelayInjected"),
    ("FI", "FaultInjected"),
    ("RL", "RateLimited"),
    ("UAEX", "UnauthorizedExternalService"),
    ("RLSE", "RateLimitServiceError"),
    ("DC", "DownstreamConnectionTermination"),
    ("URX", "UpstreamRetryLimitExceeded"),
    ("SI", "StreamIdleTimeout"),
    ("IH", "InvalidEnvoyRequestHeaders"),
    ("DPE", "DownstreamProtocolError"),
    ("UMSDR", "UpstreamMaxStreamDurationReached"),
    ("RFCF", "ResponseFromCacheFilter"),
    ("NFCF", "NoFilterConfigFound"),
    ("DT", "DurationTimeout"),
    ("UPE", "UpstreamProtocolError"),
    ("NC", "NoClusterFound"),
    ("OM", "OverloadManagerTerminated"),
    ("DF", "DnsResolutionFailed"),
    ("DO", "DropOverload"),
    ("DR", "DownstreamRemoteReset"),
    ("UDO", "UnconditionalDropOverload"),
    ("PFE", "PythonFilterError"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_print_in_the_order_in_which_they_were_set() {
        let mut flags = ResponseFlags::from(ResponseFlag::UpstreamRetryLimitExceeded);
        flags.set(ResponseFlag::UpstreamRequestTimeout);
        flags.set(ResponseFlag::UpstreamRetryLimitExceeded);
        assert_eq!(flags.to_string(), "URX,UT");
        let tcp: ResponseFlags = [
            ResponseFlag::UpstreamConnectionFailure,
            ResponseFlag::UpstreamRetryLimitExceeded,
        ]
        .into_iter()
        .collect();
        assert_eq!(tcp.to_string(), "UF,URX");
    }

    #[test]
    fn an_empty_set_prints_as_a_dash() {
        assert_eq!(ResponseFlags::NONE.to_string(), "-");
    }

    #[test]
    fn every_flag_fits_once_and_spells_its_own_variant() {
        let all: ResponseFlags = ResponseFlag::ALL.into_iter().collect();
        assert_eq!(all.iter().collect::<Vec<_>>(), ResponseFlag::ALL);
        for (index, flag) in ResponseFlag::ALL.into_iter().enumerate() {
            assert_eq!(flag as usize, index);
            assert!(
                flag.long().starts_with(&format!("{flag:?}")),
                "{flag:?} {}",
                flag.long()
            );
        }
    }
}
