//! A socket of our own that waits where it is asked to alone, and is never touched once its number is somebody else's.
//!
//! A daemoniser closes every descriptor of its process, and what the application opens next gets our numbers. So each
//! call compares device and inode first. A socket that has gone is an error to whoever works with it, and nothing is
//! sent, received or closed under its number any more.

#![allow(
    unsafe_code,
    reason = "recv is a raw system call, and a test closes descriptors as a daemoniser does"
)]

use std::fmt;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::address::{self, SocketAddress};
use crate::process::Registration;

/// One of them. A fork severs it in the child, as every registered socket.
pub struct OwnedSocket {
    /// There, until it is dropped.
    socket: Option<Socket>,
    registration: Registration,
}

impl fmt::Debug for OwnedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedSocket")
            .field("registration", &self.registration)
            .finish_non_exhaustive()
    }
}

#[cfg(target_os = "linux")]
const NO_SIGNAL: i32 = libc::MSG_NOSIGNAL;
#[cfg(not(target_os = "linux"))]
const NO_SIGNAL: i32 = 0;

/// How long [`OwnedSocket::wait_and_receive`] waits.
pub const PATIENCE: Duration = Duration::from_millis(50);

impl OwnedSocket {
    /// Takes a connected socket over.
    ///
    /// # Errors
    ///
    /// What the system says; then it is closed.
    pub fn new(socket: impl Into<OwnedFd>) -> io::Result<Self> {
        Self::from(Socket::from(socket.into()))
    }

    fn from(socket: Socket) -> io::Result<Self> {
        let registration = Registration::new(socket.as_raw_fd()).map_err(io::Error::other)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: Some(socket),
            registration,
        })
    }

    /// The same socket under a number of its own.
    ///
    /// # Errors
    ///
    /// The system has no descriptors to give, or the descriptor has gone.
    pub fn duplicate(&self) -> io::Result<Self> {
        Self::from(self.ours()?.try_clone()?)
    }

    /// Two that are connected with each other.
    ///
    /// # Errors
    ///
    /// The system has no descriptors to give.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = UnixStream::pair()?;
        Ok((Self::new(one)?, Self::new(other)?))
    }

    /// Begins to connect. It can be written to when that is done; [`OwnedSocket::connected`] says how it went.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        let socket = Self::from(socket)?;
        socket.ours()?.set_tcp_nodelay(true)?;
        socket.begin(&address.into())
    }

    /// Connects to a unix socket; one whose name begins with `@` has no file.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn connect_unix(path: &str) -> io::Result<Self> {
        let address = match path.strip_prefix('@') {
            Some(name) => SockAddr::unix(format!("\0{name}"))?,
            None => SockAddr::unix(path)?,
        };
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        Self::from(socket)?.begin(&address)
    }

    fn begin(self, address: &SockAddr) -> io::Result<Self> {
        match self.ours()?.connect(address) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _begun => Ok(self),
        }
    }

    /// Whether connecting has come to its end.
    ///
    /// # Errors
    ///
    /// It failed, or the descriptor has gone.
    pub fn connected(&self) -> io::Result<bool> {
        let socket = self.ours()?;
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        match socket.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Receives what is there; none is an end of file.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when nothing is there; what the system says; that the descriptor has gone.
    pub fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        receive(self.ours()?, into, libc::MSG_DONTWAIT)
    }

    /// Has [`OwnedSocket::wait_and_receive`] wait. Every other call says for itself that it does not.
    ///
    /// # Errors
    ///
    /// What the system says; that the descriptor has gone.
    pub fn be_patient(&self) -> io::Result<()> {
        let socket = self.ours()?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_nonblocking(false)
    }

    /// Waits until something has come, for [`PATIENCE`] at most, and receives it: one call of the system in place of
    /// two. Right behind a call on this socket, and so not compared again; what is received while it waits is this
    /// socket's, whatever becomes of its number meanwhile.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when nothing has come, `Interrupted` when a signal has; what the system says.
    pub fn wait_and_receive(&self, into: &mut [u8]) -> io::Result<usize> {
        receive(self.socket.as_ref().ok_or_else(gone)?, into, 0)
    }

    /// Sends as much as the system takes.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when it takes nothing; what the system says; that the descriptor has gone.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        send(self.ours()?, bytes)
    }

    /// The same right behind another call on this socket, which has compared: it is not compared again.
    ///
    /// # Errors
    ///
    /// As before.
    pub fn send_behind(&self, bytes: &[u8]) -> io::Result<usize> {
        send(self.socket.as_ref().ok_or_else(gone)?, bytes)
    }

    /// Says to the peer that nothing more will come.
    ///
    /// # Errors
    ///
    /// What the system says; that the descriptor has gone.
    pub fn end_sending(&self) -> io::Result<()> {
        self.ours()?.shutdown(std::net::Shutdown::Write)
    }

    /// Ends it for both directions: whoever waits for it wakes up, and finds its end.
    pub fn shut(&self) {
        if let Ok(socket) = self.ours() {
            // One that has ended already is no error.
            drop(socket.shutdown(std::net::Shutdown::Both));
        }
    }

    /// The descriptor, as long as it is this socket.
    pub fn fd(&self) -> Option<RawFd> {
        self.registration
            .fd()
            .filter(|_| self.registration.is_intact())
    }

    /// The path at which its peer listens, where that is a unix socket.
    pub fn peer_path(&self) -> Option<PathBuf> {
        match address::of(self.fd()?)? {
            SocketAddress::Unix(path) => Some(path),
            SocketAddress::Tcp(_) => None,
        }
    }

    /// The user as whom its peer listens, where that is a unix socket.
    ///
    /// # Errors
    ///
    /// What the system says; that the descriptor has gone.
    #[cfg(not(loom))]
    pub fn peer_user(&self) -> io::Result<u32> {
        let socket = self.ours()?;
        #[cfg(target_os = "linux")]
        let user =
            nix::sys::socket::getsockopt(socket, nix::sys::socket::sockopt::PeerCredentials)?.uid();
        #[cfg(not(target_os = "linux"))]
        let user = nix::unistd::getpeereid(socket)?.0.as_raw();
        Ok(user)
    }

    fn ours(&self) -> io::Result<&Socket> {
        self.fd().and(self.socket.as_ref()).ok_or_else(gone)
    }
}

