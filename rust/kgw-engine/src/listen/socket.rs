//! Listening sockets: one per worker and address, sharing the port.
//!
//! The engine binds and owns them; workers listen on duplicates. A socket therefore outlives any
//! reload that keeps its address; where one goes away, the worker takes what waits in its queue first.
//! Sockets that another process bound are used as they are, so that their queues outlive a process too.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Weak};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

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

    /// Whether a socket that was bound to `local` for `listener` is what is asked for.
    fn is_met_by(&self, local: SocketAddr, listener: Option<&str>) -> bool {
        match &self.listener {
            Some(own) => listener == Some(own) && local.ip() == self.requested.ip(),
            None => local == self.requested,
        }
    }
}

/// One address and what listens there: a socket per worker, or those that were inherited.
#[derive(Debug)]
pub(crate) struct BoundAddress {
    pub(crate) local: SocketAddr,
    /// Held by whoever listens on a duplicate.
    pub(crate) lease: Arc<()>,
    sockets: Vec<TcpListener>,
    workers: usize,
}

/// Listening sockets of another process, or of this one's parent, to be used where they are bound to
/// what is wanted. Each queue that connections wait in is one of them, so none is left out.
#[derive(Debug, Default)]
pub(crate) struct Inherited(Vec<(Option<String>, SocketAddr, TcpListener)>);

/// Ports on which the engine listens or, after a reload, still takes what waits.
#[derive(Debug, Default)]
pub(crate) struct Leases(Vec<(u16, Weak<()>)>);

impl Leases {
    fn holds(&mut self, port: u16) -> bool {
        self.0.retain(|(_, lease)| lease.strong_count() > 0);
        self.0.iter().any(|(held, _)| *held == port)
    }
}

impl Inherited {
    /// Adds a socket, and the listener that it was for if that is known.
    pub(crate) fn add(&mut self, listener: Option<String>, socket: TcpListener) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        self.0.push((listener, socket.local_addr()?, socket));
        Ok(())
    }

    /// Takes the sockets of one address that `key` asks for.
    fn take(&mut self, key: &BindKey) -> Vec<TcpListener> {
        let mut local = None;
        self.0
            .extract_if(.., |(listener, bound, _)| {
                // Port 0 is one port: that of the first socket.
                let met = key.is_met_by(*bound, listener.as_deref());
                met && *local.get_or_insert(*bound) == *bound
            })
            .map(|(_, _, socket)| socket)
            .collect()
    }
}

impl BoundAddress {
    fn take_or_bind(
        key: &BindKey,
        workers: usize,
        leases: &mut Leases,
        inherited: &mut Inherited,
    ) -> io::Result<Self> {
        let taken = inherited.take(key);
        match taken.first() {
            Some(first) => Self::of(first.local_addr()?, taken, workers, leases),
            None => Self::bind(key.requested, workers, leases),
        }
    }

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
        Self::of(local, sockets, workers, leases)
    }

    fn of(
        local: SocketAddr,
        sockets: Vec<TcpListener>,
        workers: usize,
        leases: &mut Leases,
    ) -> io::Result<Self> {
        // An answer is written whole; waiting for more of it would only delay it. Accepted sockets have
        // what theirs has, which spares a system call for each.
        for socket in &sockets {
            SockRef::from(socket).set_tcp_nodelay(true)?;
        }
        let lease = Arc::new(());
        leases.0.push((local.port(), Arc::downgrade(&lease)));
        Ok(Self {
            local,
            lease,
            sockets,
            workers,
        })
    }

    /// Duplicates of the sockets that are the worker's. Where there are more sockets than workers, a
    /// worker has several; where there are fewer, workers share one.
    pub(crate) fn sockets(&self, worker: usize) -> io::Result<Vec<TcpListener>> {
        let count = self.sockets.len();
        if worker < count {
            let own = self.sockets.iter().skip(worker).step_by(self.workers);
            own.map(TcpListener::try_clone).collect()
        } else {
            Ok(vec![self.sockets[worker % count].try_clone()?])
        }
    }

    /// Duplicates of all sockets.
    pub(crate) fn all_sockets(&self) -> io::Result<Vec<TcpListener>> {
        self.sockets.iter().map(TcpListener::try_clone).collect()
    }
}

/// Every bound address of an engine.
pub(crate) type Sockets = HashMap<BindKey, Arc<BoundAddress>>;

/// Binds what `wanted` names and neither `current` nor `inherited` has, and keeps the rest. An address
/// that cannot be bound fails the whole set, and nothing of `current` is changed.
pub(crate) fn rebind(
    current: &Sockets,
    wanted: impl IntoIterator<Item = BindKey>,
    workers: usize,
    leases: &mut Leases,
    inherited: &mut Inherited,
) -> Result<Sockets, (BindKey, io::Error)> {
    let mut sockets = Sockets::new();
    for key in wanted {
        let bound = match current.get(&key).or_else(|| sockets.get(&key)) {
            Some(bound) => Arc::clone(bound),
            None => match BoundAddress::take_or_bind(&key, workers, leases, inherited) {
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
