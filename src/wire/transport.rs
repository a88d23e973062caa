//! A socket of our own, in clear or under TLS, that waits in receiving alone, where it is asked to.

use std::fmt;
use std::io::{self, Read, Write};
use std::mem;
use std::os::fd::RawFd;
use std::sync::{Arc, Weak};

use openssl::ssl::{ErrorCode, Ssl, SslRef, SslStream};

use crate::process::generation;
use crate::process::hold::hold;
use crate::socket::owned::OwnedSocket;
use crate::socket::words::in_words;
use crate::tls::handshake;

/// The socket, for OpenSSL.
#[derive(Debug)]
struct Plain(Arc<OwnedSocket>);

impl Read for Plain {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.receive(into)
    }
}

impl Write for Plain {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The way to a server. Dropping it closes the socket; in a child of a fork it sends nothing, and touches nothing that
/// a lock may hold.
pub(crate) struct Transport {
    socket: Arc<OwnedSocket>,
    tls: Option<Box<SslStream<Plain>>>,
    generation: u64,
    is_patient: bool,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

/// What a step of a handshake has come to.
pub(crate) enum Shaken {
    Done,
    /// It goes on when something can be received, or sent.
    Waits {
        writing: bool,
    },
    /// The reason, and whether it was the network.
    Failed {
        what: String,
        is_cut: bool,
    },
}

impl Transport {
    pub(crate) fn new(socket: OwnedSocket) -> Self {
        Self {
            socket: Arc::new(socket),
            tls: None,
            generation: generation(),
            is_patient: false,
        }
    }

    /// Has [`Transport::wait_and_receive`] wait, where the bytes are in clear.
    pub(crate) fn be_patient(&mut self) {
        self.is_patient = self.tls.is_none() && self.socket.be_patient().is_ok();
    }

    /// Whether it does.
    pub(crate) fn is_patient(&self) -> bool {
        self.is_patient
    }

    /// Waits until something has come, for a little while, and receives it; right behind a call on this socket.
    ///
    /// # Errors
    ///
    /// `WouldBlock` or `Interrupted` when nothing has come; what the system says.
    pub(crate) fn wait_and_receive(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.socket.wait_and_receive(into)
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &OwnedSocket {
        &self.socket
    }

    /// The same, for whoever is to keep it open.
    pub(crate) fn shared(&self) -> Arc<OwnedSocket> {
        Arc::clone(&self.socket)
    }

    /// The same, for whoever is not to keep it open.
    pub(crate) fn weak(&self) -> Weak<OwnedSocket> {
        Arc::downgrade(&self.socket)
    }

    /// Its descriptor, as long as it is ours.
    pub(crate) fn fd(&self) -> io::Result<RawFd> {
        self.socket.fd().ok_or_else(|| {
            io::Error::other("its descriptor was closed by another part of this process")
        })
    }

    /// Whether the bytes go through TLS, which may hold some that have come.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether it is of this process, not of one that was forked.
    pub(crate) fn is_ours(&self) -> bool {
        self.generation == generation()
    }

    /// Puts TLS on the socket; the handshake comes next.
    ///
    /// # Errors
    ///
    /// What OpenSSL says.
    pub(crate) fn encrypt(
        &mut self,
        ssl: impl FnOnce() -> Result<Ssl, String>,
    ) -> Result<(), String> {
        let _hold = hold();
        let stream = SslStream::new(ssl()?, Plain(Arc::clone(&self.socket)));
        self.tls = Some(Box::new(stream.map_err(handshake::shown)?));
        Ok(())
    }

    /// Does a step of the handshake.
    pub(crate) fn shake_hands(&mut self) -> Shaken {
        let _hold = hold();
        let Some(stream) = &mut self.tls else {
            return Shaken::Done;
        };
        match stream.connect() {
            Ok(()) => Shaken::Done,
            Err(error) if error.code() == ErrorCode::WANT_READ => Shaken::Waits { writing: false },
            Err(error) if error.code() == ErrorCode::WANT_WRITE => Shaken::Waits { writing: true },
            Err(error) => match handshake::mistrust(stream.ssl()) {
                Some(why) => Shaken::Failed {
                    what: format!("its certificate is not trusted: {why}"),
                    is_cut: false,
                },
                None => Shaken::Failed {
                    what: in_words(&error.to_string()),
                    is_cut: error.io_error().is_some() || error.ssl_error().is_none(),
                },
            },
        }
    }

    /// Looks at the session of TLS, where there is one, while no fork can happen.
    pub(crate) fn with_ssl<T>(&self, look: impl FnOnce(&SslRef) -> T) -> Option<T> {
        let _hold = hold();
        self.tls.as_ref().map(|stream| look(stream.ssl()))
    }

    /// Receives what is there; none is an end of file.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when nothing is there; what the system or OpenSSL says.
    pub(crate) fn receive(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let received = match &mut self.tls {
                None => self.socket.receive(into),
                Some(stream) => {
                    let _hold = hold();
                    stream.read(into)
                }
            };
            match received {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => return received,
            }
        }
    }

    /// Sends as much as the system takes. `is_behind`: right behind another call on this socket.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when it takes nothing; what the system or OpenSSL says.
    pub(crate) fn send(&mut self, bytes: &[u8], is_behind: bool) -> io::Result<usize> {
        loop {
            let sent = match &mut self.tls {
                None if is_behind => self.socket.send_behind(bytes),
                None => self.socket.send(bytes),
                Some(stream) => {
                    let _hold = hold();
                    stream.write(bytes)
                }
            };
            match sent {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => return sent,
            }
        }
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        let tls = self.tls.take();
        if self.is_ours() {
            let _hold = hold();
            drop(tls);
        } else {
            // A thread of the parent may have been inside of OpenSSL.
            mem::forget(tls);
        }
    }
}
