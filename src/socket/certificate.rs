//! What OpenSSL knows of certificates and its binding for Rust does not tell: whether a server has asked for one of
//! ours, and with which hash one is signed.
//!
//! Source: `cert_cb` and `pgtls_get_peer_certificate_hash` in `fe-secure-openssl.c` of `PostgreSQL` 18.
#![allow(
    unsafe_code,
    reason = "two functions of OpenSSL that its binding lacks, and the callback of one of them"
)]

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use foreign_types::ForeignTypeRef;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::nid::Nid;
use openssl::ssl::{Ssl, SslRef};
use openssl::x509::X509Ref;
use openssl_sys::{SSL, X509};

/// # Safety
///
/// OpenSSL calls it.
type Callback = unsafe extern "C" fn(*mut SSL, *mut c_void) -> c_int;

// SAFETY: both are in every OpenSSL from 1.1.1 on, with these types.
unsafe extern "C" {
    fn SSL_set_cert_cb(ssl: *mut SSL, callback: Option<Callback>, argument: *mut c_void);
    fn X509_get_signature_info(
        certificate: *mut X509,
        digest: *mut c_int,
        algorithm: *mut c_int,
        bits: *mut c_int,
        flags: *mut u32,
    ) -> c_int;
}

/// What came of a server's wish for a certificate of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateRequest {
    /// It did not ask.
    Absent,
    /// It asked; there was none to send.
    Unanswered,
    /// It asked, and one was sent.
    Answered,
}

const ASKED: u8 = 1;
const ANSWERED: u8 = 2;

/// What a session notes; each has its own, which goes with it.
type Note = AtomicU8;

/// Where sessions keep their note.
fn place() -> Result<Index<Ssl, Note>, ErrorStack> {
    static PLACE: OnceLock<Index<Ssl, Note>> = OnceLock::new();
    if let Some(place) = PLACE.get() {
        return Ok(*place);
    }
    // Of two threads at once, one takes a place in vain.
    let new = Ssl::new_ex_index()?;
    Ok(*PLACE.get_or_init(|| new))
}

/// Has a session, before its handshake, note whether its server asks for a certificate. To be called where no fork can
/// happen.
///
/// # Errors
///
/// OpenSSL has no memory.
pub fn watch(ssl: &mut SslRef) -> Result<(), ErrorStack> {
    ssl.set_ex_data(place()?, Note::default());
    // SAFETY: the session is there, and nobody else works on it; the callback is of the type that OpenSSL calls, and
    // uses no argument.
    unsafe { SSL_set_cert_cb(ssl.as_ptr(), Some(asked), ptr::null_mut()) };
    Ok(())
}

/// What came of it, after the handshake. Where nobody watched, nothing was asked.
pub fn seen(ssl: &SslRef) -> CertificateRequest {
    let note = place().ok().and_then(|place| ssl.ex_data(place));
    match note.map_or(0, |note| note.load(Ordering::Relaxed)) {
        0 => CertificateRequest::Absent,
        ASKED => CertificateRequest::Unanswered,
        _ => CertificateRequest::Answered,
    }
}

/// Called by OpenSSL when the server asks, on the thread that does the handshake. It does not panic.
///
/// # Safety
///
/// For OpenSSL alone, with a session.
unsafe extern "C" fn asked(ssl: *mut SSL, _argument: *mut c_void) -> c_int {
    const GO_ON: c_int = 1;
    // SAFETY: OpenSSL hands over the session that it works on, which outlives the call; it is only looked at, and what
    // is changed is an atomic of its own.
    let ssl = unsafe { SslRef::from_ptr(ssl) };
    if let Some(note) = place().ok().and_then(|place| ssl.ex_data(place)) {
        let is_sent = ssl.certificate().is_some();
        note.fetch_max(if is_sent { ANSWERED } else { ASKED }, Ordering::Relaxed);
    }
    GO_ON
}

