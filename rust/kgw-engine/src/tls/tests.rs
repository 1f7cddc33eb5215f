//! Both sides against each other and against rustls, over loopback sockets.

mod authority;
mod client_certificates;
mod handshakes;
mod hello;
mod servers;
mod streams;

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use self::authority::Authority;
use super::intern::Interned;
use super::server::Inside;
use super::{Client, Interrupt, Server, TlsError, TlsInfo};
use crate::config::ir::{ClientTls, Codec, ServerTls, TlsParameters, Trust, UpstreamProtocol};
use crate::conn::io::Stream;

/// Runs a test on the runtime that workers have.
fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            tokio::time::timeout(PATIENCE, test)
                .await
                .expect("a peer waits for what never comes")
        })
}

/// Real time after which a test has failed.
const PATIENCE: Duration = Duration::from_secs(30);

const HTTP: Inside = Inside::Http(Codec::Auto);

/// The two ends of a connection.
async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (client, server) = (client.unwrap(), server.unwrap().0);
    for socket in [&client, &server] {
        socket.set_nodelay(true).unwrap();
    }
    (client, server)
}

/// Nothing interrupts.
fn patient() -> impl FnMut(&mut Context<'_>) -> Poll<Interrupt> {
    |_| Poll::Pending
}

type Session = Result<(Stream, TlsInfo), TlsError>;

/// Both sides of a handshake.
async fn handshake(server: &Server, client: &Client) -> (Session, Session) {
    let (near, far) = connection().await;
    let (mut patient_server, mut patient_client) = (patient(), patient());
    let accepting = super::accept(Stream::new(far), server, &mut patient_server);
    let connecting = async {
        let (mut stream, info) =
            super::connect(Stream::new(near), client, &mut patient_client).await?;
        // With TLS 1.3 the server may still refuse the client's certificate after the client is done.
        stream.write_all(b"ping").await.map_err(TlsError::of)?;
        AsyncWriteExt::flush(&mut stream)
            .await
            .map_err(TlsError::of)?;
        Ok::<_, TlsError>((stream, info))
    };
    tokio::join!(accepting, connecting)
}

/// What both sides know after a handshake that must succeed; data goes through it in both
/// directions.
async fn session(server: &Server, client: &Client) -> (TlsInfo, TlsInfo) {
    let (accepted, connected) = handshake(server, client).await;
    let (mut down, server_info) = accepted.unwrap();
    let (mut up, client_info) = connected.unwrap();
    assert_eq!(read(&mut down, 4).await, b"ping");
    write(&mut down, b"pong").await;
    assert_eq!(read(&mut up, 4).await, b"pong");
    (server_info, client_info)
}

/// Why the server refused, and what the client saw of it.
async fn refusal(server: &Server, client: &Client) -> (TlsError, Option<TlsError>) {
    let (accepted, connected) = handshake(server, client).await;
    let refused = accepted.map(|_| ()).unwrap_err();
    let seen = match connected {
        Err(error) => Some(error),
        Ok((mut stream, _)) => {
            let read = stream.read(&mut [0; 16]).await;
            read.err().map(TlsError::of)
        }
    };
    (refused, seen)
}

async fn read(stream: &mut (impl AsyncRead + Unpin), count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).await.unwrap();
    bytes
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
}

/// Reads once through the buffered side.
async fn fill(stream: &mut Stream) -> std::io::Result<usize> {
    poll_fn(|cx| stream.poll_fill(cx, 1 << 20)).await
}

fn server_tls(authority: &Authority, names: &[&str]) -> ServerTls {
    ServerTls {
        certificates: vec![authority.server(names)],
        parameters: TlsParameters::default(),
        alpn: None,
        client_validation: None,
    }
}

fn client_tls(authority: &Authority, sni: &str) -> ClientTls {
    ClientTls {
        by_host: false,
        sni: Some(sni.to_owned()),
        trust: Trust::Ca(authority.pem()),
        subject_alt_names: Vec::new(),
        certificate: None,
        parameters: TlsParameters::default(),
        alpn: None,
        signature_algorithms: Vec::new(),
    }
}

fn server(tls: &ServerTls) -> Arc<Server> {
    Interned::default().server(tls, HTTP).unwrap()
}

fn client(tls: &ClientTls) -> Arc<Client> {
    Interned::default()
        .client(tls, UpstreamProtocol::Http1)
        .unwrap()
}
