//! Listening sockets: one per worker and address, sharing the port.
//!
//! The engine binds and owns them; workers listen on duplicates. A socket therefore outlives any
//! reload that keeps its address; where one goes away, the worker takes what waits in its queue first.
//! Sockets that another process bound are used as they are, so that their queues outlive a process too.
//!
//! TCP and UDP have ports of their own: one number can be bound for both.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use socket2::{Domain, Protocol, Socket, Type};

use crate::udp::datagram;

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
pub(crate) const BACKLOG: i32 = 4096;

/// What a listening socket is given.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Transport {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Transport {
    /// The transport of a socket that somebody else made.
    fn of(socket: &Socket) -> io::Result<Self> {
        match socket.r#type()? {
            Type::STREAM => Ok(Self::Tcp),
            Type::DGRAM => Ok(Self::Udp),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

/// What identifies a socket across reloads: the address, and for port 0 also who asked for it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct BindKey {
    listener: Option<String>,
    pub(crate) transport: Transport,
    pub(crate) requested: SocketAddr,
}

impl BindKey {
    pub(crate) fn new(listener: &str, transport: Transport, requested: SocketAddr) -> Self {
        let listener = (requested.port() == 0).then(|| listener.to_owned());
        Self {
            listener,
            transport,
            requested,
        }
    }

    /// Whether a socket that was bound to `local` for `listener` is what is asked for.
    fn is_met_by(&self, transport: Transport, local: SocketAddr, listener: Option<&str>) -> bool {
        if transport != self.transport {
            return false;
        }
        match &self.listener {
            Some(own) => listener == Some(own) && local.ip() == self.requested.ip(),
            None => local == self.requested,
        }
    }
}

/// One address and what listens there: a socket per worker, or those that were inherited.
#[derive(Debug)]
pub(crate) struct BoundAddress {
    transport: Transport,
    pub(crate) local: SocketAddr,
    /// Held by whoever listens on a duplicate.
    pub(crate) lease: Arc<()>,
    sockets: Vec<Socket>,
    workers: usize,
}

/// Listening sockets of another process, or of this one's parent, to be used where they are bound to
/// what is wanted. Each queue that connections wait in is one of them, so none is left out.
#[derive(Debug, Default)]
pub(crate) struct Inherited(Vec<InheritedSocket>);

#[derive(Debug)]
struct InheritedSocket {
    listener: Option<String>,
    transport: Transport,
    local: SocketAddr,
    socket: Socket,
}

/// Ports on which the engine listens or, after a reload, still takes what waits.
#[derive(Debug, Default)]
pub(crate) struct Leases(Vec<((Transport, u16), Weak<()>)>);

impl Leases {
    fn holds(&mut self, transport: Transport, port: u16) -> bool {
        self.0.retain(|(_, lease)| lease.strong_count() > 0);
        self.0.iter().any(|(held, _)| *held == (transport, port))
    }
}

impl Inherited {
    /// Adds a socket, and the listener that it was for if that is known.
    pub(crate) fn add(&mut self, listener: Option<String>, socket: OwnedFd) -> io::Result<()> {
        let socket = Socket::from(socket);
        socket.set_nonblocking(true)?;
        self.0.push(InheritedSocket {
            listener,
            transport: Transport::of(&socket)?,
            local: local_address(&socket)?,
            socket,
        });
        Ok(())
    }

    /// Takes the sockets of one address that `key` asks for.
    fn take(&mut self, key: &BindKey) -> Vec<Socket> {
        let mut local = None;
        self.0
            .extract_if(.., |one| {
                // Port 0 is one port: that of the first socket.
                let met = key.is_met_by(one.transport, one.local, one.listener.as_deref());
                met && *local.get_or_insert(one.local) == one.local
            })
            .map(|one| one.socket)
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
            Some(first) => Self::of(key.transport, local_address(first)?, taken, workers, leases),
            None => Self::bind(key.transport, key.requested, workers, leases),
        }
    }

    fn bind(
        transport: Transport,
        requested: SocketAddr,
        workers: usize,
        leases: &mut Leases,
    ) -> io::Result<Self> {
        if requested.port() != 0 && !leases.holds(transport, requested.port()) {
            // A port shared by workers could be shared with a stranger as well, who would take half
            // of the connections. A socket that does not share finds out whether someone is there.
            open(transport, requested)?.bind(&requested.into())?;
        }
        let first = bind(transport, requested)?;
        let local = local_address(&first)?;
        let mut sockets = vec![first];
        for _ in 1..workers {
            sockets.push(bind(transport, local)?);
        }
        Self::of(transport, local, sockets, workers, leases)
    }

    fn of(
        transport: Transport,
        local: SocketAddr,
        sockets: Vec<Socket>,
        workers: usize,
        leases: &mut Leases,
    ) -> io::Result<Self> {
        for socket in &sockets {
            match transport {
                // An answer is written whole; waiting for more of it would only delay it. Accepted
                // sockets have what theirs has, which spares a system call for each.
                Transport::Tcp => socket.set_tcp_nodelay(true)?,
                // Only they say to which address a datagram was sent.
                Transport::Udp => datagram::ask_for_destinations(socket, local)?,
            }
        }
        let lease = Arc::new(());
        leases
            .0
            .push(((transport, local.port()), Arc::downgrade(&lease)));
        Ok(Self {
            transport,
            local,
            lease,
            sockets,
            workers,
        })
    }

    /// Duplicates of the sockets that are the worker's. Where there are more sockets than workers, a
    /// worker has several. Where there are fewer, workers share one that is for connections; datagrams
    /// of one client must all reach the same worker, so that the others have none.
    pub(crate) fn sockets(&self, worker: usize) -> io::Result<Vec<Socket>> {
        let count = self.sockets.len();
        if worker < count {
            let own = self.sockets.iter().skip(worker).step_by(self.workers);
            own.map(Socket::try_clone).collect()
        } else if self.transport == Transport::Tcp {
            Ok(vec![self.sockets[worker % count].try_clone()?])
        } else {
            Ok(Vec::new())
        }
    }

    /// Duplicates of all sockets.
    pub(crate) fn all_sockets(&self) -> io::Result<Vec<OwnedFd>> {
        let duplicates = self.sockets.iter().map(Socket::try_clone);
        duplicates.map(|socket| socket.map(OwnedFd::from)).collect()
    }

    /// The address, if it is one that datagrams are sent to.
    pub(crate) fn datagrams(&self) -> Option<SocketAddr> {
        (self.transport == Transport::Udp).then_some(self.local)
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

fn bind(transport: Transport, address: SocketAddr) -> io::Result<Socket> {
    let socket = open(transport, address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    if transport == Transport::Tcp {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

fn open(transport: Transport, address: SocketAddr) -> io::Result<Socket> {
    let (kind, protocol) = match transport {
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if transport == Transport::Tcp {
        // For connections that are over and linger. Among UDP sockets it would let anybody take over
        // the address of another.
        socket.set_reuse_address(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn local_address(socket: &Socket) -> io::Result<SocketAddr> {
    let address = socket.local_addr()?.as_socket();
    address.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}
