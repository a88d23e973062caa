//! A connection of the control plane: a socket of our own that tasks wait for, and a measure of what has come.
//!
//! A server that lies could send without end; the driver would keep all of it until an answer is complete. So what
//! comes after the last question is counted, notices and all, and beyond a bound the connection is at its end.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::reactor::{Direction, Reactor};
use crate::socket::owned::OwnedSocket;

/// How much may come before a question is answered, unless its answer is known to be longer.
pub(crate) const ANSWER: usize = 1 << 20;
/// How often the driver may ask on for one statement. It asks for each type that it does not know, and for what that
/// is made of, one inside the other: a server that always names another would have it go on until the stack is full.
const QUESTIONS: usize = 128;

/// Counts what has come since the last question.
#[derive(Debug)]
pub(crate) struct Meter {
    come: AtomicUsize,
    bound: AtomicUsize,
    asked: AtomicUsize,
}

impl Meter {
    fn new() -> Self {
        Self {
            come: AtomicUsize::new(0),
            bound: AtomicUsize::new(ANSWER),
            asked: AtomicUsize::new(0),
        }
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
            meter: Arc::new(Meter::new()),
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
    fn what_comes_between_two_questions_is_bounded() {
        let meter = Meter::new();
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
        let meter = Meter::new();
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
