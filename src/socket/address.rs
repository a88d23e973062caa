//! Where a connected socket stands: what its peer can tell it by.
#![allow(
    unsafe_code,
    reason = "a descriptor of the driver's is looked at, not owned"
)]

use std::mem::ManuallyDrop;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use super::options::{Family, family};

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketAddress {
    /// The address and port of this end, which nobody else has while the connection is open.
    Tcp(SocketAddr),
    /// The path at which the peer listens.
    Unix(PathBuf),
}

/// Says where the socket behind `fd` stands; none when it is not connected, or to nothing that has a name.
pub fn of(fd: RawFd) -> Option<SocketAddress> {
    if fd < 0 {
        return None;
    }
    if family(fd) == Family::Tcp {
        // SAFETY: not -1, and never dropped, so the descriptor stays its owner's; one that is no socket only fails.
        let stream = ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(fd) });
        let mut local = stream.local_addr().ok()?;
        // An IPv4 address in IPv6's clothes is what the peer calls an IPv4 address.
        local.set_ip(local.ip().to_canonical());
        return Some(SocketAddress::Tcp(local));
    }
    // SAFETY: as above.
    let stream = ManuallyDrop::new(unsafe { UnixStream::from_raw_fd(fd) });
    let peer = stream.peer_addr().ok()?;
    Some(SocketAddress::Unix(peer.as_pathname()?.to_path_buf()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_tcp_connection_is_known_by_its_own_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_accepted, seen) = listener.accept().unwrap();
        assert_eq!(of(stream.as_raw_fd()), Some(SocketAddress::Tcp(seen)));
        // It is still its owner's.
        assert!(stream.local_addr().is_ok());
    }

    #[test]
    fn a_unix_connection_is_known_by_its_peers_path() {
        let path = std::env::temp_dir().join(format!("poolproof-{}.sock", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let stream = UnixStream::connect(&path).unwrap();
        assert_eq!(
            of(stream.as_raw_fd()),
            Some(SocketAddress::Unix(path.clone()))
        );
        drop(listener);
        std::fs::remove_file(path).unwrap();
        let (nameless, _peer) = UnixStream::pair().unwrap();
        assert_eq!(of(nameless.as_raw_fd()), None);
        assert_eq!(of(1_000_000), None);
        assert_eq!(of(-1), None);
    }
}
