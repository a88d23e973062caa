//! Socket options: how soon the kernel notices a peer that is gone.
//!
//! Keep-alives end a wait for an answer that will never come, and are safe on any connection.
//! `TCP_USER_TIMEOUT` ends a send that nobody acknowledges; it also ends a connection whose healthy peer does
//! not read for that long (a COPY into a slow trigger), so it is set only while a short call is under way.
//!
//! Whoever opened the socket may have chosen values of their own: an option is changed only where it still has
//! the system's default.
//!
//! Source: tcp(7), socket(7).
#![allow(unsafe_code, reason = "socket options are raw system calls")]

use std::convert::Infallible;
use std::io;
use std::mem::size_of;
use std::os::fd::RawFd;
use std::time::Duration;

use libc::c_int;

use crate::process::per_process::PerProcess;

/// When and how often the kernel asks a silent peer for a sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Silence before the first question; whole seconds, at least one.
    pub idle: Duration,
    /// Between questions; whole seconds, at least one.
    pub interval: Duration,
    /// Questions without an answer after which the connection ends.
    pub count: u32,
}

/// What a socket is, as far as its options go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// A TCP connection, which has all of them.
    Tcp,
    /// A unix socket or something else: its peer cannot vanish without a trace.
    Other,
}

/// Says whether the socket behind `fd` is a TCP connection.
pub fn family(fd: RawFd) -> Family {
    let kind = get(fd, libc::SOL_SOCKET, libc::SO_TYPE);
    // The protocol's own option tells a TCP socket from any other stream.
    match (kind, get(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY)) {
        (Ok(libc::SOCK_STREAM), Ok(_)) => Family::Tcp,
        _ => Family::Other,
    }
}

/// Turns keep-alives on. `off_is_chosen`: whether a socket without them had them turned off on purpose (libpq
/// and pg8000 turn them on unless told otherwise); then it stays so.
///
/// # Errors
///
/// What the system says, when it refuses a value.
pub fn keep_alive(fd: RawFd, wanted: KeepAlive, off_is_chosen: bool) -> io::Result<()> {
    if get(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE)? == 0 {
        if off_is_chosen {
            return Ok(());
        }
        set(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    }
    let defaults = defaults();
    for (option, default, value) in [
        (KEEP_IDLE, defaults.idle, seconds(wanted.idle)),
        (
            libc::TCP_KEEPINTVL,
            defaults.interval,
            seconds(wanted.interval),
        ),
        (
            libc::TCP_KEEPCNT,
            defaults.count,
            c_int::try_from(wanted.count).unwrap_or(c_int::MAX),
        ),
    ] {
        if Some(get(fd, libc::IPPROTO_TCP, option)?) == default {
            set(fd, libc::IPPROTO_TCP, option, value)?;
        }
    }
    Ok(())
}

/// The keep-alives that are on: none where they are off, or the socket has none.
pub fn kept_alive(fd: RawFd) -> Option<KeepAlive> {
    if get(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE).ok()? == 0 {
        return None;
    }
    let ask = |option| u32::try_from(get(fd, libc::IPPROTO_TCP, option).ok()?).ok();
    Some(KeepAlive {
        idle: Duration::from_secs(ask(KEEP_IDLE)?.into()),
        interval: Duration::from_secs(ask(libc::TCP_KEEPINTVL)?.into()),
        count: ask(libc::TCP_KEEPCNT)?,
    })
}

/// Says whether somebody has set `TCP_USER_TIMEOUT` on the socket. False where the system has no such option.
#[cfg(target_os = "linux")]
pub fn has_user_timeout(fd: RawFd) -> bool {
    get(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT).is_ok_and(|value| value != 0)
}

/// Sets `TCP_USER_TIMEOUT`, or gives it back to the system with none. Does nothing on a closed socket.
#[cfg(target_os = "linux")]
pub fn user_timeout(fd: RawFd, timeout: Option<Duration>) {
    let milliseconds = timeout.map_or(0, |timeout| timeout.as_millis().max(1));
    let value = c_int::try_from(milliseconds).unwrap_or(c_int::MAX);
    // The watchdog bounds the call all the same.
    let _refused = set(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, value);
}

/// No such option here: the watchdog bounds the call alone.
#[cfg(not(target_os = "linux"))]
pub fn has_user_timeout(_fd: RawFd) -> bool {
    false
}

/// No such option here: the watchdog bounds the call alone.
#[cfg(not(target_os = "linux"))]
pub fn user_timeout(_fd: RawFd, _timeout: Option<Duration>) {}

/// Has a TCP socket forget what its peer has not acknowledged, when it is closed: otherwise the kernel goes on for
/// minutes trying to deliver it. The peer is told with a reset. Does nothing on a closed socket.
///
/// Source: socket(7), `SO_LINGER`.
pub fn forget_unsent(fd: RawFd) {
    let at_once = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // Without it the close is an ordinary one.
    let _refused = set(fd, libc::SOL_SOCKET, libc::SO_LINGER, at_once);
}

#[cfg(target_os = "linux")]
const KEEP_IDLE: c_int = libc::TCP_KEEPIDLE;
#[cfg(not(target_os = "linux"))]
const KEEP_IDLE: c_int = libc::TCP_KEEPALIVE;

fn seconds(length: Duration) -> c_int {
    c_int::try_from(length.as_secs().max(1)).unwrap_or(c_int::MAX)
}

/// The keep-alive options of a socket that nobody has touched.
#[derive(Clone, Copy, Debug, Default)]
struct Defaults {
    idle: Option<c_int>,
    interval: Option<c_int>,
    count: Option<c_int>,
}

/// Asked of a fresh socket, once in each process.
fn defaults() -> Defaults {
    static DEFAULTS: PerProcess<Defaults> = PerProcess::new();
    let made = DEFAULTS.get_or_make(|| {
        // SAFETY: plain integers; the descriptor is ours and closed below.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) };
        let ask = |option| get(fd, libc::IPPROTO_TCP, option).ok();
        let found = Defaults {
            idle: ask(KEEP_IDLE),
            interval: ask(libc::TCP_KEEPINTVL),
            count: ask(libc::TCP_KEEPCNT),
        };
        if fd >= 0 {
            // SAFETY: opened above, used nowhere else.
            unsafe { libc::close(fd) };
        }
        Ok::<_, Infallible>(found)
    });
    match made {
        Ok(defaults) => *defaults,
        Err(never) => match never {},
    }
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the size of an option fits any type"
)]
const fn length<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

