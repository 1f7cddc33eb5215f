//! Reading hellos, in whatever pieces they come.

use std::cell::Cell;
use std::time::Duration;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use super::authority::Authority;
use super::*;
use crate::clock::{Clock, Timer};
use crate::tls::read_client_hello;

/// The first bytes of a client that asks for `name`.
fn hello(name: &str) -> Vec<u8> {
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(crate::tls::provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// The same hello in records of `size` bytes.
fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
    let message = &hello[5..];
    let records = message.chunks(size).flat_map(|part| {
        let length = u16::try_from(part.len()).unwrap().to_be_bytes();
        [&[0x16, 3, 1][..], &length, part].concat()
    });
    records.collect()
}

#[test]
fn a_hello_is_read_in_any_pieces_and_stays() {
    run(async {
        let hello = hello("Some.Example");
        for bytes in [
            hello.clone(),
            in_records(&hello, 7),
            in_records(&hello, 100),
        ] {
            let (mut client, socket) = connection().await;
            let mut stream = Stream::new(socket);
            let mut interrupt = patient();
            let send = async {
                for piece in bytes.chunks(3) {
                    client.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let (read, ()) = tokio::join!(read_client_hello(&mut stream, &mut interrupt), send);
            assert_eq!(read.unwrap().server_name.as_deref(), Some("some.example"));
            while stream.input().len() < bytes.len() {
                fill(&mut stream).await.unwrap();
            }
            assert_eq!(stream.input(), bytes);
        }
    });
}

#[test]
fn an_address_is_no_server_name() {
    run(async {
        let (mut client, socket) = connection().await;
        client.write_all(&hello("127.0.0.1")).await.unwrap();
        let mut stream = Stream::new(socket);
        let read = read_client_hello(&mut stream, &mut patient()).await;
        assert_eq!(read.unwrap().server_name, None);
    });
}

#[test]
fn a_handshake_begins_with_what_was_read_already() {
    run(async {
        let ca = Authority::new("ca");
        let server = server(&server_tls(&ca, &["a.example"]));
        let client = client(&client_tls(&ca, "a.example"));
        let (near, far) = connection().await;
        let accepting = async {
            let mut stream = Stream::new(far);
            let mut interrupt = patient();
            let hello = read_client_hello(&mut stream, &mut interrupt)
                .await
                .unwrap();
            assert_eq!(hello.server_name.as_deref(), Some("a.example"));
            assert!(!stream.input().is_empty());
            crate::tls::accept(stream, &server, &mut interrupt).await
        };
        let mut interrupt = patient();
        let connecting = crate::tls::connect(Stream::new(near), &client, &mut interrupt);
        let (accepted, connected) = tokio::join!(accepting, connecting);
        let (mut down, mut up) = (accepted.unwrap().0, connected.unwrap().0);
        write(&mut up, b"inside").await;
        assert_eq!(read(&mut down, 6).await, b"inside");
        assert_eq!(down.traffic().consumed, 6);
    });
}

#[test]
fn what_is_no_hello_is_answered_with_an_alert() {
    run(async {
        for bytes in [
            &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..],
            b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
            b"\x17\x03\x03\x00\x01\x00",
        ] {
            let (mut client, socket) = connection().await;
            client.write_all(bytes).await.unwrap();
            let mut stream = Stream::new(socket);
            let error = read_client_hello(&mut stream, &mut patient())
                .await
                .unwrap_err();
            assert!(matches!(error, TlsError::Handshake(_)), "{error:?}");
            let answer = read(&mut client, 7).await;
            assert_eq!(answer[0], 0x15);
            assert_eq!(answer[5], 2);
        }
    });
}

#[test]
fn an_endless_hello_is_cut_off() {
    run(async {
        let (mut client, socket) = connection().await;
        let mut stream = Stream::new(socket);
        let mut interrupt = patient();
        let mut bytes = vec![0x16, 3, 1, 0, 4, 1, 0, 0xff, 0xf0];
        while bytes.len() < 70_000 {
            bytes.extend_from_slice(&[0x16, 3, 1, 0, 1, 0]);
        }
        let send = async {
            // The gateway may close before it has taken everything.
            let _ = client.write_all(&bytes).await;
        };
        let (read, ()) = tokio::join!(read_client_hello(&mut stream, &mut interrupt), send);
        assert!(matches!(read, Err(TlsError::Handshake(_))), "{read:?}");
        assert!(stream.input().len() <= 64 * 1024);
    });
}

#[test]
fn a_client_that_leaves_is_no_handshake_failure() {
    run(async {
        let (mut client, socket) = connection().await;
        client.write_all(&hello("a.example")[..20]).await.unwrap();
        drop(client);
        let mut stream = Stream::new(socket);
        let error = read_client_hello(&mut stream, &mut patient())
            .await
            .unwrap_err();
        assert_eq!(
            error.reason(),
            "TLS_error:|connection_closed_in_the_handshake"
        );
    });
}

#[test]
fn a_handshake_has_its_time() {
    run(async {
        let ca = Authority::new("ca");
        let server = server(&server_tls(&ca, &["a.example"]));
        let clock = Clock::manual();
        let deadline = clock.now().after_ms(15_000);
        for sent in [0, 20, hello("a.example").len()] {
            let (mut client, socket) = connection().await;
            client.write_all(&hello("a.example")[..sent]).await.unwrap();
            let mut timer = Timer::new(clock.clone());
            let asked = Cell::new(0);
            let mut interrupt = |cx: &mut Context<'_>| {
                asked.set(asked.get() + 1);
                // The clock is turned once the handshake waits, and wakes who waits as a worker does.
                if asked.get() > 1 {
                    clock.advance(Duration::from_secs(16));
                }
                cx.waker().wake_by_ref();
                timer.poll(cx, deadline).map(|()| Interrupt::TimedOut)
            };
            let mut stream = Stream::new(socket);
            let read = read_client_hello(&mut stream, &mut interrupt).await;
            let error = match read {
                Err(error) => error,
                Ok(_) => crate::tls::accept(stream, &server, &mut interrupt)
                    .await
                    .map(|_| ())
                    .unwrap_err(),
            };
            assert!(
                matches!(error, TlsError::Interrupted(Interrupt::TimedOut)),
                "{error:?}"
            );
        }
    });
}
