//! COPY against what may come in its middle.

use std::collections::HashMap;

use super::{Due, Event, Misfit, Standing, WireSession};
use crate::wire::incoming::Incoming;

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn complete(rows: usize) -> Vec<u8> {
    message(b'C', format!("COPY {rows}\0").as_bytes())
}

fn refusal() -> Vec<u8> {
    message(b'E', b"SERROR\0VERROR\0C22P02\0Mno\0\0")
}

fn ready(standing: u8) -> Vec<u8> {
    message(b'Z', &[standing])
}

fn begun(kind: u8) -> Vec<u8> {
    let parsed = [message(b'1', b""), message(b'2', b"")].concat();
    [parsed, message(kind, &[0, 0, 2, 0, 0, 0, 0])].concat()
}

fn session() -> WireSession {
    let mut session = WireSession::new(Incoming::new(), HashMap::new());
    session.copy("copy t from stdin");
    session
}

fn feed(session: &mut WireSession, bytes: &[u8]) -> Result<Vec<Event>, Misfit> {
    let mut events = Vec::new();
    let mut rest = bytes;
    while let Some((one, after)) = next_message(rest) {
        while matches!(session.queue.front(), Some(Due::Marked(..))) {
            take(session, &message(b'3', b""), &mut events)?;
        }
        take(session, one, &mut events)?;
        rest = after;
    }
    Ok(events)
}

fn next_message(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_be_bytes(bytes.get(1..5)?.try_into().unwrap());
    bytes.split_at_checked(usize::try_from(length).unwrap() + 1)
}

fn take(session: &mut WireSession, one: &[u8], events: &mut Vec<Event>) -> Result<(), Misfit> {
    // One by one: a message may come in any pieces.
    for byte in one {
        session.space()[0] = *byte;
        session.received(1);
        while let Some(event) = session.next()? {
            events.push(event);
        }
    }
    Ok(())
}

/// The kinds of the messages that are to be sent, but for the marks.
fn kinds(session: &mut WireSession) -> String {
    let mut rest = session.pending();
    let mut kinds = String::new();
    while let Some((kind, after)) = rest.split_first() {
        let length = u32::from_be_bytes(after[..4].try_into().unwrap());
        rest = &after[usize::try_from(length).unwrap()..];
        if *kind != b'C' {
            kinds.push(char::from(*kind));
        }
    }
    session.sent(usize::MAX / 2);
    kinds
}

#[test]
fn a_copy_to_the_server_asks_for_its_end_once() {
    let mut session = session();
    assert_eq!(kinds(&mut session), "PBEH");
    feed(&mut session, &begun(b'G')).unwrap();
    let shape = session.copy_state().unwrap().shape;
    assert!(shape.is_in && !shape.is_binary && shape.columns == 2);
    session
        .copy_state()
        .unwrap()
        .unsent
        .extend_from_slice(b"1\t2\n");
    session.copy_data();
    session.copy_done();
    assert_eq!(kinds(&mut session), "dcS");
    let events = feed(&mut session, &[complete(1), ready(b'T')].concat()).unwrap();
    assert!(matches!(events[..], [Event::Complete { .. }, Event::Ready]));
    assert!(session.is_at_rest() && !session.is_copying());
    assert_eq!(session.standing(), Standing::Inside);
}

#[test]
fn an_error_has_its_end_asked_for_whenever_it_comes() {
    let mut at_once = session();
    assert_eq!(kinds(&mut at_once), "PBEH");
    feed(&mut at_once, &refusal()).unwrap();
    assert_eq!(kinds(&mut at_once), "S");
    feed(&mut at_once, &ready(b'I')).unwrap();
    assert!(at_once.is_at_rest());

    let mut in_the_middle = session();
    feed(&mut in_the_middle, &begun(b'G')).unwrap();
    in_the_middle.copy_state().unwrap().unsent.push(0);
    in_the_middle.copy_data();
    feed(&mut in_the_middle, &refusal()).unwrap();
    assert_eq!(kinds(&mut in_the_middle), "PBEHdS");
    feed(&mut in_the_middle, &ready(b'E')).unwrap();
    assert!(in_the_middle.is_at_rest());

    let mut behind_the_end = session();
    feed(&mut behind_the_end, &begun(b'G')).unwrap();
    behind_the_end.copy_done();
    feed(&mut behind_the_end, &refusal()).unwrap();
    assert_eq!(kinds(&mut behind_the_end), "PBEHcS");
    feed(&mut behind_the_end, &ready(b'E')).unwrap();
    assert!(behind_the_end.is_at_rest());
}

#[test]
fn an_end_that_nobody_has_asked_for_is_out_of_step() {
    // Before all was sent, after it was given up, in another direction, of no COPY.
    let mut early = session();
    feed(&mut early, &begun(b'G')).unwrap();
    assert!(feed(&mut early, &complete(0)).is_err());
    let mut given_up = session();
    feed(&mut given_up, &begun(b'G')).unwrap();
    given_up.copy_fail("no");
    assert!(feed(&mut given_up, &complete(0)).is_err());
    let mut open = session();
    feed(&mut open, &begun(b'H')).unwrap();
    assert!(feed(&mut open, &complete(0)).is_err());
    let mut backwards = session();
    feed(&mut backwards, &begun(b'G')).unwrap();
    assert!(feed(&mut backwards, &message(b'd', b"1\t2\n")).is_err());
    let mut twice = session();
    feed(&mut twice, &begun(b'H')).unwrap();
    assert!(feed(&mut twice, &message(b'H', &[0, 0, 0])).is_err());
    let mut ready_at_once = session();
    feed(&mut ready_at_once, &begun(b'G')).unwrap();
    assert!(feed(&mut ready_at_once, &ready(b'I')).is_err());
    let mut garbled = session();
    let short = message(b'G', &[0, 0, 2, 0, 0]);
    assert!(
        feed(
            &mut garbled,
            &[message(b'1', b""), message(b'2', b""), short].concat()
        )
        .is_err()
    );
}

#[test]
fn rows_from_the_server_are_counted() {
    let row = message(b'd', b"1\t2\n");
    for (sent, told, is_right) in [(2, 2, true), (3, 2, true), (1, 2, false), (4, 2, false)] {
        let mut session = session();
        feed(&mut session, &begun(b'H')).unwrap();
        assert!(kinds(&mut session).ends_with('S'));
        let events = feed(&mut session, &row.repeat(sent)).unwrap();
        assert_eq!(events.len(), sent);
        let end = [message(b'c', b""), complete(told), ready(b'I')].concat();
        assert_eq!(feed(&mut session, &end).is_ok(), is_right);
        assert_eq!(session.is_at_rest(), is_right);
    }
}

#[test]
fn a_copy_without_the_client_has_its_end_asked_for() {
    let mut session = session();
    let parsed = [message(b'1', b""), message(b'2', b"")].concat();
    feed(&mut session, &[parsed, complete(3)].concat()).unwrap();
    assert_eq!(kinds(&mut session), "PBEHS");
    feed(&mut session, &ready(b'I')).unwrap();
    assert!(session.is_at_rest());
}