fn get(fd: RawFd, level: c_int, option: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut length = length::<c_int>();
    // SAFETY: `value` is valid for writes of `length` bytes, which is its size.
    let status =
        unsafe { libc::getsockopt(fd, level, option, (&raw mut value).cast(), &raw mut length) };
    if status == 0 {
        Ok(value)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn set<T>(fd: RawFd, level: c_int, option: c_int, value: T) -> io::Result<()> {
    // SAFETY: `value` is valid for reads of its size.
    let status =
        unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), length::<T>()) };
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    const WANTED: KeepAlive = KeepAlive {
        idle: Duration::from_secs(5),
        interval: Duration::from_secs(2),
        count: 3,
    };

    fn tcp() -> (TcpStream, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (stream, listener)
    }

    fn tcp_option(stream: &TcpStream, option: c_int) -> c_int {
        get(stream.as_raw_fd(), libc::IPPROTO_TCP, option).unwrap()
    }

    fn is_on(stream: &TcpStream) -> bool {
        get(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_KEEPALIVE).unwrap() != 0
    }

    #[test]
    fn tcp_is_told_from_unix_sockets_and_closed_numbers() {
        let (stream, _listener) = tcp();
        assert_eq!(family(stream.as_raw_fd()), Family::Tcp);
        let (unix, _peer) = UnixStream::pair().unwrap();
        assert_eq!(family(unix.as_raw_fd()), Family::Other);
        assert_eq!(family(1_000_000), Family::Other);
    }

    #[test]
    fn an_untouched_socket_gets_all_three() {
        let (stream, _listener) = tcp();
        assert_eq!(kept_alive(stream.as_raw_fd()), None);
        keep_alive(stream.as_raw_fd(), WANTED, false).unwrap();
        assert!(is_on(&stream));
        assert_eq!(kept_alive(stream.as_raw_fd()), Some(WANTED));
        assert_eq!(tcp_option(&stream, KEEP_IDLE), 5);
        assert_eq!(tcp_option(&stream, libc::TCP_KEEPINTVL), 2);
        assert_eq!(tcp_option(&stream, libc::TCP_KEEPCNT), 3);
    }

    #[test]
    fn what_the_opener_chose_stays() {
        let (stream, _listener) = tcp();
        let fd = stream.as_raw_fd();
        set(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1).unwrap();
        set(fd, libc::IPPROTO_TCP, KEEP_IDLE, 77).unwrap();
        keep_alive(fd, WANTED, true).unwrap();
        assert_eq!(tcp_option(&stream, KEEP_IDLE), 77);
        assert_eq!(tcp_option(&stream, libc::TCP_KEEPINTVL), 2);
    }

    #[test]
    fn what_was_not_acknowledged_is_forgotten_at_the_close() {
        use std::io::{ErrorKind, Read, Write};
        for forgets in [false, true] {
            let (mut stream, listener) = tcp();
            let (mut peer, _) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            // More than the peer's kernel takes in: it reads nothing.
            while stream.write(&[0; 16_384]).is_ok() {}
            if forgets {
                forget_unsent(stream.as_raw_fd());
            }
            drop(stream);
            let read = peer.read_to_end(&mut Vec::new());
            let reset = read.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
            assert_eq!(reset, forgets);
        }
    }

    #[test]
    fn keep_alives_that_were_turned_off_stay_off() {
        let (stream, _listener) = tcp();
        keep_alive(stream.as_raw_fd(), WANTED, true).unwrap();
        assert!(!is_on(&stream));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_user_timeout_is_set_and_given_back() {
        let (stream, _listener) = tcp();
        let fd = stream.as_raw_fd();
        assert!(!has_user_timeout(fd));
        user_timeout(fd, Some(Duration::from_millis(1500)));
        assert_eq!(tcp_option(&stream, libc::TCP_USER_TIMEOUT), 1500);
        assert!(has_user_timeout(fd));
        user_timeout(fd, None);
        assert!(!has_user_timeout(fd));
    }
}
