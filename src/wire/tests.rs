//! The session against every way in which bytes can come, and against answers that are not its own.
//!
//! Long, because it is one idea: what may follow what, and what happens to what may not.

use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::incoming::Incoming;
use super::outgoing::ParameterList;
use super::session::{Event, Misfit, Standing, WireSession};
use super::statement_text::StatementText;
use super::statements::Plan;
use super::verb::Tags;

pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn columns(names: &[&str]) -> Vec<u8> {
    let mut body = u16::try_from(names.len()).unwrap().to_be_bytes().to_vec();
    for name in names {
        body.extend_from_slice(name.as_bytes());
        body.push(0);
        body.extend_from_slice(&[0; 6]);
        body.extend_from_slice(&25u32.to_be_bytes());
        body.extend_from_slice(&[255, 255, 255, 255, 255, 255, 0, 0]);
    }
    message(b'T', &body)
}

fn row(values: &[&str]) -> Vec<u8> {
    let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
    for value in values {
        body.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
        body.extend_from_slice(value.as_bytes());
    }
    message(b'D', &body)
}

fn complete(tag: &str) -> Vec<u8> {
    message(b'C', &[tag.as_bytes(), &[0]].concat())
}

fn error(severity: &str, code: &str) -> Vec<u8> {
    let body = format!("S{severity}\0V{severity}\0C{code}\0Mno\0\0");
    message(b'E', body.as_bytes())
}

fn ready(standing: u8) -> Vec<u8> {
    message(b'Z', &[standing])
}

pub(super) fn session() -> WireSession {
    WireSession::new(Incoming::new(), HashMap::new())
}

pub(super) fn feed(
    session: &mut WireSession,
    mut bytes: &[u8],
    at_once: usize,
) -> Result<Vec<String>, Misfit> {
    let mut events = Vec::new();
    loop {
        loop {
            // Whatever comes: what is no row of a result is left to the other.
            while let Some(row) = session.next_row()? {
                events.push(format!("row {:?}", session.at(row)));
            }
            let Some(event) = session.next()? else {
                break;
            };
            events.push(match event {
                Event::Row(row) => format!("row {:?}", session.at(row)),
                event => format!("{event:?}"),
            });
        }
        if bytes.is_empty() {
            return Ok(events);
        }
        let space = session.space();
        let count = at_once.min(bytes.len()).min(space.len());
        space[..count].copy_from_slice(&bytes[..count]);
        session.received(count);
        bytes = &bytes[count..];
    }
}

fn asked(sql: &str) -> WireSession {
    let mut session = session();
    session.query(sql, Tags::of(sql));
    let marked = session.pending().iter().take_while(|kind| **kind != b'Q');
    let marks = marked.filter(|kind| **kind == b'C').count();
    feed(&mut session, &message(b'3', b"").repeat(marks), 100).unwrap();
    session
}

fn ask_extended(session: &mut WireSession, sql: &str) {
    session.statement(sql, &ParameterList::default(), Tags::of(sql));
    session.sync();
}

/// What a server answers to the messages of a client, where each statement has one of these results.
fn served(asked: &[u8], results: &[Vec<Vec<u8>>], standing: u8) -> Vec<Vec<u8>> {
    let mut results = results.iter();
    let mut result = Vec::new();
    let mut answer = Vec::new();
    let mut is_skipping = false;
    let mut rest = asked;
    while let [kind, a, b, c, d, after @ ..] = rest {
        rest = &after[usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap() - 4..];
        match kind {
            b'S' => {
                is_skipping = false;
                answer.push(ready(standing));
            }
            _ if is_skipping => {}
            b'C' => answer.push(message(b'3', b"")),
            b'P' => answer.push(message(b'1', b"")),
            b'B' => {
                result.clone_from(results.next().unwrap());
                answer.push(message(b'2', b""));
            }
            b'D' => answer.push(result.remove(0)),
            b'E' => {
                is_skipping = result.iter().any(|one| one[0] == b'E');
                answer.append(&mut result);
            }
            b'Q' => {
                let all = results.next().unwrap().iter();
                answer.extend(all.filter(|one| one[0] != b'n').cloned());
                answer.push(ready(standing));
            }
            other => panic!("{other}"),
        }
    }
    answer
}

