//! What a server may ask before it has let us in: `require_auth`, what a password is bound to, and whether it must have
//! asked for a certificate (`sslcertmode`).
//!
//! The driver answers whatever it is asked. So the server's messages are looked at before the driver sees them, until
//! the server is content; one that asks what it must not goes no further, and is not answered.

use std::io;

use crate::conninfo::auth::{Auth, Binding, Method};
use crate::socket::certificate::CertificateRequest;

/// What protects the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    /// Nothing.
    Clear,
    /// TLS, by a certificate to which no password can be bound.
    Unbound,
    /// TLS, to which a password can be bound.
    Bound,
}

/// Looks at each message. Knows the length of what it has not seen yet.
#[derive(Debug)]
pub(crate) struct Gatekeeper {
    auth: Auth,
    security: Security,
    request: CertificateRequest,
    asked: Option<Method>,
    /// The beginning of a message, as far as it is needed.
    begun: Vec<u8>,
    /// Bytes of a message that nobody needs.
    left: usize,
}

const HEADER: usize = 5;
const LENGTH: usize = 4;
const AUTHENTICATION: u8 = b'R';
/// libpq takes no longer ones.
const LONGEST_QUESTION: usize = 2000;
const LONGEST: usize = 30_000;
const BOUND: &[u8] = b"SCRAM-SHA-256-PLUS";

impl Gatekeeper {
    pub(crate) fn new(auth: Auth, security: Security, request: CertificateRequest) -> Self {
        Self {
            auth,
            security,
            request,
            asked: None,
            begun: Vec::new(),
            left: 0,
        }
    }

    /// Looks at what the server has sent; says whether it has let us in.
    pub(crate) fn look(&mut self, mut new: &[u8]) -> io::Result<bool> {
        loop {
            let skipped = self.left.min(new.len());
            self.left -= skipped;
            new = new.get(skipped..).unwrap_or_default();
            let wanted = self.wanted()?;
            let (part, rest) = new.split_at(new.len().min(wanted - self.begun.len()));
            self.begun.extend_from_slice(part);
            new = rest;
            if self.begun.len() < self.wanted()? {
                if new.is_empty() {
                    return Ok(false);
                }
                continue;
            }
            let message = std::mem::take(&mut self.begun);
            if message.first() == Some(&AUTHENTICATION) {
                if self.is_content(message.get(HEADER..).unwrap_or_default())? {
                    return Ok(true);
                }
            } else {
                self.left = length(&message)? - LENGTH;
            }
        }
    }

    /// How much of the present message is to be seen.
    fn wanted(&self) -> io::Result<usize> {
        match self.begun.first() {
            Some(&AUTHENTICATION) if self.begun.len() >= HEADER => {
                Ok(length(&self.begun)? - LENGTH + HEADER)
            }
            _ => Ok(HEADER),
        }
    }

    fn is_content(&mut self, body: &[u8]) -> io::Result<bool> {
        self.check_certificate()?;
        let Some((code, rest)) = body.split_first_chunk() else {
            return Err(refusal(
                "the server sent a message that is none of the protocol's",
            ));
        };
        let method = match i32::from_be_bytes(*code) {
            0 => {
                if self.asked.is_none() {
                    self.allow(Method::None, "lets anybody in")?;
                }
                return Ok(true);
            }
            3 => self.allow(Method::Password, "asks for the password in clear")?,
            5 => self.allow(Method::Md5, "asks for the password's MD5 hash")?,
            7 | 8 => self.allow(Method::Gss, "asks for GSSAPI")?,
            9 => self.allow(Method::Sspi, "asks for SSPI")?,
            10 => {
                let method = self.allow(Method::Scram, "asks for SCRAM")?;
                self.check_binding(rest)?;
                method
            }
            11 | 12 => self.allow(Method::Scram, "goes on with SCRAM")?,
            _ => {
                return Err(refusal(
                    "the server asks for a way to log in that poolproof does not know",
                ));
            }
        };
        self.asked = Some(method);
        Ok(false)
    }

    fn allow(&self, method: Method, what: &str) -> io::Result<Method> {
        if !self.auth.allows(method) {
            return Err(refusal(&format!(
                "the server {what}, which require_auth does not allow; nothing was sent to it"
            )));
        }
        let is_scram = method == Method::Scram;
        if self.auth.binding == Binding::Require && !is_scram {
            return Err(refusal(&format!(
                "the server {what}, but channel_binding is require; nothing was sent to it"
            )));
        }
        Ok(method)
    }

