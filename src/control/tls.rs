//! TLS of the control plane by OpenSSL, which libpq uses too: the same files, checks and versions.
//!
//! Everything here runs where no fork can happen ([`hold`]): OpenSSL has locks.
//!
//! Source: `fe-secure-openssl.c` of `PostgreSQL` 17, for which files are read, which absent ones are left out, and how a
//! certificate's names are compared with the host's.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslFiletype, SslMethod, SslOptions, SslRef, SslVerifyMode,
    SslVersion,
};
use openssl::x509::store::X509Lookup;
use openssl::x509::verify::X509VerifyFlags;
use openssl::x509::{X509, X509Ref, X509VerifyResult};

use crate::conninfo::target::{Endpoint, Roots, Secret, Tls, TlsMode, TlsVersion};
use crate::process::hold;

const PROTOCOL: &[u8] = b"postgresql";
const PROTOCOLS: &[u8] = b"\x0apostgresql";

/// A session to begin with `endpoint`, by the files as they are now.
pub(crate) fn session(tls: &Tls, endpoint: &Endpoint) -> Result<Ssl, String> {
    let context = context(tls)?;
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
    Ok(ssl)
}

fn context(tls: &Tls) -> Result<SslContext, String> {
    openssl::init();
    hold::until_exit();
    let mut builder = SslContextBuilder::new(SslMethod::tls()).map_err(shown)?;
    builder.set_options(SslOptions::NO_SSLV2 | SslOptions::NO_SSLV3 | SslOptions::NO_COMPRESSION);
    builder
        .set_min_proto_version(tls.lowest.map(version))
        .map_err(shown)?;
    builder
        .set_max_proto_version(tls.highest.map(version))
        .map_err(shown)?;
    builder.set_alpn_protos(PROTOCOLS).map_err(shown)?;
    let checks = trust(tls, &mut builder)?;
    builder.set_verify(if checks {
        SslVerifyMode::PEER
    } else {
        SslVerifyMode::NONE
    });
    present(tls, &mut builder)?;
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
fn trust(tls: &Tls, builder: &mut SslContextBuilder) -> Result<bool, String> {
    let file = match &tls.roots {
        Roots::System(file, directory) => {
            let found = openssl_probe::probe();
            let file = file.clone().or(found.cert_file);
            let directories = match directory {
                Some(directory) => vec![directory.clone()],
                None => found.cert_dir,
            };
            if let Some(file) = &file {
                // As OpenSSL does with its defaults: what is not there is no error.
                let _absent = builder.load_verify_locations(Some(usable(file)?), None);
            }
            for directory in &directories {
                let _absent = builder.load_verify_locations(None, Some(usable(directory)?));
            }
            return Ok(true);
        }
        Roots::File(file) if fs::metadata(file).is_ok() => file,
        _ if tls.mode >= TlsMode::VerifyCa => {
            let which = match &tls.roots {
                Roots::File(file) => format!("{} is not there", file.display()),
                _ => "there is no home in which to look for them".into(),
            };
            return Err(format!(
                "sslmode verify-ca and verify-full need root certificates, and {which}: give sslrootcert"
            ));
        }
        _ => return Ok(false),
    };
    builder
        .load_verify_locations(Some(usable(file)?), None)
        .map_err(|error| unreadable(file, shown(error)))?;
    // Lists that are not there are left out; one directory is looked into when a certificate is checked.
    let (list, directory) = &tls.revoked;
    let mut is_complete = true;
    if let Some(list) = list {
        let path = usable(list)?;
        let lookup = builder.cert_store_mut().add_lookup(X509Lookup::file());
        is_complete = lookup
            .and_then(|lookup| lookup.load_crl_file(path, SslFiletype::PEM))
            .is_ok_and(|count| count > 0)
            // libpq counts certificates too, and then finds no list: nobody is let in.
            || fs::read(list).is_ok_and(|pem| X509::stack_from_pem(&pem).is_ok_and(|found| !found.is_empty()));
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

/// Loads the client's certificate and key, where there is a certificate.
fn present(tls: &Tls, builder: &mut SslContextBuilder) -> Result<(), String> {
    let Some(certificate) = &tls.certificate else {
        return Ok(());
    };
    match fs::metadata(certificate) {
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(());
        }
        Err(error) => return Err(unreadable(certificate, error)),
    }
    builder
        .set_certificate_chain_file(usable(certificate)?)
        .map_err(|error| unreadable(certificate, shown(error)))?;
    let Some(key) = &tls.key else {
        return Err(format!("{} has no key: give sslkey", certificate.display()));
    };
    let loaded = load_key(key, tls).map_err(|why| unreadable(key, why))?;
    builder
        .set_private_key(&loaded)
        .and_then(|()| builder.check_private_key())
        .map_err(|error| {
            format!(
                "the certificate {} and the key {} do not belong together: {}",
                certificate.display(),
                key.display(),
                shown(error)
            )
        })
}

/// Reads a key as libpq does: one that others may read is refused.
fn load_key(path: &Path, tls: &Tls) -> Result<PKey<Private>, String> {
    const BY_ROOT: u32 = 0o037;
    const BY_OTHERS: u32 = 0o077;
    let about = fs::metadata(path).map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err("it is no plain file".into());
    }
    let limit = if about.uid() == 0 { BY_ROOT } else { BY_OTHERS };
    if about.permissions().mode() & limit != 0 {
        return Err(
            "others may read it; it must have permissions 0600 or less, or 0640 or less where root owns it".into(),
        );
    }
    let content = fs::read(path).map_err(|error| error.to_string())?;
    let password = tls.key_password.as_ref().map_or(&[][..], Secret::bytes);
    // Never the default, which asks at the terminal.
    let read = PKey::private_key_from_pem_callback(&content, |place| {
        let count = password.len().min(place.len());
        place[..count].copy_from_slice(&password[..count]);
        Ok(count)
    });
    read.or_else(|error| PKey::private_key_from_der(&content).map_err(|_| shown(error)))
}

/// Checks, after the handshake, what OpenSSL does not. Returns what binds a password to the session, if the
/// certificate's signature has a hash.
pub(crate) fn checked(
    ssl: &SslRef,
    tls: &Tls,
    endpoint: &Endpoint,
) -> Result<Option<Vec<u8>>, String> {
    let agreed = ssl.selected_alpn_protocol();
    let is_agreed = agreed == Some(PROTOCOL) || (agreed.is_none() && !tls.is_direct);
    if !is_agreed {
        return Err("the server does not say that it speaks PostgreSQL's protocol over TLS".into());
    }
    let Some(certificate) = ssl.peer_certificate() else {
        return Err("the server showed no certificate".into());
    };
    if tls.mode == TlsMode::VerifyFull {
        if endpoint.host.is_empty() {
            return Err(
                "sslmode=verify-full needs the name of the host: give host, beside hostaddr".into(),
            );
        }
        if !names_match(&certificate, &endpoint.host) {
            return Err("its certificate is for another host".into());
        }
    }
    let algorithm = certificate.signature_algorithm().object().nid();
    let digest = algorithm.signature_algorithms().map(|found| found.digest);
    let digest = match digest {
        Some(Nid::MD5 | Nid::SHA1) => Some(MessageDigest::sha256()),
        Some(digest) => MessageDigest::from_nid(digest),
        None => None,
    };
    let bound = digest.map(|digest| certificate.digest(digest)).transpose();
    Ok(bound.map_err(shown)?.map(|hash| hash.to_vec()))
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