/// The hash with which a certificate is signed; none where its kind of signature has none of its own. That of RSA-PSS
/// stands beside its name.
pub fn signature_hash(certificate: &X509Ref) -> Option<Nid> {
    let mut digest = Nid::UNDEF.as_raw();
    // SAFETY: the certificate is there, and what OpenSSL keeps in it for later it keeps under a lock of its own; of
    // what it can tell, one thing is asked, whose place is there.
    let is_known = unsafe {
        X509_get_signature_info(
            certificate.as_ptr(),
            &raw mut digest,
            ptr::null_mut(),
            ptr::null_mut(),
            ptr::null_mut(),
        )
    };
    let digest = Nid::from_raw(digest);
    (is_known == 1 && digest != Nid::UNDEF).then_some(digest)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::thread;

    use openssl::asn1::Asn1Time;
    use openssl::hash::MessageDigest;
    use openssl::pkey::{PKey, Private};
    use openssl::ssl::{
        SslContext, SslContextBuilder, SslMethod, SslStream, SslVerifyMode, SslVersion,
    };
    use openssl::x509::{X509, X509Builder};

    use super::CertificateRequest::{Absent, Answered, Unanswered};
    use super::*;

    fn signed(key: &PKey<Private>, digest: MessageDigest) -> X509 {
        let mut builder = X509Builder::new().unwrap();
        let (begin, end) = (Asn1Time::days_from_now(0), Asn1Time::days_from_now(2));
        builder.set_not_before(&begin.unwrap()).unwrap();
        builder.set_not_after(&end.unwrap()).unwrap();
        builder.set_pubkey(key).unwrap();
        builder.sign(key, digest).unwrap();
        builder.build()
    }

    fn context(shows: bool, asks: bool, highest: SslVersion) -> SslContext {
        let mut builder = SslContextBuilder::new(SslMethod::tls()).unwrap();
        if shows {
            let key = PKey::generate_ed25519().unwrap();
            let certificate = signed(&key, MessageDigest::null());
            builder.set_certificate(&certificate).unwrap();
            builder.set_private_key(&key).unwrap();
        }
        let mode = if asks {
            SslVerifyMode::PEER
        } else {
            SslVerifyMode::NONE
        };
        builder.set_verify_callback(mode, |_, _| true);
        builder.set_max_proto_version(Some(highest)).unwrap();
        builder.build()
    }

    /// What a client has seen of a server, after a handshake.
    fn met(shows: bool, asks: bool, highest: SslVersion) -> CertificateRequest {
        let (near, far) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || {
            let ssl = Ssl::new(&context(true, asks, highest)).unwrap();
            let mut stream = SslStream::new(ssl, far).unwrap();
            stream.accept().unwrap();
        });
        let mut ssl = Ssl::new(&context(shows, false, highest)).unwrap();
        watch(&mut ssl).unwrap();
        assert_eq!(seen(&ssl), Absent);
        let mut stream = SslStream::new(ssl, near).unwrap();
        stream.connect().unwrap();
        server.join().unwrap();
        seen(stream.ssl())
    }

    #[test]
    fn each_of_many_sessions_notes_what_its_server_has_asked() {
        let cells = [
            (true, true, Answered),
            (false, true, Unanswered),
            (true, false, Absent),
            (false, false, Absent),
        ];
        thread::scope(|scope| {
            for highest in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
                for (shows, asks, wanted) in cells {
                    scope.spawn(move || {
                        for _ in 0..3 {
                            assert_eq!(met(shows, asks, highest), wanted, "{shows} {asks}");
                        }
                    });
                }
            }
        });
    }

    #[test]
    fn who_did_not_watch_has_seen_nothing() {
        let ssl = Ssl::new(&context(true, false, SslVersion::TLS1_3)).unwrap();
        assert_eq!(seen(&ssl), Absent);
    }

    #[test]
    fn a_signature_has_a_hash_or_none() {
        let key = PKey::ec_gen("prime256v1").unwrap();
        for (digest, wanted) in [
            (MessageDigest::sha256(), Some(Nid::SHA256)),
            (MessageDigest::sha512(), Some(Nid::SHA512)),
        ] {
            assert_eq!(signature_hash(&signed(&key, digest)), wanted);
        }
        let other = PKey::generate_ed25519().unwrap();
        assert_eq!(signature_hash(&signed(&other, MessageDigest::null())), None);
    }
}
