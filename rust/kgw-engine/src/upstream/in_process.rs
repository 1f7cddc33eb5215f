//! Backends inside this process: an application that a Python event loop serves, for instance.
//!
//! A backend is reached by no address. For each connection the engine makes a socket pair and sends one
//! end of it through the backend's doorbell, a socket that the process gave for it (`SCM_RIGHTS`).
//! Whoever has the other end of the doorbell serves the connection. So nothing outside of the process
//! can connect, who serves is woken as for any socket, and a backend that is gone shows as a connection
//! that is refused. In all else these are upstream connections like others, pools included.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixDatagram};

use crate::listen::call;

/// Backends of this process by name.
pub(crate) type InProcess = BTreeMap<String, Arc<Backend>>;

/// A backend of this process.
#[derive(Debug)]
pub(crate) struct Backend {
    /// Stands for the backend where others have an address: it leads nowhere.
    pub(crate) address: SocketAddr,
    doorbell: OwnedFd,
}

/// Makes backends of their doorbells: connected sockets, which keep messages apart.
pub(crate) fn backends(doorbells: Vec<(String, OwnedFd)>) -> InProcess {
    let named = (1..).zip(doorbells).map(|(number, (name, doorbell))| {
        // RFC 6666: of the prefix 100::/64 no address is anybody's.
        let address = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, number);
        let address = SocketAddr::from((address, 0));
        (name, Arc::new(Backend { address, doorbell }))
    });
    named.collect()
}

impl Backend {
    /// Makes a connection to the backend. While too many wait to be taken, this waits as well.
    ///
    /// Dropping the future makes no connection.
    pub(crate) async fn dial(&self) -> io::Result<TcpStream> {
        let (ours, theirs) = call::pair()?;
        match ring(&self.doorbell, &theirs) {
            // Another bound of the kernel, on descriptors that are on their way, is an error: nothing
            // would tell when there is room again.
            Err(Errno::AGAIN) => {}
            rung => {
                return rung
                    .map_err(io::Error::from)
                    .and_then(|()| call::stream(ours));
            }
        }
        // A duplicate: each event loop, and each of its tasks, has a registration of its own. Its type
        // is that of a socket which keeps messages apart; it is only waited for.
        let waiting = std::os::unix::net::UnixDatagram::from(self.doorbell.try_clone()?);
        let waiting = UnixDatagram::from_std(waiting)?;
        loop {
            waiting.writable().await?;
            let again = || ring(&self.doorbell, &theirs).map_err(io::Error::from);
            match waiting.try_io(Interest::WRITABLE, again) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                rung => return rung.and_then(|()| call::stream(ours)),
            }
        }
    }
}

/// Sends an end of a connection.
fn ring(doorbell: impl AsFd, end: impl AsFd) -> Result<(), Errno> {
    let ends = [end.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let has_room = ancillary.push(SendAncillaryMessage::ScmRights(&ends));
    debug_assert!(has_room, "the space is for one descriptor");
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sendmsg(doorbell, &[IoSlice::new(&[0])], &mut ancillary, flags).map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;

    use rustix::net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags,
        SocketType, recvmsg, socketpair,
    };
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::runtime::worker;

    fn backend() -> (Arc<Backend>, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let backends = backends(vec![("app".to_owned(), ours)]);
        (Arc::clone(&backends["app"]), theirs)
    }

    fn answered(doorbell: &OwnedFd) -> TcpStream {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let buffers = &mut [io::IoSliceMut::new(&mut byte)];
        recvmsg(doorbell, buffers, &mut ancillary, RecvFlags::empty()).unwrap();
        let end = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut ends) => ends.next(),
            _ => None,
        });
        call::stream(end.unwrap()).unwrap()
    }

    #[test]
    fn both_ends_speak() {
        worker::runtime().unwrap().block_on(async {
            let (backend, doorbell) = backend();
            let mut ours = backend.dial().await.unwrap();
            let mut theirs = answered(&doorbell);
            ours.write_all(b"ping").await.unwrap();
            let mut four = [0; 4];
            theirs.read_exact(&mut four).await.unwrap();
            drop(theirs);
            assert_eq!((four, ours.read(&mut four).await.unwrap()), (*b"ping", 0));
        });
    }

    #[test]
    fn a_backend_that_is_gone_refuses() {
        worker::runtime().unwrap().block_on(async {
            let (backend, doorbell) = backend();
            drop(doorbell);
            assert!(backend.dial().await.is_err());
        });
    }

    #[test]
    fn who_comes_while_too_many_wait_is_served_when_one_was_taken() {
        worker::runtime().unwrap().block_on(async {
            let (backend, doorbell) = backend();
            let mut made = Vec::new();
            let mut late = loop {
                let mut dial = Box::pin({
                    let backend = Arc::clone(&backend);
                    async move { backend.dial().await }
                });
                match futures_poll(&mut dial).await {
                    Some(stream) => made.push(stream.unwrap()),
                    None => break dial,
                }
            };
            assert!(!made.is_empty());
            for _ in 0..made.len() {
                drop(answered(&doorbell));
            }
            late.as_mut().await.unwrap();
            drop(answered(&doorbell));
        });
    }

    /// What a future comes to if it comes to it now.
    async fn futures_poll<F: Future>(future: &mut std::pin::Pin<Box<F>>) -> Option<F::Output> {
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match future.as_mut().poll(cx) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