/// Question number `n` and its answer, message by message; the value tells whose it is.
pub(super) fn exchange(session: &mut WireSession, n: usize) -> Vec<Vec<u8>> {
    let value = format!("value {n}");
    let select = vec![columns(&["v"]), row(&[&value]), complete("SELECT 1")];
    let none = message(b'n', b"");
    let before = session.pending().len();
    let (results, standing) = match n % 5 {
        0 => {
            session.query("select v", Tags::of("select v"));
            (vec![select], b'I')
        }
        1 => {
            ask_extended(session, "SELECT $1");
            (vec![select], b'I')
        }
        2 => {
            session.statement("BEGIN", &ParameterList::default(), Tags::of("BEGIN"));
            ask_extended(session, "select 1");
            (vec![vec![none, complete("BEGIN")], select], b'T')
        }
        3 => {
            session.query("COMMIT", Tags::of("COMMIT"));
            (vec![vec![none, complete("COMMIT")]], b'I')
        }
        _ => {
            ask_extended(session, "update t set v = 1");
            (vec![vec![none, error("ERROR", "23505")]], b'I')
        }
    };
    served(&session.pending()[before..], &results, standing)
}

#[test]
fn answers_are_told_whole_however_their_bytes_come() {
    let mut whole = None;
    for at_once in [1, 2, 3, 5, 7, 64, 100_000] {
        let mut session = session();
        let mut told = Vec::new();
        for n in 0..20 {
            let bytes = exchange(&mut session, n).concat();
            told.push(feed(&mut session, &bytes, at_once).unwrap());
            session.sent(usize::MAX / 2);
            assert!(session.is_at_rest());
        }
        let first = whole.get_or_insert_with(|| told.clone());
        assert_eq!(*first, told, "{at_once}");
    }
}

#[test]
fn what_comes_unasked_ends_it_at_once_and_for_good() {
    for stray in [
        row(&["x"]),
        columns(&["x"]),
        complete("SELECT 1"),
        ready(b'I'),
        error("ERROR", "42601"),
        message(b'1', b""),
        message(b'R', &[0; 4]),
        message(b'x', b""),
    ] {
        let mut session = session();
        assert!(feed(&mut session, &stray, 100).is_err());
        let bytes = exchange(&mut session, 0).concat();
        assert!(feed(&mut session, &bytes, 100).is_err());
        assert!(!session.is_at_rest());
    }
}

#[test]
fn notices_settings_and_notifications_may_come_at_any_time() {
    let aside = [
        message(b'N', b"SNOTICE\0Mhello\0\0"),
        message(b'S', b"TimeZone\0UTC\0"),
        message(b'A', b"\0\0\0\x07channel\0payload\0"),
    ]
    .concat();
    let mut session = session();
    let mut count = 0;
    for n in 0..5 {
        let answer = exchange(&mut session, n);
        count += answer.len();
        for one in answer {
            feed(&mut session, &[aside.clone(), one].concat(), 9).unwrap();
        }
    }
    assert_eq!(session.parameter("TimeZone"), Some("UTC"));
    assert_eq!(session.take_notices().len(), count);
    let heard = session.take_notifications();
    assert_eq!(heard.len(), count);
    assert_eq!(heard[0].payload, "payload");
    assert_eq!(heard[0].pid, 7);
}

#[test]
fn notices_without_end_take_no_more_memory() {
    let mut session = asked("select 1");
    let notice = message(b'N', b"SNOTICE\0Mhello\0\0");
    for _ in 0..10_000 {
        feed(&mut session, &notice, 100).unwrap();
    }
    assert_eq!(session.take_notices().len(), 100);
}

#[test]
fn the_tag_must_be_the_statements() {
    for (sql, tag, is_right) in [
        ("select 1", "SELECT 0", true),
        ("select 1", "INSERT 0 1", false),
        ("/* a */ -- b\n (select 1)", "SELECT 0", true),
        ("insert into t values (1)", "INSERT 0 1", true),
        ("insert into t values (1)", "UPDATE 1", false),
        ("COMMIT", "COMMIT", true),
        ("COMMIT", "ROLLBACK", true),
        ("COMMIT", "BEGIN", false),
        ("ROLLBACK", "COMMIT", false),
        ("BEGIN", "COMMIT", false),
        ("start transaction", "START TRANSACTION", true),
        ("prepare transaction 'x'", "PREPARE TRANSACTION", true),
        ("prepare transaction 'x'", "ROLLBACK", true),
        ("with x as (select 1) insert into t", "INSERT 0 1", true),
        ("create table t ()", "CREATE TABLE", true),
    ] {
        let answered = feed(&mut asked(sql), &complete(tag), 100);
        assert_eq!(answered.is_ok(), is_right, "{sql} {tag}");
    }
}

