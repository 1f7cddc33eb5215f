//! How the h2 crate is set up: what it bounds itself.

use crate::config::ir::{Http2Options, HttpOptions};

/// Sent data that h2 holds for a stream when the peer takes none. Bytes. The crate's default of 400 KiB
/// would be 40 MB for a connection of 100 streams.
const SEND_BUFFER: usize = 64 * 1024;

/// Largest head of an upstream. Bytes. Envoy: 60 KiB.
pub(crate) const MAX_UPSTREAM_HEAD_BYTES: usize = 60 * 1024;

/// Streams opened upstream before its SETTINGS have come: what RFC 9113 6.5.2 recommends to allow.
const STREAMS_BEFORE_SETTINGS: usize = 100;

/// Streams that were reset a moment ago and are remembered, so that what the peer sent before it knew is
/// dropped instead of answered: all that can be open, twice.
const RESET_STREAMS_PER_STREAM: usize = 2;

/// How the server side towards clients is set up. What it bounds:
///
/// * Streams: one above the limit is refused (`REFUSED_STREAM`).
/// * Header blocks: the decoded fields, 32 bytes added for each, may have `max_head_bytes`; past it the
///   crate drops what follows and answers 431 itself; past four times that it ends the connection
///   (`ENHANCE_YOUR_CALM`), so an HPACK bomb is never copied out. CONTINUATION frames that do not end a
///   block: 5, or 1.25 times what the size needs.
/// * Resets before `accept`: streams opened and reset between two polls, as many as may be open;
///   the crate's 20 would end a client that leaves a page.
/// * Resets for faults, refusals included: 1024 in a connection's life, the crate's default. It bounds
///   what is queued for a peer that reads nothing; the guard's budget bounds the rate.
/// * DATA: 100 empty frames in a connection's life, which cannot be set; small frames that are not
///   consumed may cost half the connection's window.
pub(crate) fn server_builder(options: &Http2Options, http: &HttpOptions) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    let streams = options.max_concurrent_streams as usize;
    builder
        .max_concurrent_streams(options.max_concurrent_streams)
        .initial_window_size(window(options.initial_stream_window_size))
        .initial_connection_window_size(window(options.initial_connection_window_size))
        .max_frame_size(frame_size(options.max_frame_size))
        .max_header_list_size(u32::try_from(http.max_head_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(streams.clamp(MIN_REMEMBERED, MAX_REMEMBERED))
        .max_concurrent_reset_streams(remembered(streams))
        .max_local_error_reset_streams(Some(1024));
    // Whether a request may switch protocols is its route's to say.
    if options.allow_connect {
        builder.enable_connect_protocol();
    }
    builder
}

/// How the client side towards upstreams is set up; `options` are the windows and the frame size. Pushes
/// are refused, and heads bounded by [`MAX_UPSTREAM_HEAD_BYTES`] in the manner of [`server_builder`].
pub(crate) fn client_builder(options: &Http2Options) -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(STREAMS_BEFORE_SETTINGS)
        .initial_window_size(window(options.initial_stream_window_size))
        .initial_connection_window_size(window(options.initial_connection_window_size))
        .max_frame_size(frame_size(options.max_frame_size))
        .max_header_list_size(MAX_UPSTREAM_HEAD_BYTES as u32)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(remembered(STREAMS_BEFORE_SETTINGS))
        .max_local_error_reset_streams(Some(1024));
    builder
}

fn remembered(streams: usize) -> usize {
    streams
        .saturating_mul(RESET_STREAMS_PER_STREAM)
        .clamp(MIN_REMEMBERED, MAX_REMEMBERED)
}

const MIN_REMEMBERED: usize = 20;
/// State of a stream is some hundred bytes.
const MAX_REMEMBERED: usize = 1000;

/// A window in the range of RFC 9113 6.9.1.
fn window(size: u32) -> u32 {
    size.min(0x7fff_ffff)
}

/// A frame size in the range of RFC 9113 6.5.2; the crate panics outside it.
fn frame_size(size: u32) -> u32 {
    size.clamp(16_384, 16_777_215)
}