    /// libpq sees this at the end alone, when a password may have been sent.
    fn check_certificate(&self) -> io::Result<()> {
        match (self.auth.wants_certificate, self.request) {
            (true, CertificateRequest::Absent) => Err(refusal(
                "the server did not ask for a certificate, but sslcertmode is require; nothing was sent to it",
            )),
            (true, CertificateRequest::Unanswered) => Err(refusal(
                "the server asked for a certificate and there was none to send, but sslcertmode is require: give \
                 sslcert and sslkey",
            )),
            _ => Ok(()),
        }
    }

    /// As libpq: what is offered must be possible, or somebody between has changed it.
    fn check_binding(&self, mechanisms: &[u8]) -> io::Result<()> {
        let is_offered = mechanisms
            .split(|byte| *byte == 0)
            .any(|name| name == BOUND);
        match (is_offered, self.security, self.auth.binding) {
            (true, Security::Clear, _) => Err(refusal(
                "the server offers channel binding without TLS; nothing was sent to it",
            )),
            (true, Security::Unbound, Binding::Prefer | Binding::Require) => Err(refusal(
                "no password can be bound to the server's certificate: its signature has no hash of its own. Give \
                 the server another certificate, or set channel_binding=disable",
            )),
            (false, _, Binding::Require) => Err(refusal(
                "the server does not bind passwords to TLS, but channel_binding is require; nothing was sent to it",
            )),
            _ => Ok(()),
        }
    }
}

/// The length that a message says it has, with the four bytes that say it.
fn length(message: &[u8]) -> io::Result<usize> {
    let said = message
        .get(1..HEADER)
        .and_then(|bytes| bytes.try_into().ok());
    let said = said
        .map(i32::from_be_bytes)
        .and_then(|n| usize::try_from(n).ok());
    let is_question = message.first() == Some(&AUTHENTICATION);
    let most = if is_question {
        LONGEST_QUESTION
    } else {
        LONGEST
    };
    said.filter(|length| (LENGTH..=most).contains(length))
        .ok_or_else(|| refusal("what answers there does not speak PostgreSQL's protocol"))
}