#[test]
fn one_statement_has_one_result() {
    let result = [columns(&["a"]), row(&["1"]), complete("SELECT 1")].concat();
    for (sql, is_right) in [
        ("select 1", false),
        ("select 1;", false),
        ("select 1; x", true),
    ] {
        for first in [complete("SELECT 1"), message(b'I', b""), result.clone()] {
            let bytes = [first, result.clone(), ready(b'I')].concat();
            let answered = feed(&mut asked(sql), &bytes, 100);
            assert_eq!(answered.is_ok(), is_right, "{sql}");
        }
    }
}

#[test]
fn a_commit_that_was_a_rollback_is_told() {
    let told = feed(&mut asked("commit"), &complete("ROLLBACK"), 100).unwrap();
    assert!(told[0].contains("is_refused: true"), "{told:?}");
}

#[test]
fn rows_that_a_change_returns_are_as_many_as_it_says() {
    let (begun, one) = (columns(&["a"]), row(&["1"]));
    for (sql, tag) in [
        ("insert into t", "INSERT 0 1"),
        ("update t", "UPDATE 1"),
        ("delete from t", "DELETE 1"),
        ("merge into t", "MERGE 1"),
    ] {
        for (rows, is_right) in [(0, false), (1, true), (2, false)] {
            let bytes = [begun.clone(), one.repeat(rows), complete(tag)].concat();
            let answered = feed(&mut asked(sql), &bytes, 100);
            assert_eq!(answered.is_ok(), is_right, "{tag} {rows}");
        }
        assert!(feed(&mut asked(sql), &complete(tag), 100).is_ok());
    }
}

#[test]
fn rows_must_have_the_columns_of_their_result_and_their_number() {
    let begun = columns(&["a", "b"]);
    let cut = message(b'D', &[0, 2, 0, 0, 0, 9, 65]);
    for (rows, tag, is_right) in [
        (row(&["1", "2"]), "SELECT 1", true),
        (row(&["1"]), "SELECT 1", false),
        (row(&["1", "2", "3"]), "SELECT 1", false),
        (cut, "SELECT 1", false),
        (row(&["1", "2"]), "SELECT 2", false),
        (Vec::new(), "SELECT 1", false),
    ] {
        let bytes = [begun.clone(), rows, complete(tag), ready(b'I')].concat();
        let answered = feed(&mut asked("select 1"), &bytes, 100);
        assert_eq!(answered.is_ok(), is_right, "{tag}");
    }
}

#[test]
fn what_never_has_a_result_has_no_columns() {
    for (sql, tag, is_right) in [
        ("explain select 1", "EXPLAIN", true),
        ("commit", "COMMIT", false),
        ("rollback", "ROLLBACK", false),
        ("do $$begin end$$", "DO", false),
    ] {
        let bytes = [columns(&["a"]), complete(tag), ready(b'I')].concat();
        assert_eq!(
            feed(&mut asked(sql), &bytes, 100).is_ok(),
            is_right,
            "{tag}"
        );
        let bytes = [complete(tag), ready(b'I')].concat();
        assert!(feed(&mut asked(sql), &bytes, 100).is_ok(), "{tag}");
    }
}

#[test]
fn an_error_ends_all_that_was_under_one_sync() {
    let mut session = session();
    session.statement("BEGIN", &ParameterList::default(), Tags::of("BEGIN"));
    ask_extended(&mut session, "select 1");
    let begun = vec![message(b'n', b""), error("ERROR", "25001")];
    let answer = served(session.pending(), &[begun], b'I').concat();
    let told = feed(&mut session, &answer, 100).unwrap();
    assert_eq!(told.len(), 2);
    session.sent(usize::MAX / 2);
    assert!(session.is_at_rest());
    // Behind an error there is no transaction that goes on.
    let mut session = asked("select 1");
    let bytes = [error("ERROR", "42601"), ready(b'T')].concat();
    assert!(feed(&mut session, &bytes, 100).is_err());
}

