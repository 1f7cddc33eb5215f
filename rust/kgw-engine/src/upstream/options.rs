//! How connections of a cluster behave, and which of them are of one kind.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use hashbrown::HashMap;
use kgw_h1::Limits;

use super::breaker::Breaker;
use crate::config::ir::{ConnectionOptions, Http2Keepalive, Http2Options, TcpKeepalive};

/// How long a connection may sit idle unless something else is configured. Milliseconds. Backends commonly
/// close theirs after a minute or more.
const IDLE_TIMEOUT_MS: u64 = 55_000;

/// Streams that may be open on one connection, whatever its peer allows.
const MAX_STREAMS: usize = 256;

/// What one exchange, and what all of a connection can have buffered.
const WINDOWS: Http2Options = Http2Options {
    max_concurrent_streams: 0,
    initial_stream_window_size: 64 * 1024,
    initial_connection_window_size: 1024 * 1024,
    max_frame_size: 16 * 1024,
    allow_connect: true,
};

/// Marks the numbers of ways among those of transports; another bit marks those of names.
const IS_WAY: u64 = 1 << 62;

/// How connections behave.
#[derive(Debug)]
pub(crate) struct Options {
    /// Time that a connection may sit unused. Milliseconds; 0 is no limit.
    pub(crate) idle_ms: u64,
    /// Bounds of the heads of answers.
    pub(crate) heads: Limits,
    /// Bytes buffered in each direction; none is what the listener has.
    pub(crate) buffer_bytes: Option<usize>,
    pub(crate) tcp_keepalive: Option<TcpKeepalive>,
    pub(crate) http2: Http2Options,
    /// Streams on one HTTP/2 connection.
    pub(crate) max_streams: usize,
    pub(crate) http2_keepalive: Option<Http2Keepalive>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            idle_ms: IDLE_TIMEOUT_MS,
            heads: Limits::RESPONSE,
            buffer_bytes: None,
            tcp_keepalive: None,
            http2: WINDOWS,
            max_streams: MAX_STREAMS,
            http2_keepalive: None,
        }
    }
}

impl Options {
    fn compile(options: &ConnectionOptions) -> Self {
        let http2 = &options.http2;
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        Self {
            idle_ms: options.idle_timeout_ms.unwrap_or(IDLE_TIMEOUT_MS),
            heads: Limits {
                max_fields: options
                    .max_fields
                    .map_or(Limits::RESPONSE.max_fields, |most| count(most.max(1))),
                ..Limits::RESPONSE
            },
            buffer_bytes: options.buffer_bytes.filter(|bytes| *bytes > 0).map(size),
            tcp_keepalive: options.tcp_keepalive.clone(),
            http2: Http2Options {
                initial_stream_window_size: http2
                    .initial_stream_window_size
                    .unwrap_or(WINDOWS.initial_stream_window_size),
                initial_connection_window_size: http2
                    .initial_connection_window_size
                    .unwrap_or(WINDOWS.initial_connection_window_size),
                ..WINDOWS
            },
            max_streams: http2
                .max_concurrent_streams
                .map_or(MAX_STREAMS, |most| count(most).clamp(1, MAX_STREAMS)),
            http2_keepalive: http2.keepalive.clone().map(|keepalive| Http2Keepalive {
                timeout_ms: keepalive.timeout_ms.max(1),
                ..keepalive
            }),
        }
    }
}

/// The ways in which endpoints are reached, by what makes them different, as long as a snapshot uses
/// them: what did not change keeps its connections.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    plain: Arc<Options>,
    known: HashMap<Way, (Weak<Options>, u64)>,
    count: AtomicU64,
}

/// The numbers of TLS and of the breaker that counts the connections, and the options.
type Way = (u64, u64, String);

impl Ways {
    /// The number of a way, and its options. Without options or a breaker it is that of its TLS.
    pub(crate) fn way(
        &mut self,
        tls: u64,
        options: &ConnectionOptions,
        breaker: Option<&Arc<Breaker>>,
    ) -> (u64, Arc<Options>) {
        if breaker.is_none() && *options == ConnectionOptions::default() {
            return (tls, Arc::clone(&self.plain));
        }
        // Its fields are numbers: it can be written.
        let text = serde_json::to_string(options).unwrap_or_default();
        let way = (tls, breaker.map_or(0, |breaker| breaker.number), text);
        if let Some((known, number)) = self.known.get(&way)
            && let Some(known) = known.upgrade()
        {
            return (*number, known);
        }
        let number = IS_WAY | self.count.fetch_add(1, Ordering::Relaxed);
        let made = Arc::new(Options::compile(options));
        self.known.insert(way, (Arc::downgrade(&made), number));
        (number, made)
    }

    /// Forgets what no snapshot uses.
    pub(crate) fn forget_unused(&mut self) {
        self.known
            .retain(|_, (options, _)| options.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ir::CircuitBreakers;

    #[test]
    fn connections_are_shared_by_what_is_reached_in_the_same_way() {
        let mut ways = Ways::default();
        let plain = ConnectionOptions::default();
        let quick = ConnectionOptions {
            idle_timeout_ms: Some(1_000),
            ..ConnectionOptions::default()
        };
        let breaker = Arc::new(Breaker::new(&CircuitBreakers::default()));
        assert_eq!(ways.way(7, &plain, None).0, 7);
        let (one, options) = ways.way(7, &quick, None);
        assert_eq!(options.idle_ms, 1_000);
        assert_eq!(ways.way(7, &quick, None).0, one);
        let (other, _options) = ways.way(8, &quick, None);
        let (bounded, _options) = ways.way(7, &quick, Some(&breaker));
        assert!(one != other && one != bounded && other != bounded);
        drop(options);
        ways.forget_unused();
        assert_ne!(ways.way(7, &quick, None).0, one);
    }

    #[test]
    fn what_is_not_configured_has_its_usual_bounds() {
        let options = Options::compile(&ConnectionOptions {
            buffer_bytes: Some(0),
            ..ConnectionOptions::default()
        });
        assert_eq!(options.idle_ms, IDLE_TIMEOUT_MS);
        assert_eq!(options.max_streams, MAX_STREAMS);
        assert_eq!(options.buffer_bytes, None);
        assert_eq!(options.heads.max_fields, 100);
    }
}
