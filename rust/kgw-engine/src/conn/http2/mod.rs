//! HTTP/2 on connections.
#![cfg_attr(
    not(test),
    allow(
        dead_code,
        reason = "what runs HTTP/2 connections under the guard is not here yet"
    )
)]

pub(crate) mod guard;