fn selected(value: &str) -> Vec<Vec<u8>> {
    vec![columns(&["v"]), row(&[value]), complete("SELECT 1")]
}

/// Asks for a value, and returns the answer with it.
fn select(session: &mut WireSession, value: &str) -> Vec<Vec<u8>> {
    let before = session.pending().len();
    ask_extended(session, "select $1");
    served(&session.pending()[before..], &[selected(value)], b'I')
}

#[test]
fn the_answer_to_an_earlier_request_of_the_same_form_is_none_of_this_one() {
    for between in 0..25 {
        let mut session = session();
        let old = select(&mut session, "old").concat();
        feed(&mut session, &old, 100).unwrap();
        for _ in 0..between {
            let answer = select(&mut session, "new").concat();
            feed(&mut session, &answer, 100).unwrap();
        }
        let own = select(&mut session, "own").concat();
        let told = feed(&mut session, &old, 100);
        // One that is further away has the same marks.
        assert_eq!(told.is_err(), between < 24, "{between}");
        assert!(feed(&mut session, &own, 100).is_err());
    }
}

#[test]
fn what_has_no_marks_is_no_answer_wherever_it_comes() {
    let head = vec![message(b'1', b""), message(b'2', b"")];
    let plain = [head, selected("old"), vec![ready(b'I')]].concat();
    for place in 0..40 {
        for left in 0..plain.len() {
            let mut session = session();
            let own = select(&mut session, "own");
            // Behind all but the end the end alone is right.
            if place + 1 < own.len() {
                let bytes = [own[..place].concat(), plain[left..].concat()].concat();
                let told = feed(&mut session, &bytes, 100);
                assert!(told.is_err(), "{place} {left}");
            }
        }
    }
}

#[test]
fn a_refusal_that_lay_on_the_way_is_none_of_this_request() {
    for ask in [
        |session: &mut WireSession| ask_extended(session, "select 1"),
        |session: &mut WireSession| session.query("select 1", Tags::of("select 1")),
        |session: &mut WireSession| session.sync(),
    ] {
        for (severity, is_right) in [("ERROR", false), ("FATAL", true)] {
            let mut session = session();
            ask(&mut session);
            let space = session.space();
            let said = error(severity, "57P01");
            space[..said.len()].copy_from_slice(&said);
            session.received(said.len());
            assert_eq!(session.next().is_ok(), is_right, "{severity}");
        }
    }
}

#[test]
fn a_copy_from_the_client_is_refused_and_one_to_it_left_out() {
    let mut session = asked("select f(); copy t from stdin");
    let sent = session.pending().len();
    feed(&mut session, &message(b'G', &[0, 0, 0]), 100).unwrap();
    assert!(session.pending().len() > sent);
    let end = [error("ERROR", "57014"), ready(b'I')].concat();
    assert!(feed(&mut session, &end, 100).is_ok());
    let mut session = asked("copy t to stdout");
    let bytes = [
        message(b'H', &[0, 0, 0]),
        message(b'd', b"data"),
        message(b'd', b"data"),
        message(b'c', b""),
        complete("COPY 2"),
        ready(b'I'),
    ];
    assert!(feed(&mut session, &bytes.concat(), 3).is_ok());
    assert_eq!(session.standing(), Standing::Idle);
}

#[test]
fn lengths_have_bounds() {
    for bytes in [
        &b"D\xff\xff\xff\xff"[..],
        b"D\x00\x00\x00\x03",
        b"T\x7f\xff\xff\xff",
        b"E\x10\x00\x00\x00",
    ] {
        assert!(feed(&mut asked("select 1"), bytes, 100).is_err());
    }
}

#[derive(Clone, Debug)]
enum Harm {
    Drop(usize),
    Double(usize),
    Swap(usize),
    Cut(usize),
    Stray(usize, u8),
}

fn harm() -> impl Strategy<Value = Harm> {
    let at = 0..120usize;
    prop_oneof![
        at.clone().prop_map(Harm::Drop),
        at.clone().prop_map(Harm::Double),
        at.clone().prop_map(Harm::Swap),
        at.clone().prop_map(Harm::Cut),
        (at, any::<u8>()).prop_map(|(at, kind)| Harm::Stray(at, kind)),
    ]
}

