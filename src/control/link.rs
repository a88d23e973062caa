//! The link of a session: a task that moves its bytes, and what is known of it beside the driver's part.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, OnceLock};

use tokio::select;
use tokio::sync::Notify;

use super::error::chain;
use super::stream::Meter;
use crate::socket::options;
use crate::socket::owned::OwnedSocket;

/// One of them.
#[derive(Debug)]
pub(crate) struct Link {
    /// The path at which its server listens, where that is a unix socket.
    pub(crate) path: Option<PathBuf>,
    /// Cuts it off.
    pub(crate) cut: Arc<Notify>,
    /// Why it has ended, which the driver tells nobody who asks.
    pub(crate) ended: Arc<OnceLock<String>>,
    /// What may come.
    pub(crate) meter: Arc<Meter>,
}

/// Moves the bytes of a session in a task of its own, until it ends or is cut off by the first of what is
/// returned; the second says why it has ended.
pub(crate) fn drive<C>(
    connection: C,
    socket: Arc<OwnedSocket>,
) -> (Arc<Notify>, Arc<OnceLock<String>>)
where
    C: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
{
    let (cut, why) = (Arc::new(Notify::new()), Arc::new(OnceLock::new()));
    let (told, says) = (Arc::clone(&cut), Arc::clone(&why));
    tokio::spawn(async move {
        let mut connection = pin!(connection);
        select! {
            biased;
            () = told.notified() => {
                if let Some(fd) = socket.fd() {
                    options::forget_unsent(fd);
                }
            }
            // Whoever asks something next is told: the client knows that it is closed.
            ended = &mut connection => {
                if let Err(error) = ended {
                    // Once: here alone.
                    let _set = says.set(chain(&error));
                }
            }
        }
    });
    (cut, why)
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::net::TcpListener;

    use tokio::io::AsyncWriteExt;
    use tokio::sync::oneshot;

    use super::*;
    use crate::control::plane;
    use crate::control::stream::Stream;

    #[test]
    fn of_a_session_that_was_cut_off_nothing_more_arrives() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, told) = oneshot::channel();
        let work = async move {
            let reactor = plane::reactor().unwrap();
            let mut stream = Stream::connect(reactor, address).await.unwrap();
            let socket = Arc::clone(stream.socket());
            // More than the kernel takes in: the server reads nothing.
            let unsent = async move {
                let _unsent = stream.write_all(&vec![0; 1 << 25]).await;
                Ok(())
            };
            tell.send(drive(unsent, socket).0).unwrap();
        };
        plane::spawn(work, |_why| {}).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.read_exact(&mut [0]).unwrap();
        told.blocking_recv().unwrap().notify_one();
        plane::wake();
        let read = server.read_to_end(&mut Vec::new());
        assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}
