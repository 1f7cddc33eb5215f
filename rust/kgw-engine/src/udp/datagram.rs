//! Single datagrams of a listening socket, with the address of this host that they were sent to.
//!
//! A socket that is bound to all addresses must answer from the one that was asked: clients take
//! answers from no other. The kernel says which that was, and is told, in a control message
//! (ip(7) `IP_PKTINFO`, RFC 3542 6.2).

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use tokio::net::UdpSocket;

/// A datagram that was received.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Received {
    /// Bytes of it, at the start of the buffer.
    pub(super) len: usize,
    /// Who sent it.
    pub(super) from: SocketAddr,
    /// The address of this host to answer from, if the kernel said it.
    pub(super) to: Option<IpAddr>,
}

/// Makes the kernel say to which address each datagram was sent, where that is not the one that the
/// socket is bound to.
pub(crate) fn ask_for_destinations(socket: &impl AsFd, bound: SocketAddr) -> io::Result<()> {
    match bound.ip() {
        ip if !ip.is_unspecified() => {}
        IpAddr::V4(_) => setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?,
        IpAddr::V6(_) => setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?,
    }
    Ok(())
}

/// Room for the control message of [`receive`].
pub(super) fn control() -> Vec<u8> {
    nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo)
}

/// Takes the next datagram. Does not block.
pub(super) fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
    control: &mut [u8],
) -> io::Result<Received> {
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(control), flags)?;
    let from = message.address.as_ref().and_then(socket_address);
    let to = message.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            let address = Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes());
            Some(IpAddr::V4(address))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)))
        }
        _ => None,
    });
    Ok(Received {
        len: message.bytes,
        from: from.ok_or(io::ErrorKind::InvalidData)?,
        to,
    })
}

/// Sends a datagram to `to`, from the address `from` of this host if one is given. Does not block: one
/// that would have to wait is not sent.
pub(super) fn send(
    socket: &UdpSocket,
    data: &[u8],
    from: Option<IpAddr>,
    to: SocketAddr,
) -> io::Result<()> {
    let parts = [IoSlice::new(data)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let to = SockaddrStorage::from(to);
    let socket = socket.as_raw_fd();
    match from {
        None => sendmsg(socket, &parts, &[], flags, Some(&to))?,
        Some(IpAddr::V4(from)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(from.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            let control = [ControlMessage::Ipv4PacketInfo(&info)];
            sendmsg(socket, &parts, &control, flags, Some(&to))?
        }
        Some(IpAddr::V6(from)) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: from.octets(),
                },
                ipi6_ifindex: 0,
            };
            let control = [ControlMessage::Ipv6PacketInfo(&info)];
            sendmsg(socket, &parts, &control, flags, Some(&to))?
        }
    };
    Ok(())
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address
        .as_sockaddr_in()
        .map(|v4| SocketAddr::V4(SocketAddrV4::from(*v4)));
    v4.or_else(|| {
        let v6 = address.as_sockaddr_in6();
        v6.map(|v6| SocketAddr::V6(SocketAddrV6::from(*v6)))
    })
}
