//! TLS by OpenSSL, which libpq uses too: the same files, checks and versions.
//!
//! Everything here runs where no fork can happen ([`hold`]): OpenSSL has locks. So nothing here waits for a file: what
//! they hold was read before (`files`), and what OpenSSL reads once more by its path is plain and was just there.
//!
//! Source: `fe-secure-openssl.c` of `PostgreSQL` 17, for which files count, and how a certificate's names are compared
//! with the host's.

use std::net::IpAddr;
use std::path::Path;

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslFiletype, SslMethod, SslMode, SslOptions, SslRef,
    SslVerifyMode, SslVersion,
};
use openssl::x509::store::X509Lookup;
use openssl::x509::verify::X509VerifyFlags;
use openssl::x509::{X509, X509Ref, X509VerifyResult};

use super::files::{Content, TlsFiles, Trusted};
use crate::conninfo::target::{Endpoint, Secret, Tls, TlsMode, TlsVersion};
use crate::process::hold;
use crate::socket::certificate::{self, CertificateRequest};

const PROTOCOL: &[u8] = b"postgresql";
const PROTOCOLS: &[u8] = b"\x0apostgresql";

/// A session to begin with `endpoint`, by the files as they were read.
pub(crate) fn session(tls: &Tls, files: &TlsFiles, endpoint: &Endpoint) -> Result<Ssl, String> {
    let context = context(tls, files)?;
    let mut ssl = Ssl::new(&context).map_err(shown)?;
    let is_name = !endpoint.host.is_empty()
        && !endpoint.host.contains(':')
        && !endpoint
            .host
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
    if tls.says_name && is_name {
        ssl.set_hostname(&endpoint.host).map_err(shown)?;
    }
    certificate::watch(&mut ssl).map_err(shown)?;
    Ok(ssl)
}

fn context(tls: &Tls, files: &TlsFiles) -> Result<SslContext, String> {
    openssl::init();
    hold::until_exit();
    let mut builder = SslContextBuilder::new(SslMethod::tls()).map_err(shown)?;
    // Most connections rest most of the time: what they read and write with is given back then.
    builder.set_mode(SslMode::RELEASE_BUFFERS);
    builder.set_options(SslOptions::NO_SSLV2 | SslOptions::NO_SSLV3 | SslOptions::NO_COMPRESSION);
    builder
        .set_min_proto_version(tls.lowest.map(version))
        .map_err(shown)?;
    builder
        .set_max_proto_version(tls.highest.map(version))
        .map_err(shown)?;
    builder.set_alpn_protos(PROTOCOLS).map_err(shown)?;
    let checks = trust(files, &mut builder)?;
    builder.set_verify(if checks {
        SslVerifyMode::PEER
    } else {
        SslVerifyMode::NONE
    });
    present(files, tls, &mut builder)?;
    Ok(builder.build())
}

fn version(version: TlsVersion) -> SslVersion {
    match version {
        TlsVersion::V1_0 => SslVersion::TLS1,
        TlsVersion::V1_1 => SslVersion::TLS1_1,
        TlsVersion::V1_2 => SslVersion::TLS1_2,
        TlsVersion::V1_3 => SslVersion::TLS1_3,
    }
}

/// Loads what is trusted; says whether a certificate is checked by it.
fn trust(files: &TlsFiles, builder: &mut SslContextBuilder) -> Result<bool, String> {
    let file = match &files.trusted {
        Trusted::System(file, directories) => {
            // As OpenSSL does with its defaults: what is not there is no error.
            if let Some(file) = file {
                let _absent = add_roots(file, builder);
            }
            for directory in directories {
                let _absent = builder.load_verify_locations(None, Some(usable(directory)?));
            }
            return Ok(true);
        }
        Trusted::File(file) => file,
        Trusted::Missing(what) => return Err(what.clone()),
        Trusted::Nothing => return Ok(false),
    };
    add_roots(file, builder).map_err(|why| unreadable(&file.path, why))?;
    // Lists that are not there are left out; one directory is looked into when a certificate is checked.
    let (list, directory) = &files.revoked;
    let mut is_complete = true;
    if let Some(list) = list {
        is_complete = add_list(list, builder)?;
    }
    if let Some(directory) = directory.as_ref().filter(|_| is_complete) {
        let path = usable(directory)?.to_str().unwrap_or_default();
        let lookup = builder.cert_store_mut().add_lookup(X509Lookup::hash_dir());
        is_complete = lookup
            .and_then(|lookup| lookup.add_dir(path, SslFiletype::PEM))
            .is_ok();
    }
    if is_complete && (list.is_some() || directory.is_some()) {
        builder
            .cert_store_mut()
            .set_flags(X509VerifyFlags::CRL_CHECK | X509VerifyFlags::CRL_CHECK_ALL)
            .map_err(shown)?;
    }
    // What failed to load has left its errors in the thread's queue.
    let _left = ErrorStack::get();
    Ok(true)
}

