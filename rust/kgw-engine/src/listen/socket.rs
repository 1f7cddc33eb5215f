//! Listening sockets: one per worker and address, sharing the port.
//!
//! The engine binds and owns them; workers listen on duplicates. A socket therefore outlives any
//! reload that keeps its address; where one goes away, the worker takes what waits in its queue first.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Weak};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
pub(crate) const BACKLOG: i32 = 4096;

/// What identifies a socket across reloads: the address, and for port 0 also who asked for it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct BindKey {
    listener: Option<String>,
    pub(crate) requested: SocketAddr,
}

impl BindKey {
    pub(crate) fn new(listener: &str, requested: SocketAddr) -> Self {
        let listener = (requested.port() == 0).then(|| listener.to_owned());
        Self {
            listener,
            requested,
        }
    }
}

/// One address, bound once per worker.
#[derive(Debug)]
pub(crate) struct BoundAddress {
    pub(crate) local: SocketAddr,
    /// Held by whoever listens on a duplicate.
    pub(crate) lease: Arc<()>,
    sockets: Vec<TcpListener>,
}

/// Ports on which the engine listens or, after a reload, still takes what waits.
#[derive(Debug, Default)]
pub(crate) struct Leases(Vec<(u16, Weak<()>)>);

impl Leases {
    fn holds(&mut self, port: u16) -> bool {
        self.0.retain(|(_, lease)| lease.strong_count() > 0);
        self.0.iter().any(|(held, _)| *held == port)
    }
}

impl BoundAddress {
    fn bind(requested: SocketAddr, workers: usize, leases: &mut Leases) -> io::Result<Self> {
        if requested.port() != 0 && !leases.holds(requested.port()) {
            // A port shared by workers could be shared with a stranger as well, who would take half
            // of the connections. A socket that does not share finds out whether someone is there.
            open(requested)?.bind(&requested.into())?;
        }
        let first = bind(requested)?;
        let local = first.local_addr()?;
        let mut sockets = vec![first];
        for _ in 1..workers {
            sockets.push(bind(local)?);
        }
        let lease = Arc::new(());
        leases.0.push((local.port(), Arc::downgrade(&lease)));
        Ok(Self {
            local,
            lease,
            sockets,
        })
    }

    /// A duplicate of the worker's socket.
    pub(crate) fn socket(&self, worker: usize) -> io::Result<TcpListener> {
        self.sockets[worker].try_clone()
    }
}

/// Every bound address of an engine.
pub(crate) type Sockets = HashMap<BindKey, Arc<BoundAddress>>;

/// Binds what `wanted` names and `current` does not have, and keeps the rest. An address that
/// cannot be bound fails the whole set, and nothing of `current` is changed.
pub(crate) fn rebind(
    current: &Sockets,
    wanted: impl IntoIterator<Item = BindKey>,
    workers: usize,
    leases: &mut Leases,
) -> Result<Sockets, (BindKey, io::Error)> {
    let mut sockets = Sockets::new();
    for key in wanted {
        let bound = match current.get(&key) {
            Some(bound) => Arc::clone(bound),
            None => match BoundAddress::bind(key.requested, workers, leases) {
                Ok(bound) => Arc::new(bound),
                Err(error) => return Err((key, error)),
            },
        };
        sockets.insert(key, bound);
    }
    Ok(sockets)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = open(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}