fn harmed(messages: &mut Vec<Vec<u8>>, first: usize, harm: &Harm) {
    let place = |at: usize| at.checked_sub(first).filter(|at| *at < messages.len());
    match *harm {
        Harm::Drop(at) => {
            if let Some(at) = place(at) {
                messages.remove(at);
            }
        }
        Harm::Double(at) => {
            if let Some(at) = place(at) {
                let twice = messages[at].clone();
                messages.insert(at, twice);
            }
        }
        Harm::Swap(at) => {
            if let Some(at) = place(at).filter(|at| at + 1 < messages.len()) {
                messages.swap(at, at + 1);
            }
        }
        Harm::Cut(at) => {
            if let Some(at) = place(at) {
                let half = messages[at].len() / 2;
                messages[at].truncate(half);
            }
        }
        Harm::Stray(at, kind) => {
            if let Some(at) = place(at) {
                messages.insert(at, message(kind, b"\0\x01\0\0\0\x01x"));
            }
        }
    }
}

proptest! {
    #[test]
    fn no_value_is_told_to_another_question_whatever_happens_to_the_messages(
        harm in harm(),
        at_once in 1..40usize,
    ) {
        let mut session = session();
        let mut first = 0;
        for n in 0..20 {
            let mut messages = exchange(&mut session, n);
            let count = messages.len();
            harmed(&mut messages, first, &harm);
            first += count;
            let Ok(told) = feed(&mut session, &messages.concat(), at_once) else {
                return Ok(());
            };
            let own = format!("{:?}", format!("value {n}").as_bytes());
            for row in told.iter().filter(|event| event.starts_with("row")) {
                let inside = own.trim_matches(['[', ']']);
                prop_assert!(row.contains(inside), "{row} {own}");
            }
            session.sent(usize::MAX / 2);
            if !session.is_at_rest() {
                // It waits for more, which never comes; the next question is not asked.
                return Ok(());
            }
        }
    }

    #[test]
    fn any_bytes_are_taken_without_a_panic_and_without_more_memory_than_they_have(
        bytes in vec(any::<u8>(), 0..2000),
        asks in 0..4usize,
        at_once in 1..300usize,
    ) {
        let mut session = session();
        for n in 0..asks {
            drop(exchange(&mut session, n));
        }
        let told = feed(&mut session, &bytes, at_once);
        if told.is_err() {
            prop_assert!(session.next().is_err());
        }
        prop_assert!(session.space().len() <= 2 * bytes.len() + (16 << 10));
    }

    #[test]
    fn messages_of_any_kind_and_body_are_taken_without_a_panic(
        messages in vec((any::<u8>(), vec(any::<u8>(), 0..40)), 0..40),
        asks in 0..4usize,
    ) {
        let mut session = session();
        for n in 0..asks {
            drop(exchange(&mut session, n));
        }
        let bytes: Vec<u8> = messages
            .iter()
            .flat_map(|(kind, body)| message(b"SNAEZDTCIGHRKcd12ntsv"[usize::from(*kind) % 21], body))
            .collect();
        drop(feed(&mut session, &bytes, 11));
    }
}

/// Of a request that is still to be sent: how many marks it has ahead and behind.
fn marks_of(session: &WireSession) -> (usize, usize) {
    const MARK: &[u8] = b"C\0\0\0\x07P\x07\0";
    let sent = session.pending();
    let ahead = sent
        .chunks(MARK.len())
        .take_while(|one| *one == MARK)
        .count();
    let all = sent.windows(MARK.len()).filter(|one| *one == MARK).count();
    (ahead, all - ahead)
}

/// An answer with what the marks are answered. Behind a refusal the server passes over them.
fn with_marks((ahead, behind): (usize, usize), messages: &[Vec<u8>]) -> Vec<u8> {
    let mark = message(b'3', b"");
    let mut bytes = mark.repeat(ahead);
    let mut is_refused = false;
    for one in messages {
        is_refused |= one[0] == b'E';
        if one[0] == b'Z' && !is_refused {
            bytes.extend(mark.repeat(behind));
        }
        bytes.extend(one);
    }
    bytes
}

