//! A connection of the control plane: a socket of our own that tasks wait for, and a measure of what has come.
//!
//! A server that lies could send without end; the driver would keep all of it until an answer is complete. So what
//! comes after the last question is counted, notices and all, and beyond a bound the connection is at its end. What a
//! session leaves behind in the driver for as long as it lives is counted as well: one that is worn is replaced.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::reactor::{Direction, Reactor};
use crate::socket::owned::OwnedSocket;

/// How much may come before a question is answered, unless its answer is known to be longer.
pub(crate) const ANSWER: usize = 1 << 20;
/// How often the driver may ask on for one statement. It asks for each type that it does not know, and for what that
/// is made of, one inside the other: a server that always names another would have it go on until the stack is full.
const QUESTIONS: usize = 128;

/// A session that has taken so many bytes, in all, is replaced when it rests; a lease takes some hundred at each renewal.
const WORN: usize = 16 << 20;
/// The same, of parameters that its server has reported: a usual one reports some hundred bytes.
const WORN_BY_PARAMETERS: usize = 256 << 10;

/// Counts what has come since the last question, and since the beginning.
#[derive(Debug)]
pub(crate) struct Meter {
    come: AtomicUsize,
    bound: AtomicUsize,
    asked: AtomicUsize,
    in_all: AtomicUsize,
    kept: AtomicUsize,
    notices: AtomicU64,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            come: AtomicUsize::new(0),
            bound: AtomicUsize::new(ANSWER),
            asked: AtomicUsize::new(0),
            in_all: AtomicUsize::new(0),
            kept: AtomicUsize::new(0),
            notices: AtomicU64::new(0),
        }
    }
}

impl Meter {
    /// Counts a notice.
    pub(crate) fn notice(&self) {
        self.notices.fetch_add(1, Ordering::Relaxed);
    }

    /// The notices since the last call.
    pub(crate) fn take_notices(&self) -> u64 {
        self.notices.swap(0, Ordering::Relaxed)
    }

    /// Counts bytes of a parameter, which the driver keeps.
    pub(crate) fn keep(&self, bytes: usize) {
        let kept = self.kept().saturating_add(bytes);
        self.kept.store(kept, Ordering::Relaxed);
    }

    /// Bytes of parameters.
    pub(crate) fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    /// Whether the session has taken so much that another is to be opened in its place.
    pub(crate) fn is_worn(&self) -> bool {
        self.in_all.load(Ordering::Relaxed) > WORN || self.kept() > WORN_BY_PARAMETERS
    }

    /// Lets so many bytes come before a question is answered.
    pub(crate) fn allow(&self, bytes: usize) {
        self.bound.store(bytes, Ordering::Relaxed);
    }

    /// Begins with a statement of our own.
    pub(crate) fn begin(&self) {
        self.asked.store(0, Ordering::Relaxed);
    }

    fn ask(&self) -> io::Result<()> {
        if self.come.swap(0, Ordering::Relaxed) == 0 {
            return Ok(()); // more of the same question
        }
        if self.asked.fetch_add(1, Ordering::Relaxed) < QUESTIONS {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "one answer of the server has led to {QUESTIONS} questions about its types, and no more are asked"
        )))
    }

    fn count(&self, bytes: usize) -> io::Result<()> {
        self.in_all.fetch_add(bytes, Ordering::Relaxed);
        let come = self.come.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let bound = self.bound.load(Ordering::Relaxed);
        if come <= bound {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "the server has sent {come} bytes without completing its answer, and {bound} are taken"
        )))
    }
}

/// One of them. Dropping it closes the socket, unless its number is somebody else's by now.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: Arc<OwnedSocket>,
    number: u64,
    reactor: Arc<Reactor>,
    meter: Arc<Meter>,
}

impl Stream {
    /// Takes a connected socket.
    pub(crate) fn new(reactor: Arc<Reactor>, socket: OwnedSocket) -> Self {
        Self {
            socket: Arc::new(socket),
            number: reactor.number(),
            reactor,
            meter: Arc::default(),
        }
    }

    /// Connects to an address.
    pub(crate) async fn connect(reactor: Arc<Reactor>, address: SocketAddr) -> io::Result<Self> {
        Self::new(reactor, OwnedSocket::connect(address)?)
            .established()
            .await
    }

    /// Connects to a unix socket; one whose name begins with `@` has no file.
    pub(crate) async fn connect_unix(reactor: Arc<Reactor>, path: &str) -> io::Result<Self> {
        Self::new(reactor, OwnedSocket::connect_unix(path)?)
            .established()
            .await
    }

    async fn established(self) -> io::Result<Self> {
        poll_fn(|cx| match self.socket.connected() {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => self.wait(Direction::Writing, cx),
            Err(error) => Poll::Ready(Err(error)),
        })
        .await?;
        Ok(self)
    }

    /// Waits until something can be received.
    pub(crate) async fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_receive(cx, into)).await
    }

    /// The socket, which is closed with the last that has it.
    pub(crate) fn socket(&self) -> &Arc<OwnedSocket> {
        &self.socket
    }

    pub(crate) fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }

    fn wait<T>(&self, direction: Direction, cx: &Context<'_>) -> Poll<io::Result<T>> {
        self.reactor
            .wait(self.number, &self.socket, direction, cx.waker());
        Poll::Pending
    }

    fn poll_receive(&self, cx: &Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.socket.receive(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.wait(Direction::Reading, cx);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => return Poll::Ready(received),
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.reactor.forget(self.number);
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let received = ready!(self.poll_receive(cx, into.initialize_unfilled()))?;
        self.meter.count(received)?;
        into.advance(received);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.meter.ask()?;
        loop {
            match self.socket.send(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.wait(Direction::Writing, cx);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.end_sending())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_worn_by_what_it_takes_and_by_what_is_kept_of_it() {
        let meter = Meter::default();
        meter.allow(usize::MAX);
        meter.count(WORN).unwrap();
        meter.keep(WORN_BY_PARAMETERS);
        assert!(!meter.is_worn());
        meter.ask().unwrap(); // a new question makes it no younger
        meter.count(1).unwrap();
        assert!(meter.is_worn());
        let meter = Meter::default();
        meter.keep(WORN_BY_PARAMETERS);
        meter.keep(1);
        assert!(meter.is_worn());
    }

    #[test]
    fn what_comes_between_two_questions_is_bounded() {
        let meter = Meter::default();
        assert!(meter.count(ANSWER).is_ok());
        assert!(meter.count(1).is_err());
        meter.ask().unwrap();
        assert!(meter.count(ANSWER).is_ok());
        meter.allow(ANSWER * 2);
        assert!(meter.count(ANSWER).is_ok());
        assert!(meter.count(1).is_err());
    }
    #[test]
    fn questions_for_one_statement_are_bounded() {
        let meter = Meter::default();
        for _ in 0..QUESTIONS {
            meter.count(1).unwrap();
            meter.ask().unwrap();
            meter.ask().unwrap(); // nothing has come since: the same one
        }
        meter.count(1).unwrap();
        assert!(meter.ask().is_err());
        meter.begin();
        meter.count(1).unwrap();
        assert!(meter.ask().is_ok());
    }
}