fn refusal(what: &str) -> io::Error {
    io::Error::other(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(code: i32, body: &[u8]) -> Vec<u8> {
        let length = i32::try_from(LENGTH + 4 + body.len()).unwrap();
        [&b"R"[..], &length.to_be_bytes(), &code.to_be_bytes(), body].concat()
    }

    fn gatekeeper(require: &str) -> Gatekeeper {
        guarding(require, "prefer", Security::Clear)
    }

    fn guarding(require: &str, binding: &str, security: Security) -> Gatekeeper {
        let mut given = crate::conninfo::given::Given::default();
        given.set("require_auth", require);
        given.set("channel_binding", binding);
        given.set("user", "u");
        let target =
            crate::conninfo::Conninfo::new(given, crate::conninfo::Surroundings::default());
        let auth = target.resolve().unwrap().auth;
        Gatekeeper::new(auth, security, CertificateRequest::Absent)
    }

    /// Whether it goes no further after one of these messages.
    fn is_refused(mut gatekeeper: Gatekeeper, messages: &[Vec<u8>]) -> bool {
        messages
            .iter()
            .any(|message| gatekeeper.look(message).is_err())
    }

    const WAYS: [(i32, &str); 9] = [
        (3, "password"),
        (5, "md5"),
        (7, "gss"),
        (8, "gss"),
        (9, "sspi"),
        (10, "scram-sha-256"),
        (11, "scram-sha-256"),
        (12, "scram-sha-256"),
        (0, "none"),
    ];

    #[test]
    fn each_way_of_asking_has_its_name() {
        for (code, name) in WAYS {
            let asked = [question(code, b"")];
            assert!(
                is_refused(gatekeeper(&format!("!{name}")), &asked),
                "{code}"
            );
            assert!(!is_refused(gatekeeper(name), &asked), "{code}");
            for (_, other) in WAYS.iter().filter(|(_, other)| *other != name) {
                assert!(is_refused(gatekeeper(other), &asked), "{code} {other}");
                assert!(!is_refused(gatekeeper(&format!("!{other}")), &asked));
            }
        }
        for code in [1, 2, 4, 6, 13, 99, -1, i32::MIN] {
            assert!(is_refused(gatekeeper(""), &[question(code, b"")]), "{code}");
        }
        // One without a code is none of the protocol's.
        let short = [&b"R"[..], &7i32.to_be_bytes(), b"abc"].concat();
        assert!(is_refused(gatekeeper(""), &[short]));
    }

    #[test]
    fn who_was_asked_as_is_allowed_may_be_let_in() {
        let content = question(0, b"");
        for (code, name) in WAYS {
            let mut gatekeeper = gatekeeper(name);
            if code != 0 {
                assert!(!gatekeeper.look(&question(code, b"")).unwrap());
            }
            assert!(gatekeeper.look(&content).unwrap(), "{name}");
        }
        // Every question counts, not the first alone.
        let both = [question(5, b"salt"), question(3, b"")];
        assert!(is_refused(gatekeeper("md5"), &both));
    }

    #[test]
    fn a_password_that_must_be_bound_is_given_to_no_other_question() {
        let bound = || guarding("", "require", Security::Bound);
        for (code, name) in WAYS {
            let is_scram = name == "scram-sha-256";
            let asked = [question(code, b"SCRAM-SHA-256-PLUS\0\0")];
            assert_eq!(is_refused(bound(), &asked), !is_scram, "{code}");
        }
    }

    #[test]
    fn who_must_ask_for_a_certificate_gets_no_answer_before() {
        use CertificateRequest::{Absent, Answered, Unanswered};
        for (code, name) in WAYS {
            for (wants, request, is_wrong) in [
                (true, Absent, true),
                (true, Unanswered, true),
                (true, Answered, false),
                (false, Absent, false),
                (false, Unanswered, false),
            ] {
                let mut keeper = gatekeeper("");
                keeper.auth.wants_certificate = wants;
                keeper.request = request;
                let asked = [question(code, b"")];
                assert_eq!(is_refused(keeper, &asked), is_wrong, "{name} {request:?}");
            }
        }
    }

    #[test]
    fn what_is_offered_must_be_possible() {
        const PLUS: &[u8] = b"SCRAM-SHA-256\0SCRAM-SHA-256-PLUS\0\0";
        const PLAIN: &[u8] = b"SCRAM-SHA-256\0SCRAM-SHA-256-PLUSS\0\0";
        use Security::{Bound, Clear, Unbound};
        for (offer, security, binding, is_wrong) in [
            (PLUS, Clear, "disable", true),
            (PLUS, Clear, "prefer", true),
            (PLUS, Clear, "require", true),
            (PLUS, Unbound, "disable", false),
            (PLUS, Unbound, "prefer", true),
            (PLUS, Unbound, "require", true),
            (PLUS, Bound, "disable", false),
            (PLUS, Bound, "prefer", false),
            (PLUS, Bound, "require", false),
            (PLAIN, Clear, "disable", false),
            (PLAIN, Clear, "prefer", false),
            (PLAIN, Clear, "require", true),
            (PLAIN, Unbound, "prefer", false),
            (PLAIN, Unbound, "require", true),
            (PLAIN, Bound, "disable", false),
            (PLAIN, Bound, "prefer", false),
            (PLAIN, Bound, "require", true),
        ] {
            let offered = [question(10, offer)];
            let keeper = guarding("", binding, security);
            assert_eq!(
                is_refused(keeper, &offered),
                is_wrong,
                "{security:?} {binding}"
            );
        }
    }

    #[test]
    fn lengths_have_their_bounds() {
        let begun = |kind: u8, length: usize| {
            let said = i32::try_from(length).unwrap();
            is_refused(
                gatekeeper(""),
                &[[&[kind][..], &said.to_be_bytes()].concat()],
            )
        };
        for (kind, most) in [(AUTHENTICATION, LONGEST_QUESTION), (b'N', LONGEST)] {
            assert!(begun(kind, LENGTH - 1));
            assert!(!begun(kind, LENGTH + 4));
            assert!(!begun(kind, most));
            assert!(begun(kind, most + 1));
        }
        assert!(is_refused(gatekeeper(""), &[b"N\xff\xff\xff\xff".to_vec()]));
    }

    #[test]
    fn every_byte_may_come_alone() {
        let notice = [&b"N"[..], &6i32.to_be_bytes(), b"xy"].concat();
        let all = [notice, question(5, b"salt"), question(0, b"")].concat();
        let mut gatekeeper = gatekeeper("");
        let (last, others) = all.split_last().unwrap();
        for byte in others {
            assert!(!gatekeeper.look(&[*byte]).unwrap());
        }
        assert!(gatekeeper.look(&[*last]).unwrap());
        assert!(self::gatekeeper("").look(&all).unwrap());
    }

    #[test]
    fn what_is_not_allowed_is_refused_at_its_last_byte_at_the_latest() {
        for require in ["scram-sha-256", "!password", "none", "md5"] {
            assert!(gatekeeper(require).look(&question(3, b"")).is_err());
        }
        assert!(gatekeeper("!none").look(&question(0, b"")).is_err());
        assert!(gatekeeper("password").look(&question(3, b"")).is_ok());
        assert!(gatekeeper("none").look(&question(0, b"")).unwrap());
    }

    #[test]
    fn a_message_without_end_is_refused() {
        assert!(gatekeeper("").look(b"R\x7f\xff\xff\xff").is_err());
        assert!(gatekeeper("").look(b"E\x00\x00\x00\x03").is_err());
        assert!(gatekeeper("").look(b"HTTP/1.1 400").is_err());
    }
}