fn gone() -> io::Error {
    io::Error::other(
        "its descriptor was closed by another part of this process (a daemoniser closes all)",
    )
}

fn send(socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    socket.send_with_flags(bytes, NO_SIGNAL | libc::MSG_DONTWAIT)
}

fn receive(socket: &Socket, into: &mut [u8], flags: i32) -> io::Result<usize> {
    // SAFETY: `into` is valid for writes of its length while recv runs.
    let count = unsafe {
        libc::recv(
            socket.as_raw_fd(),
            into.as_mut_ptr().cast(),
            into.len(),
            flags,
        )
    };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

impl Drop for OwnedSocket {
    fn drop(&mut self) {
        let is_ours = self.fd().is_some();
        // Before the number is free: whoever gets it next is not to be severed in a child.
        self.registration.end();
        let socket = self.socket.take();
        if !is_ours {
            mem::forget(socket);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;
    use crate::process::in_child;

    #[test]
    fn what_is_under_its_number_by_now_is_left_alone() {
        // In a process of its own: other tests would get the number.
        assert!(in_child(|| {
            let (here, there) = OwnedSocket::pair().unwrap();
            let fd = here.fd().unwrap();
            // SAFETY: as a daemoniser does; what is opened next gets the number.
            unsafe { libc::close(fd) };
            let file = File::open("/dev/zero").unwrap();
            let why = here.send(b"x").unwrap_err().to_string();
            let is_left = file.as_raw_fd() == fd
                && why.contains("closed by another part")
                && here.receive(&mut [0]).is_err()
                && here.fd().is_none();
            drop(here);
            is_left && file.metadata().is_ok() && there.receive(&mut [0]).unwrap() == 0
        }));
    }

    #[test]
    fn one_that_is_patient_waits_where_it_is_asked_to_and_nowhere_else() {
        let (here, there) = OwnedSocket::pair().unwrap();
        let kind = |received: io::Result<usize>| received.map_err(|error| error.kind());
        let none = Err(io::ErrorKind::WouldBlock);
        let mut into = [0; 8];
        // One that is not patient never waits.
        assert_eq!(kind(here.wait_and_receive(&mut into)), none);
        here.be_patient().unwrap();
        assert_eq!(kind(here.receive(&mut into)), none);
        let full = vec![0; 1 << 20];
        while here.send_behind(&full).is_ok() {}
        assert_eq!(kind(here.send(&full)), none);
        assert_eq!(kind(here.wait_and_receive(&mut into)), none);
        let waiter = std::thread::spawn(move || here.wait_and_receive(&mut [0; 8]).unwrap());
        there.send(b"abc").unwrap();
        assert_eq!(waiter.join().unwrap(), 3);
    }

    #[test]
    fn one_that_another_has_severed_is_closed_at_its_end() {
        // In a process of its own: other tests would get the number.
        assert!(in_child(|| {
            let (here, there) = OwnedSocket::pair().unwrap();
            let fd = here.fd().unwrap();
            let other = Registration::new(fd).unwrap();
            let is_severed = other.sever() && here.receive(&mut [0]).unwrap() == 0;
            drop(here);
            let file = File::open("/dev/zero").unwrap();
            is_severed && file.as_raw_fd() == fd && there.receive(&mut [0]).unwrap() == 0
        }));
    }

    #[test]
    fn it_connects_without_blocking_and_ends_with_its_object() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = OwnedSocket::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        assert!(socket.connected().unwrap());
        let nothing = socket.receive(&mut [0]).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        drop(socket);
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    }
}