fn owing() -> WireSession {
    let mut session = asked("ROLLBACK");
    session.sent(usize::MAX / 2);
    assert!(session.owe() && session.is_owed());
    session
}

#[test]
fn an_answer_that_is_owed_is_read_ahead_of_the_next_one() {
    for at_once in [1, 3, 100] {
        let mut session = owing();
        // Nobody hears of it, and what comes behind it is another's.
        assert_eq!(session.standing(), Standing::Idle);
        ask_extended(&mut session, "select 1");
        let marks = marks_of(&session);
        let owed = [complete("ROLLBACK"), ready(b'I')].concat();
        let answer = [
            message(b'1', b""),
            message(b'2', b""),
            columns(&["a"]),
            row(&["7"]),
            complete("SELECT 1"),
            ready(b'I'),
        ];
        let bytes = [owed, with_marks(marks, &answer)].concat();
        let told = feed(&mut session, &bytes, at_once).unwrap();
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(!session.is_owed());
    }
}

#[test]
fn what_is_owed_must_have_rolled_back() {
    for bytes in [
        vec![complete("COMMIT"), ready(b'I')],
        vec![complete("ROLLBACK"), ready(b'T')],
        vec![error("ERROR", "42601"), ready(b'I')],
        vec![ready(b'I')],
        vec![message(b'1', b""), message(b'2', b"")],
        vec![complete("ROLLBACK"), ready(b'I'), ready(b'I')],
        vec![columns(&[])],
        vec![message(b'I', b"")],
    ] {
        let mut session = owing();
        assert!(feed(&mut session, &bytes.concat(), 100).is_err());
    }
}

#[test]
fn nothing_is_owed_of_what_is_not_sent_or_is_not_alone() {
    assert!(!asked("ROLLBACK").owe());
    let mut session = asked("ROLLBACK");
    session.query("select 1", Tags::of("select 1"));
    session.sent(usize::MAX / 2);
    assert!(!session.owe());
}

/// Asks a statement that may be prepared until it is; returns its session and text.
fn prepared() -> (WireSession, StatementText) {
    let mut session = session();
    session.statements.set_direct(true);
    session.statements.set_threshold(Some(0));
    let text = StatementText::kept("select a");
    let bytes = [
        message(b'1', b""),
        message(b'2', b""),
        columns(&["a"]),
        row(&["7"]),
        complete("SELECT 1"),
        ready(b'I'),
    ];
    let (plan, marks) = ask_planned(&mut session, &text);
    assert!(matches!(plan, Plan::Prepare(1)));
    feed(&mut session, &with_marks(marks, &bytes), 100).unwrap();
    assert_eq!(session.statements.count(), 1);
    (session, text)
}

fn ask_planned(session: &mut WireSession, text: &StatementText) -> (Plan, (usize, usize)) {
    let none = ParameterList::default();
    let plan = session.statements.plan(text, &[]);
    session.ask(text, &none, text.tags.clone(), &plan, &[]);
    session.sync();
    let marks = marks_of(session);
    session.sent(usize::MAX / 2);
    (plan, marks)
}

#[test]
fn what_is_prepared_has_the_columns_that_it_had() {
    let (mut session, text) = prepared();
    let (plan, marks) = ask_planned(&mut session, &text);
    assert!(matches!(plan, Plan::Ready(_)));
    let right = [
        message(b'2', b""),
        row(&["8"]),
        complete("SELECT 1"),
        ready(b'I'),
    ];
    let told = feed(&mut session, &with_marks(marks, &right), 2).unwrap();
    assert_eq!(told.len(), 4, "{told:?}");
    for wrong in [
        vec![row(&["8"])],
        vec![message(b'1', b"")],
        vec![message(b'2', b""), columns(&["a"])],
        vec![message(b'2', b""), row(&["8", "9"])],
    ] {
        let (mut session, text) = prepared();
        let (_, marks) = ask_planned(&mut session, &text);
        assert!(feed(&mut session, &with_marks(marks, &wrong), 100).is_err());
    }
}

