//! The bytes between the control plane and a server: a socket, in clear or under TLS, and what is let through while
//! the server asks who we are.

use std::convert::Infallible;
use std::future::{Ready, poll_fn, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use openssl::ssl::SslRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_openssl::SslStream;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::stream::{Meter, Stream};
use super::tally::Tally;
use crate::conninfo::auth::Auth;
use crate::process::hold::hold;
use crate::socket::certificate::CertificateRequest;
use crate::tls::gatekeeper::{Gatekeeper, Security};
use crate::tls::handshake::Handshake;

/// A socket under TLS. It is worked on, and freed, where no fork can happen.
#[derive(Debug)]
pub(crate) struct Encrypted(Option<Box<SslStream<Stream>>>);

impl Encrypted {
    pub(crate) fn new(stream: SslStream<Stream>) -> Self {
        Self(Some(Box::new(stream)))
    }

    /// Does the handshake.
    pub(crate) async fn shake_hands(&mut self) -> Result<(), openssl::ssl::Error> {
        poll_fn(|cx| self.work(Poll::Pending, |stream| stream.poll_connect(cx))).await
    }

    /// The session, for a look.
    pub(crate) fn ssl(&self) -> Option<&SslRef> {
        self.0.as_ref().map(|stream| stream.ssl())
    }

    fn work<T>(&mut self, otherwise: T, what: impl FnOnce(Pin<&mut SslStream<Stream>>) -> T) -> T {
        let _hold = hold();
        match &mut self.0 {
            Some(stream) => what(Pin::new(&mut **stream)),
            None => otherwise,
        }
    }
}

impl Drop for Encrypted {
    fn drop(&mut self) {
        let _hold = hold();
        drop(self.0.take());
    }
}

/// How the bytes travel.
#[derive(Debug)]
pub(crate) enum Way {
    Clear(Stream),
    /// With what came of the handshake.
    Tls(Encrypted, Handshake),
}

/// How far a server has let us in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress(Arc<AtomicU8>);

const INSIDE: u8 = 1;
const REFUSED: u8 = 2;

impl Progress {
    /// Whether the server is content with who we are.
    pub(crate) fn is_inside(&self) -> bool {
        self.0.load(Ordering::Relaxed) & INSIDE != 0
    }

    /// Whether we would not answer the server.
    pub(crate) fn is_refused(&self) -> bool {
        self.0.load(Ordering::Relaxed) & REFUSED != 0
    }

    fn note(&self, what: u8) {
        self.0.fetch_or(what, Ordering::Relaxed);
    }
}

/// The stream that the driver works on.
#[derive(Debug)]
pub(crate) struct Wire {
    way: Way,
    /// Until the server is content.
    gatekeeper: Option<Gatekeeper>,
    progress: Progress,
    tally: Tally,
    meter: Arc<Meter>,
}

impl Wire {
    pub(crate) fn new(way: Way, auth: &Auth, progress: Progress, meter: Arc<Meter>) -> Self {
        let (security, request) = match &way {
            Way::Clear(_) => (Security::Clear, CertificateRequest::Absent),
            Way::Tls(_, met) if met.binding.is_some() => (Security::Bound, met.request),
            Way::Tls(_, met) => (Security::Unbound, met.request),
        };
        Self {
            way,
            gatekeeper: Some(Gatekeeper::new(auth.clone(), security, request)),
            progress,
            tally: Tally::default(),
            meter,
        }
    }

    fn look(&mut self, new: &[u8]) -> io::Result<()> {
        self.tally.look(new, &self.meter);
        let Some(gatekeeper) = &mut self.gatekeeper else {
            return Ok(());
        };
        let looked = gatekeeper.look(new);
        match looked {
            Ok(false) => {}
            Ok(true) => {
                self.progress.note(INSIDE);
                self.gatekeeper = None;
            }
            Err(_) => self.progress.note(REFUSED),
        }
        looked.map(|_| ())
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        let polled = match &mut this.way {
            Way::Clear(socket) => Pin::new(socket).poll_read(cx, into),
            Way::Tls(tls, _) => tls.work(Poll::Pending, |stream| stream.poll_read(cx, into)),
        };
        if matches!(polled, Poll::Ready(Ok(()))) {
            let looked = this.look(into.filled().get(before..).unwrap_or_default());
            if looked.is_err() {
                // The driver sees nothing of it.
                into.set_filled(before);
                return Poll::Ready(looked);
            }
        }
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().way {
            Way::Clear(socket) => Pin::new(socket).poll_write(cx, bytes),
            Way::Tls(tls, _) => tls.work(Poll::Pending, |stream| stream.poll_write(cx, bytes)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().way {
            Way::Clear(socket) => Pin::new(socket).poll_flush(cx),
            Way::Tls(tls, _) => tls.work(Poll::Pending, |stream| stream.poll_flush(cx)),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().way {
            Way::Clear(socket) => Pin::new(socket).poll_shutdown(cx),
            Way::Tls(tls, _) => tls.work(Poll::Pending, |stream| stream.poll_shutdown(cx)),
        }
    }
}

impl TlsStream for Wire {
    fn channel_binding(&self) -> ChannelBinding {
        let binding = match &self.way {
            Way::Tls(_, met) => met.binding.clone(),
            Way::Clear(_) => None,
        };
        binding.map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

/// For the driver, which is to take the stream as it is: whatever is to be encrypted is.
#[derive(Debug)]
pub(crate) struct AsItIs;

impl TlsConnect<Wire> for AsItIs {
    type Stream = Wire;
    type Error = Infallible;
    type Future = Ready<Result<Wire, Infallible>>;

    fn connect(self, stream: Wire) -> Self::Future {
        ready(Ok(stream))
    }
}
