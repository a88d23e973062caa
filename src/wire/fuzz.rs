//! Random messages, right ones and wrong ones, cut anywhere: against a session, and against logging in.
//!
//! `make soak` tries each a hundred thousand times.

use proptest::collection::vec;
use proptest::prelude::*;

use super::session::Event;
use super::startup::{Credentials, LoggedIn, LoginError, Startup};
use super::tests::{exchange, feed, message, session};
use crate::conninfo::auth::Auth;

/// What a session may keep beyond what has come.
const KEPT: usize = 64 << 10;

fn aside() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(message(b'N', b"SNOTICE\0Mhello\0\0")),
        Just(message(b'S', b"TimeZone\0UTC\0")),
        Just(message(b'A', b"\0\0\0\x07channel\0payload\0")),
    ]
}

/// A message that could be one of a server's, with a body that could be its own, or not.
fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop::sample::select(b"SNAEZDTCIGHRKcd123ntsvxp\0".to_vec());
    let body = prop_oneof![
        vec(any::<u8>(), 0..40),
        Just(Vec::new()),
        Just(b"I".to_vec()),
        Just(b"\0\x01\0\0\0\x01x".to_vec()),
        Just(b"SELECT 1\0".to_vec()),
        Just(b"SERROR\0VERROR\0C42601\0Mno\0\0".to_vec()),
        (0..13u32, vec(any::<u8>(), 0..30)).prop_map(|(code, rest)| [
            code.to_be_bytes().as_slice(),
            &rest
        ]
        .concat()),
    ];
    // A length of its own, or one that is a lie.
    let lie = prop_oneof![9 => Just(None), 1 => any::<u32>().prop_map(Some)];
    (kind, body, lie).prop_map(|(kind, body, lie)| {
        let mut said = message(kind, &body);
        if let Some(length) = lie {
            said[1..5].copy_from_slice(&length.to_be_bytes());
        }
        said
    })
}

fn log_in(bytes: &[u8], at_once: usize) -> Result<Option<LoggedIn>, LoginError> {
    let auth = Auth::default();
    let credentials = Credentials {
        user: "me",
        password: Some(b"secret"),
        auth: &auth,
    };
    let mut startup = Startup::new(credentials, &[("user", "me")], None);
    let mut answered = 0;
    for part in bytes.chunks(at_once) {
        answered += startup.outgoing().len();
        let space = startup.space();
        assert!(space.len() <= 2 * bytes.len() + KEPT);
        let part = &part[..part.len().min(space.len())];
        space[..part.len()].copy_from_slice(part);
        if let Some(logged_in) = startup.received(part.len())? {
            return Ok(Some(logged_in));
        }
    }
    // No question is answered with more than a few hundred bytes.
    assert!(answered <= 300 * (bytes.len() + 1));
    Ok(None)
}

proptest! {
    #[test]
    fn right_answers_are_told_whole_wherever_they_are_cut(
        requests in vec(0..100usize, 1..12),
        asides in vec((0..1000usize, aside()), 0..6),
        at_once in 1..60usize,
    ) {
        let mut session = session();
        for n in requests {
            let mut answer = exchange(&mut session, n);
            for (place, said) in &asides {
                // Behind the end they would be the next one's.
                answer.insert(place % answer.len(), said.clone());
            }
            let told = feed(&mut session, &answer.concat(), at_once).unwrap();
            let own = format!("{:?}", format!("value {n}").as_bytes());
            let rows: Vec<_> = told.iter().filter(|event| event.starts_with("row")).collect();
            prop_assert_eq!(rows.len(), usize::from(n % 5 < 3));
            prop_assert!(rows.iter().all(|row| row.contains(own.trim_matches(['[', ']']))));
            session.sent(usize::MAX / 2);
            prop_assert!(session.is_at_rest());
        }
        prop_assert!(session.space().len() <= KEPT);
    }

    #[test]
    fn messages_of_any_kind_end_a_session_or_are_its_answer(
        messages in vec(any_message(), 0..40),
        asks in 0..4usize,
        at_once in 1..60usize,
    ) {
        let mut session = session();
        for n in 0..asks {
            drop(exchange(&mut session, n));
        }
        let bytes = messages.concat();
        if feed(&mut session, &bytes, at_once).is_err() {
            prop_assert!(session.next().is_err());
            prop_assert!(!session.is_at_rest());
        }
        prop_assert!(session.space().len() <= 2 * bytes.len() + KEPT);
    }

    #[test]
    fn what_is_put_into_an_answer_gives_no_row_of_another(
        stray in vec(any_message(), 1..6),
        place in 0..1000usize,
        n in 0..5usize,
        at_once in 1..60usize,
    ) {
        let mut session = session();
        let mut answer = exchange(&mut session, n);
        let place = place % answer.len();
        answer.splice(place..place, stray);
        let mut rest: &[u8] = &answer.concat();
        let own = format!("value {n}");
        let mut rows = 0;
        while let (Ok(found), false) = (session.next(), rest.is_empty()) {
            match found {
                Some(Event::Row(row)) => {
                    rows += 1;
                    // One that is not its own is none that a caller gets: its request never ends well.
                    if !session.at(row).ends_with(own.as_bytes()) {
                        let left = feed(&mut session, rest, at_once);
                        let is_answer = left.is_ok_and(|told| told.contains(&"Ready".to_owned()));
                        prop_assert!(!is_answer);
                        return Ok(());
                    }
                }
                Some(_) => {}
                None => {
                    let space = session.space();
                    let count = at_once.min(rest.len()).min(space.len());
                    space[..count].copy_from_slice(&rest[..count]);
                    session.received(count);
                    rest = &rest[count..];
                }
            }
        }
        prop_assert!(rows <= 2);
    }

    #[test]
    fn any_messages_are_taken_while_logging_in(
        messages in vec(any_message(), 0..40),
        at_once in 1..60usize,
    ) {
        drop(log_in(&messages.concat(), at_once));
    }

    #[test]
    fn a_login_is_the_same_wherever_it_is_cut(
        settings in vec(("[a-z]{1,9}", "[ -~]{0,30}"), 0..20),
        key in any::<u64>(),
        at_once in 1..60usize,
    ) {
        let mut bytes = message(b'R', &[0; 4]);
        for (name, value) in &settings {
            bytes.extend(message(b'S', format!("{name}\0{value}\0").as_bytes()));
        }
        bytes.extend(message(b'K', &key.to_be_bytes()));
        bytes.extend(message(b'Z', b"I"));
        let found = log_in(&bytes, at_once);
        let Ok(Some(logged_in)) = found else {
            return Err(TestCaseError::fail(format!("{found:?}")));
        };
        prop_assert_eq!(logged_in.backend.map(|(pid, _)| u64::from(pid)), Some(key >> 32));
        prop_assert!(logged_in.parameters.len() <= settings.len());
        prop_assert!(settings.iter().all(|(name, _)| logged_in.parameters.contains_key(name)));
        prop_assert!(log_in(&bytes[..bytes.len() - 1], at_once).is_ok_and(|found| found.is_none()));
    }
}