#[test]
fn what_the_server_has_no_more_is_prepared_anew() {
    for (code, is_stale) in [("26000", true), ("0A000", true), ("22012", false)] {
        let (mut session, text) = prepared();
        let (_, marks) = ask_planned(&mut session, &text);
        let refused = [error("ERROR", code), ready(b'I')];
        feed(&mut session, &with_marks(marks, &refused), 100).unwrap();
        assert_eq!(session.statements.take_stale(), is_stale, "{code}");
        let (plan, _) = ask_planned(&mut session, &text);
        assert_eq!(matches!(plan, Plan::Prepare(2)), is_stale, "{plan:?}");
    }
    // Refused while it runs, it was there.
    let (mut session, text) = prepared();
    let (_, marks) = ask_planned(&mut session, &text);
    let refused = [message(b'2', b""), error("ERROR", "0A000"), ready(b'I')];
    feed(&mut session, &with_marks(marks, &refused), 100).unwrap();
    assert!(!session.statements.take_stale());
}

#[test]
fn what_a_session_changes_it_prepares_anew_and_again_where_that_is_rolled_back() {
    for (tags, stays) in [
        (&["INSERT 0 1", "ROLLBACK"][..], true),
        (&["CREATE TABLE"], false),
        (&["ALTER TABLE"], false),
        (&["DROP TABLE"], false),
        (&["DISCARD ALL"], false),
        (&["DISCARD PLANS"], true),
        (&["DEALLOCATE"], false),
        (&["DECLARE CURSOR"], true),
    ] {
        let (mut session, text) = prepared();
        for tag in tags {
            session.statements.complete(tag);
        }
        let plan = session.statements.plan(&text, &[]);
        assert_eq!(matches!(plan, Plan::Ready(_)), stays, "{tags:?}");
    }
    let (mut session, text) = prepared();
    session.statements.complete("ALTER TABLE");
    let Plan::Prepare(name) = session.statements.plan(&text, &[]) else {
        panic!("it is asked often");
    };
    session.statements.parsed(name);
    session.statements.described(name, None);
    session.statements.complete("ROLLBACK");
    let plan = session.statements.plan(&text, &[]);
    assert!(matches!(plan, Plan::Prepare(_)), "{plan:?}");
}

#[test]
fn what_is_left_out_the_server_is_told_to_forget() {
    let (mut session, text) = prepared();
    session.statements.set_threshold(None);
    session.statements.set_threshold(Some(1));
    let plan = session.statements.plan(&text, &[]);
    session.ask(
        &text,
        &ParameterList::default(),
        text.tags.clone(),
        &plan,
        &[],
    );
    session.sync();
    let marks = marks_of(&session);
    let sent = session.pending().get(8 * marks.0..).unwrap_or_default();
    assert!(sent.starts_with(b"C\0\0\0\x11Spoolproof_1\0"), "{sent:?}");
    session.sent(usize::MAX / 2);
    let bytes = [
        message(b'3', b""),
        message(b'1', b""),
        message(b'2', b""),
        message(b'n', b""),
        message(b'I', b""),
        ready(b'I'),
    ];
    feed(&mut session, &with_marks(marks, &bytes), 1).unwrap();
    assert!(session.is_at_rest());
}

#[test]
fn no_more_are_kept_than_there_is_room_for() {
    let mut session = session();
    session.statements.set_direct(true);
    session.statements.set_threshold(Some(0));
    let bytes = [
        message(b'1', b""),
        message(b'2', b""),
        message(b'n', b""),
        complete("SELECT 0"),
        ready(b'I'),
    ];
    let mut closed = 0;
    for number in 0..400 {
        let text = StatementText::kept(format!("select {number}"));
        let plan = session.statements.plan(&text, &[]);
        assert!(matches!(plan, Plan::Prepare(_)));
        session.ask(
            &text,
            &ParameterList::default(),
            text.tags.clone(),
            &plan,
            &[],
        );
        session.sync();
        let marks = marks_of(&session);
        let count = session
            .pending()
            .windows(12)
            .filter(|w| w.starts_with(b"Spoolproof_"));
        let count = count.count();
        closed += count;
        session.sent(usize::MAX / 2);
        let closed_now = vec![message(b'3', b""); count];
        let answers = with_marks(marks, &[closed_now, bytes.to_vec()].concat());
        feed(&mut session, &answers, 100_000).unwrap();
    }
    assert!(
        session.statements.count() <= 100,
        "{}",
        session.statements.count()
    );
    assert!(closed >= 299, "{closed}");
}
