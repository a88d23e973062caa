//! The probe: is a connection that nobody uses still at rest?
//!
//! One `recv` that peeks and does not wait. A session at rest has sent nothing, or only what a server may send
//! unasked. Everything else tells that the connection must not be handed on: an end of file, the last words of a
//! terminated backend, or an answer to a question that somebody else asked.
//!
//! Source: `PostgreSQL` documentation, "Message Formats" and "Asynchronous Operations".
#![allow(unsafe_code, reason = "peeking is a raw system call")]

use std::io;
use std::os::fd::RawFd;

/// What a peek at an idle connection says.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// Nothing to read, or only what a server sends unasked.
    AtRest,
    /// The connection has ended, or the server has said that it will.
    Dead,
    /// There is an answer that nobody waits for.
    Desynchronised,
    /// A message has only begun to arrive, or it cannot be read here.
    Unknown,
}

/// As much as one peek looks at. A message that goes on beyond it leaves the verdict open.
const WINDOW: usize = 2048;

/// As much as a second peek looks at, when the first was filled by messages that a server sends unasked:
/// many notifications, or a long one.
const WIDE: usize = 1 << 18;

/// Peeks at the socket behind `fd`, which is read by nobody else meanwhile.
pub fn probe(fd: RawFd) -> ProbeResult {
    // Nearly always there is nothing, and one byte is enough to see that.
    if let (verdict, 0) = peek(fd, &mut [0]) {
        return verdict;
    }
    match peek(fd, &mut [0; WINDOW]) {
        (ProbeResult::Unknown, WINDOW) => peek(fd, &mut vec![0; WIDE]).0,
        (verdict, _) => verdict,
    }
}

/// The verdict on what there is to read, as far as it fits into `window`, and how much that was.
fn peek(fd: RawFd, window: &mut [u8]) -> (ProbeResult, usize) {
    // SAFETY: `window` is valid for writes of its length; recv takes any integer as descriptor.
    let received = unsafe {
        libc::recv(
            fd,
            window.as_mut_ptr().cast(),
            window.len(),
            libc::MSG_PEEK | libc::MSG_DONTWAIT,
        )
    };
    match usize::try_from(received) {
        Ok(0) => (ProbeResult::Dead, 0),
        Ok(length) => (classify(window.get(..length).unwrap_or_default()), length),
        Err(_) => match io::Error::last_os_error().kind() {
            io::ErrorKind::WouldBlock => (ProbeResult::AtRest, 0),
            io::ErrorKind::Interrupted => (ProbeResult::Unknown, 0),
            _ => (ProbeResult::Dead, 0),
        },
    }
}

/// Says what unread bytes mean, from the first byte of a message on.
pub fn classify(mut bytes: &[u8]) -> ProbeResult {
    loop {
        let Some((&kind, rest)) = bytes.split_first() else {
            return ProbeResult::AtRest;
        };
        match kind {
            b'A' | b'N' | b'S' => {}
            b'E' => return ProbeResult::Dead,
            // TLS records: handshake, alert, application data. What is inside cannot be told.
            0x14..=0x17 => return ProbeResult::Unknown,
            _ => return ProbeResult::Desynchronised,
        }
        let Some((length, _)) = rest.split_first_chunk::<4>() else {
            return ProbeResult::Unknown;
        };
        // The length counts itself.
        let Ok(length) = usize::try_from(u32::from_be_bytes(*length)) else {
            return ProbeResult::Desynchronised;
        };
        if !(4..=MOST_UNASKED).contains(&length) {
            return ProbeResult::Desynchronised;
        }
        let Some(after) = rest.get(length..) else {
            return ProbeResult::Unknown;
        };
        bytes = after;
    }
}