/// Whether a file holds what can be read by its path alone.
fn holds(bytes: &[u8], what: &str) -> bool {
    bytes
        .windows(what.len())
        .any(|part| part == what.as_bytes())
}

fn add_roots(file: &Content, builder: &mut SslContextBuilder) -> Result<(), String> {
    let bytes = file.bytes.as_ref()?;
    let is_usual = !holds(bytes, "BEGIN TRUSTED CERTIFICATE") && !holds(bytes, "BEGIN X509 CRL");
    if file.is_plain && !is_usual {
        let loaded = builder.load_verify_locations(Some(usable(&file.path)?), None);
        return loaded.map_err(shown);
    }
    let found = X509::stack_from_pem(bytes).map_err(shown)?;
    if found.is_empty() {
        return Err("it holds no certificate".into());
    }
    for certificate in found {
        let store = builder.cert_store_mut();
        store.add_cert(certificate).map_err(shown)?;
    }
    Ok(())
}

/// Loads a list of what was revoked; says whether certificates are to be checked by it.
fn add_list(list: &Content, builder: &mut SslContextBuilder) -> Result<bool, String> {
    let Ok(bytes) = &list.bytes else {
        return Ok(false);
    };
    let path = usable(&list.path)?;
    if holds(bytes, "BEGIN X509 CRL") {
        if !list.is_plain {
            return Err(unreadable(
                path,
                "a list of what was revoked must be a plain file",
            ));
        }
        let lookup = builder.cert_store_mut().add_lookup(X509Lookup::file());
        let loaded = lookup.and_then(|lookup| lookup.load_crl_file(path, SslFiletype::PEM));
        if loaded.is_ok_and(|count| count > 0) {
            return Ok(true);
        }
    }
    // libpq counts certificates too, and then finds no list: nobody is let in.
    Ok(X509::stack_from_pem(bytes).is_ok_and(|found| !found.is_empty()))
}

/// Loads the client's certificate and key, where there is a certificate.
fn present(files: &TlsFiles, tls: &Tls, builder: &mut SslContextBuilder) -> Result<(), String> {
    let Some((certificate, key)) = &files.certificate else {
        return Ok(());
    };
    add_chain(certificate, builder).map_err(|why| unreadable(&certificate.path, why))?;
    let Some(key) = key else {
        let path = certificate.path.display();
        return Err(format!("{path} has no key: give sslkey"));
    };
    let loaded = load_key(key, tls).map_err(|why| unreadable(&key.path, why))?;
    builder
        .set_private_key(&loaded)
        .and_then(|()| builder.check_private_key())
        .map_err(|error| {
            format!(
                "the certificate {} and the key {} do not belong together: {}",
                certificate.path.display(),
                key.path.display(),
                shown(error)
            )
        })
}

fn add_chain(file: &Content, builder: &mut SslContextBuilder) -> Result<(), String> {
    let bytes = file.bytes.as_ref()?;
    if file.is_plain && holds(bytes, "BEGIN TRUSTED CERTIFICATE") {
        let loaded = builder.set_certificate_chain_file(usable(&file.path)?);
        return loaded.map_err(shown);
    }
    let mut found = X509::stack_from_pem(bytes).map_err(shown)?.into_iter();
    let first = found.next().ok_or("it holds no certificate")?;
    builder.set_certificate(&first).map_err(shown)?;
    for other in found {
        builder.add_extra_chain_cert(other).map_err(shown)?;
    }
    Ok(())
}

fn load_key(file: &Content, tls: &Tls) -> Result<PKey<Private>, String> {
    let content = file.bytes.as_ref()?;
    let password = tls.key_password.as_ref().map_or(&[][..], Secret::bytes);
    // Never the default, which asks at the terminal.
    let read = PKey::private_key_from_pem_callback(content, |place| {
        let count = password.len().min(place.len());
        place[..count].copy_from_slice(&password[..count]);
        Ok(count)
    });
    read.or_else(|error| PKey::private_key_from_der(content).map_err(|_| shown(error)))
}

