//! An error of ours inside one of the driver's.
//!
//! `deadpool-postgres` wants a `tokio_postgres::Error` of whoever connects, and nobody outside that crate can make one.
//! So the driver is given a stream that fails at its first write with what is to be said; its error carries that, and
//! the other end takes it out again.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Config, Error, NoTls};

use super::error::ControlError;

/// Fails at its first write.
struct Failing(Option<ControlError>);

impl AsyncWrite for Failing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        _bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let error = self.0.take().map_or_else(
            || io::Error::from(io::ErrorKind::BrokenPipe),
            io::Error::other,
        );
        Poll::Ready(Err(error))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Failing {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        _into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // An end of file: should the driver read first, it does not wait.
        Poll::Ready(Ok(()))
    }
}

/// Puts `error` into one of the driver's.
pub(super) async fn convey<T>(error: ControlError) -> Result<T, Error> {
    let mut config = Config::new();
    config.user("nobody").ssl_mode(SslMode::Disable);
    let failing = config.connect_raw(Failing(Some(error)), NoTls).await;
    match failing {
        Err(conveyed) => Err(conveyed),
        // Never: nothing can be written.
        Ok((client, connection)) => {
            drop((client, connection));
            std::future::pending().await
        }
    }
}

/// Takes it out again.
pub(super) fn taken_out(error: Error) -> ControlError {
    let shown = ControlError::connecting("the server", &error);
    error
        .into_source()
        .and_then(|source| source.downcast::<io::Error>().ok())
        .and_then(|io| io.into_inner())
        .and_then(|inner| inner.downcast::<ControlError>().ok())
        .map_or(shown, |ours| *ours)
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[tokio::test]
    async fn what_is_conveyed_comes_out_as_it_was() {
        let error = ControlError::Connect {
            place: "db:5432".into(),
            what: "Connection refused".into(),
            sqlstate: Some("57P03".into()),
            tls: false,
        };
        let shown = error.to_string();
        let conveyed = convey::<()>(error).await.unwrap_err();
        assert!(conveyed.source().is_some());
        let taken = taken_out(conveyed);
        assert_eq!(taken.to_string(), shown);
        assert_eq!(taken.sqlstate(), Some("57P03"));
    }
}