/// No unasked message is longer: a notification's payload is below 8,000 bytes, a notice is a text.
const MOST_UNASKED: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn what_a_server_sends_unasked_is_rest() {
        let unasked = [
            message(b'A', b"\0\0\0\x07channel\0payload\0"),
            message(b'S', b"TimeZone\0UTC\0"),
            message(b'N', b"SWARNING\0\0"),
        ];
        assert_eq!(classify(&unasked.concat()), ProbeResult::AtRest);
        assert_eq!(classify(b""), ProbeResult::AtRest);
    }

    #[test]
    fn last_words_are_death_even_behind_a_notice() {
        let bytes = [message(b'N', b"\0"), message(b'E', b"C57P01\0\0")].concat();
        assert_eq!(classify(&bytes), ProbeResult::Dead);
        assert_eq!(classify(b"E"), ProbeResult::Dead);
    }

    #[test]
    fn an_answer_is_desynchronisation() {
        for kind in [
            b'Z', b'T', b'D', b'C', b'1', b'2', b'3', b'I', b'R', b'K', 0, 255,
        ] {
            assert_eq!(
                classify(&message(kind, b"I")),
                ProbeResult::Desynchronised,
                "{kind}"
            );
        }
        assert_eq!(classify(&[b'S', 0, 0, 0, 3]), ProbeResult::Desynchronised);
        assert_eq!(
            classify(&[b'S', 0xff, 0, 0, 0]),
            ProbeResult::Desynchronised
        );
    }

    #[test]
    fn what_has_not_arrived_or_is_encrypted_is_unknown() {
        let whole = message(b'S', b"TimeZone\0UTC\0");
        for length in 1..whole.len() {
            assert_eq!(classify(&whole[..length]), ProbeResult::Unknown, "{length}");
        }
        assert_eq!(classify(&[0x17, 3, 3, 0, 30]), ProbeResult::Unknown);
    }

    proptest! {
        #[test]
        fn any_bytes_get_a_verdict(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            let _verdict = classify(&bytes);
        }

        #[test]
        fn whole_unasked_messages_in_any_order_are_rest(
            bodies in prop::collection::vec(
                (prop::sample::select(vec![b'A', b'N', b'S']),
                 prop::collection::vec(any::<u8>(), 0..64)),
                0..16,
            )
        ) {
            let bytes: Vec<u8> =
                bodies.iter().flat_map(|(kind, body)| message(*kind, body)).collect();
            prop_assert_eq!(classify(&bytes), ProbeResult::AtRest);
        }
    }

    /// A message that a server may send unasked.
    fn unasked() -> impl Strategy<Value = Vec<u8>> {
        (
            prop::sample::select(vec![b'A', b'N', b'S']),
            prop::collection::vec(any::<u8>(), 0..64),
        )
            .prop_map(|(kind, body)| message(kind, &body))
    }

    /// A whole message that is an answer to something, or no message of the protocol.
    fn answer() -> impl Strategy<Value = Vec<u8>> {
        (any::<u8>(), prop::collection::vec(any::<u8>(), 0..64))
            .prop_filter(
                "one that may come unasked, or looks like TLS",
                |(kind, _)| !matches!(kind, b'A' | b'N' | b'S' | 0x14..=0x17),
            )
            .prop_map(|(kind, body)| message(kind, &body))
    }

    proptest! {
        #[test]
        fn unasked_messages_cut_anywhere_are_rest_or_unknown(
            messages in prop::collection::vec(unasked(), 0..8), cut: prop::sample::Index,
        ) {
            let bytes = messages.concat();
            let cut = cut.index(bytes.len() + 1);
            let mut end = 0;
            let whole = cut == 0 || messages.iter().any(|one| { end += one.len(); end == cut });
            let wanted = if whole { ProbeResult::AtRest } else { ProbeResult::Unknown };
            prop_assert_eq!(classify(&bytes[..cut]), wanted);
        }

        #[test]
        fn an_answer_is_never_rest_wherever_it_stands_and_whatever_follows(
            before in prop::collection::vec(unasked(), 0..4),
            answer in answer(),
            after in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let wanted = if answer[0] == b'E' { ProbeResult::Dead } else { ProbeResult::Desynchronised };
            let bytes = [before.concat(), answer, after].concat();
            prop_assert_eq!(classify(&bytes), wanted);
        }

        #[test]
        fn no_more_bytes_make_rest_of_what_was_none(
            bytes in prop::collection::vec(any::<u8>(), 0..512), cut: prop::sample::Index,
        ) {
            let begun = classify(&bytes[..cut.index(bytes.len() + 1)]);
            if matches!(begun, ProbeResult::Dead | ProbeResult::Desynchronised) {
                prop_assert_eq!(classify(&bytes), begun);
            }
        }

        #[test]
        fn an_unasked_message_of_an_impossible_length_is_desynchronised(
            kind in prop::sample::select(vec![b'A', b'N', b'S']),
            length in prop_oneof![0u32..4, (1u32 << 20) + 1..=u32::MAX],
            body in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let bytes = [&[kind], &length.to_be_bytes()[..], &body].concat();
            prop_assert_eq!(classify(&bytes), ProbeResult::Desynchronised);
        }
    }

    fn tcp_pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (here, listener.accept().unwrap().0)
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "a test reads the clock where it likes"
    )]
    fn becomes(fd: RawFd, wanted: ProbeResult) -> bool {
        let patience = Instant::now() + Duration::from_secs(10);
        while probe(fd) != wanted {
            if Instant::now() > patience {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }

    #[test]
    fn sockets_of_both_kinds_tell_rest_answers_and_ends() {
        let (mut here, mut peer) = tcp_pair();
        assert_eq!(probe(here.as_raw_fd()), ProbeResult::AtRest);
        peer.write_all(&message(b'Z', b"I")).unwrap();
        assert!(becomes(here.as_raw_fd(), ProbeResult::Desynchronised));
        // A peek takes nothing away.
        here.read_exact(&mut [0; 6]).unwrap();
        assert_eq!(probe(here.as_raw_fd()), ProbeResult::AtRest);
        drop(peer);
        assert!(becomes(here.as_raw_fd(), ProbeResult::Dead));

        let (here, peer) = UnixStream::pair().unwrap();
        assert_eq!(probe(here.as_raw_fd()), ProbeResult::AtRest);
        drop(peer);
        assert_eq!(probe(here.as_raw_fd()), ProbeResult::Dead);
    }

    #[test]
    fn notifications_beyond_the_first_look_are_rest_too() {
        let (here, mut peer) = UnixStream::pair().unwrap();
        for _ in 0..4 {
            peer.write_all(&message(b'A', &[b'x'; 7999])).unwrap();
        }
        assert_eq!(probe(here.as_raw_fd()), ProbeResult::AtRest);
        peer.write_all(&message(b'Z', b"I")).unwrap();
        assert_eq!(probe(here.as_raw_fd()), ProbeResult::Desynchronised);
    }

    #[test]
    fn a_closed_number_is_dead() {
        assert_eq!(probe(1_000_000), ProbeResult::Dead);
    }
}
