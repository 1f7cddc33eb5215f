//! What is inside of TLS, as a stream.

use std::io;

use super::authority::Authority;
use super::*;

/// Both ends of a session, the client's first.
async fn pair(inside: Inside) -> (Stream, Stream) {
    let ca = Authority::new("ca");
    let tls = server_tls(&ca, &["a.example"]);
    let server = Interned::default().server(&tls, inside).unwrap();
    let client = client(&client_tls(&ca, "a.example"));
    let (accepted, connected) = handshake(&server, &client).await;
    let (mut down, mut up) = (accepted.unwrap().0, connected.unwrap().0);
    assert_eq!(read(&mut down, 4).await, b"ping");
    write(&mut down, b"pong").await;
    assert_eq!(read(&mut up, 4).await, b"pong");
    (up, down)
}

async fn shutdown(stream: &mut Stream) {
    poll_fn(|cx| stream.poll_shutdown(cx)).await.unwrap();
}

async fn flush(stream: &mut Stream) {
    poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
}

/// The socket's end without a word of TLS.
fn cut(stream: Stream) {
    drop(stream);
}

#[test]
fn buffered_and_unbuffered_use_go_together() {
    run(async {
        let (mut up, mut down) = pair(HTTP).await;
        up.output().extend_from_slice(b"hello ");
        AsyncWriteExt::write_all(&mut up, b"world").await.unwrap();
        flush(&mut up).await;
        assert_eq!(up.unsent(), 0);
        assert_eq!(up.traffic().sent, 4 + 11);
        while down.input().len() < 11 {
            fill(&mut down).await.unwrap();
        }
        assert_eq!(down.input(), b"hello world");
        down.consume(6);
        assert_eq!(read(&mut down, 5).await, b"world");
        assert_eq!(down.traffic().consumed, 4 + 11);
    });
}

#[test]
fn a_large_body_arrives_whole_and_is_unsent_until_it_is_flushed() {
    run(async {
        let (mut up, mut down) = pair(HTTP).await;
        let body: Vec<u8> = (0..20_000_000_u32).map(|at| (at % 251) as u8).collect();
        up.output().extend_from_slice(&body);
        let send = async {
            let mut stalled = false;
            poll_fn(|cx| {
                let flushed = up.poll_flush(cx);
                stalled |= flushed.is_pending() && up.unsent() > 0;
                assert_eq!(flushed.is_pending(), up.unsent() > 0);
                flushed
            })
            .await
            .unwrap();
            stalled
        };
        let receive = read(&mut down, body.len());
        let (stalled, received) = tokio::join!(send, receive);
        assert!(
            stalled,
            "the socket took it all at once: the body is too small"
        );
        assert!(received == body);
    });
}

#[test]
fn close_notify_is_the_end_and_the_other_direction_goes_on() {
    run(async {
        let (mut up, mut down) = pair(Inside::Bytes).await;
        shutdown(&mut up).await;
        assert_eq!(fill(&mut down).await.unwrap(), 0);
        assert!(down.eof);
        write(&mut down, b"still here").await;
        assert_eq!(read(&mut up, 10).await, b"still here");
        assert_eq!(down.close_type(), "Normal");
    });
}

#[test]
fn an_answer_that_is_cut_short_is_no_end() {
    run(async {
        let (mut up, mut down) = pair(HTTP).await;
        write(&mut down, b"half of it").await;
        cut(down);
        assert_eq!(fill(&mut up).await.unwrap(), 10);
        let error = fill(&mut up).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn bytes_of_a_client_that_are_cut_short_are_no_end() {
    run(async {
        let (up, mut down) = pair(Inside::Bytes).await;
        cut(up);
        assert!(fill(&mut down).await.is_err());
    });
}

#[test]
fn requests_say_themselves_where_they_end() {
    run(async {
        let (up, mut down) = pair(HTTP).await;
        cut(up);
        assert_eq!(fill(&mut down).await.unwrap(), 0);
        assert!(down.eof);
    });
}

/// Waits until the event loop has heard of what the peer did.
async fn heard(stream: &mut Stream) {
    while stream.is_quiet() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn session_tickets_leave_a_pooled_connection_usable() {
    run(async {
        let ca = Authority::new("ca");
        let server = server(&server_tls(&ca, &["a.example"]));
        let client = client(&client_tls(&ca, "a.example"));
        let (near, far) = connection().await;
        let (mut one, mut other) = (patient(), patient());
        let accepting = crate::tls::accept(Stream::new(far), &server, &mut one);
        let connecting = crate::tls::connect(Stream::new(near), &client, &mut other);
        let (accepted, connected) = tokio::join!(accepting, connecting);
        let (mut down, mut up) = (accepted.unwrap().0, connected.unwrap().0);
        // Nothing was read since the handshake: the tickets are still on their way or in the socket.
        for _ in 0..100 {
            assert!(up.is_quiet());
            tokio::task::yield_now().await;
        }
        write(&mut down, b"x").await;
        heard(&mut up).await;
        assert_eq!(read(&mut up, 1).await, b"x");
        assert!(up.is_quiet());
        // They were taken in, and not thrown away.
        let (info, _) = session(&server, &client).await;
        assert!(info.is_resumed());
    });
}

#[test]
fn a_closed_connection_is_not_quiet() {
    run(async {
        let (mut up, mut down) = pair(HTTP).await;
        assert!(up.is_quiet() && down.is_quiet());
        shutdown(&mut down).await;
        heard(&mut up).await;
        let (mut up, down) = pair(HTTP).await;
        cut(down);
        heard(&mut up).await;
    });
}

#[test]
fn a_header_in_front_of_the_handshake_is_sent_first() {
    run(async {
        let ca = Authority::new("ca");
        let server = server(&server_tls(&ca, &["a.example"]));
        let client = client(&client_tls(&ca, "a.example"));
        let (near, mut far) = connection().await;
        let accepting = async {
            assert_eq!(read(&mut far, 6).await, b"PROXY ");
            crate::tls::accept(Stream::new(far), &server, &mut patient()).await
        };
        let connecting = async {
            let mut stream = Stream::new(near);
            stream.output().extend_from_slice(b"PROXY ");
            crate::tls::connect(stream, &client, &mut patient()).await
        };
        let (accepted, connected) = tokio::join!(accepting, connecting);
        assert!(accepted.is_ok() && connected.is_ok());
    });
}