/// What came of a handshake.
#[derive(Debug)]
pub(crate) struct Handshake {
    /// What binds a password to the session, if the signature of the server's certificate has a hash.
    pub(crate) binding: Option<Vec<u8>>,
    /// Whether the server asked for a certificate.
    pub(crate) request: CertificateRequest,
}

/// Checks, after the handshake, what OpenSSL does not.
pub(crate) fn checked(ssl: &SslRef, tls: &Tls, endpoint: &Endpoint) -> Result<Handshake, String> {
    let agreed = ssl.selected_alpn_protocol();
    let is_agreed = agreed == Some(PROTOCOL) || (agreed.is_none() && !tls.is_direct);
    if !is_agreed {
        return Err("the server does not say that it speaks PostgreSQL's protocol over TLS".into());
    }
    let Some(shown_to_us) = ssl.peer_certificate() else {
        return Err("the server showed no certificate".into());
    };
    if tls.mode == TlsMode::VerifyFull {
        if endpoint.host.is_empty() {
            return Err(
                "sslmode=verify-full needs the name of the host: give host, beside hostaddr".into(),
            );
        }
        if !names_match(&shown_to_us, &endpoint.host) {
            return Err("its certificate is for another host".into());
        }
    }
    let digest = match certificate::signature_hash(&shown_to_us) {
        Some(Nid::MD5 | Nid::SHA1) => Some(MessageDigest::sha256()),
        Some(digest) => MessageDigest::from_nid(digest),
        None => None,
    };
    let bound = digest.map(|digest| shown_to_us.digest(digest)).transpose();
    Ok(Handshake {
        binding: bound.map_err(shown)?.map(|hash| hash.to_vec()),
        request: certificate::seen(ssl),
    })
}

/// Why a handshake failed, in words, when the certificate is the reason.
pub(crate) fn mistrust(ssl: &SslRef) -> Option<String> {
    let result = ssl.verify_result();
    (result != X509VerifyResult::OK).then(|| result.error_string().to_owned())
}

fn names_match(certificate: &X509Ref, host: &str) -> bool {
    let address: Option<IpAddr> = host.parse().ok();
    let mut has_kind = false;
    for name in certificate.subject_alt_names().into_iter().flatten() {
        if let Some(name) = name.dnsname() {
            has_kind |= address.is_none();
            if name.contains('\0') {
                return false;
            }
            if matches(name.as_bytes(), host) {
                return true;
            }
        }
        if let Some(bytes) = name.ipaddress() {
            has_kind |= address.is_some();
            let is_same = match address {
                Some(IpAddr::V4(address)) => bytes == address.octets(),
                Some(IpAddr::V6(address)) => bytes == address.octets(),
                None => false,
            };
            if is_same {
                return true;
            }
        }
    }
    // The common name counts where no alternative name is of the host's kind.
    let mut common = certificate.subject_name().entries_by_nid(Nid::COMMONNAME);
    !has_kind
        && common
            .next()
            .is_some_and(|name| matches(name.data().as_slice(), host))
}

/// Whether a name of a certificate stands for a host; `*.` stands for one label.
fn matches(name: &[u8], host: &str) -> bool {
    let host = host.as_bytes();
    if name.contains(&0) {
        return false;
    }
    if name.eq_ignore_ascii_case(host) {
        return true;
    }
    let Some(suffix) = name
        .strip_prefix(b"*")
        .filter(|suffix| suffix.starts_with(b"."))
    else {
        return false;
    };
    let at = host.iter().position(|byte| *byte == b'.');
    suffix.len() > 1 && at.is_some_and(|at| at > 0 && host[at..].eq_ignore_ascii_case(suffix))
}

/// A path that can be handed to OpenSSL.
fn usable(path: &Path) -> Result<&Path, String> {
    match path.to_str() {
        Some(text) if !text.contains('\0') => Ok(path),
        _ => Err("the name of a file for TLS is not UTF-8".into()),
    }
}

fn unreadable(path: &Path, why: impl ToString) -> String {
    format!(
        "{} cannot be used for TLS: {}",
        path.display(),
        why.to_string()
    )
}

/// What OpenSSL says, in one line.
pub(crate) fn shown(error: ErrorStack) -> String {
    let reasons: Vec<_> = error
        .errors()
        .iter()
        .filter_map(openssl::error::Error::reason)
        .collect();
    match reasons.as_slice() {
        [] => "OpenSSL gives no reason".into(),
        reasons => reasons.join(", "),
    }
}
