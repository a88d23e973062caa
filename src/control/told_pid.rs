//! The process id that a session was told at its beginning, which a pooler makes up.
//!
//! The driver shows it in one place: in what it would send to cancel a statement. So that is sent into a pipe.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio_postgres::Client;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

const LENGTH_AND_CODE: usize = 8;

/// The process id that `client` was told; none when it was told none.
pub(super) async fn told_pid(client: &Client) -> Option<i32> {
    let (near, mut far) = duplex(64);
    let cancel = client.cancel_token();
    cancel.cancel_query_raw(near, AsItIs).await.ok()?;
    let mut request = [0; LENGTH_AND_CODE + 4];
    far.read_exact(&mut request).await.ok()?;
    let (_, pid) = request.split_last_chunk()?;
    Some(i32::from_be_bytes(*pid))
}

/// What the session itself travels over is of no account here.
struct AsItIs;

struct Pipe(DuplexStream);

impl TlsConnect<DuplexStream> for AsItIs {
    type Stream = Pipe;
    type Error = Infallible;
    type Future = Ready<Result<Pipe, Infallible>>;

    fn connect(self, stream: DuplexStream) -> Self::Future {
        ready(Ok(Pipe(stream)))
    }
}

impl TlsStream for Pipe {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
