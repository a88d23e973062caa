//! The files of TLS, as they are now: read where that may take long (by a thread of its own), and used where nothing may wait,
//! by [`super::handshake`].
//!
//! Source: `fe-secure-openssl.c` of `PostgreSQL` 17, for which files are read, and which absent ones are left out.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::conninfo::target::{Roots, Tls, TlsMode};

/// More of a file is not read: a device has no end.
const MOST: u64 = 16 << 20;

/// A file that was read.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) path: PathBuf,
    /// What it holds, or why it could not be read.
    pub(crate) bytes: Result<Vec<u8>, String>,
    /// Whether it can be read again: no pipe, no device.
    pub(crate) is_plain: bool,
}

/// What is trusted.
#[derive(Debug)]
pub(crate) enum Trusted {
    /// What the system trusts: a file, directories.
    System(Option<Content>, Vec<PathBuf>),
    /// What a file holds.
    File(Content),
    /// There is none, and there must be.
    Missing(String),
    /// There is none, and nothing is checked.
    Nothing,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct TlsFiles {
    pub(crate) trusted: Trusted,
    /// Lists of what was revoked: a file, a directory.
    pub(crate) revoked: (Option<Content>, Option<PathBuf>),
    /// The client's certificate and its key; an absent one is left out.
    pub(crate) certificate: Option<(Content, Option<Content>)>,
}

impl TlsFiles {
    /// None of them, where there is no TLS.
    pub(crate) fn none() -> Self {
        Self {
            trusted: Trusted::Nothing,
            revoked: (None, None),
            certificate: None,
        }
    }

    /// Reads what is there.
    pub(crate) fn read(tls: &Tls) -> Self {
        let trusted = trusted(tls);
        let revoked = match &trusted {
            Trusted::File(_) => {
                let (list, directory) = &tls.revoked;
                if let Some(directory) = directory {
                    look_through(directory);
                }
                (list.as_deref().map(read), directory.clone())
            }
            _ => (None, None),
        };
        let certificate = tls.certificate.as_deref().and_then(read_if_there);
        Self {
            trusted,
            revoked,
            certificate: certificate.map(|found| (found, tls.key.as_deref().map(read_key))),
        }
    }
}

fn trusted(tls: &Tls) -> Trusted {
    match &tls.roots {
        Roots::System(file, directory) => {
            let found = openssl_probe::probe();
            let file = file.clone().or(found.cert_file);
            let directories = match directory {
                Some(directory) => vec![directory.clone()],
                None => found.cert_dir,
            };
            Trusted::System(file.as_deref().map(read), directories)
        }
        Roots::File(file) if fs::metadata(file).is_ok() => Trusted::File(read(file)),
        roots if tls.mode >= TlsMode::VerifyCa => {
            let which = match roots {
                Roots::File(file) => format!("{} is not there", file.display()),
                _ => "there is no home in which to look for them".into(),
            };
            Trusted::Missing(format!(
                "sslmode verify-ca and verify-full need root certificates, and {which}: give sslrootcert"
            ))
        }
        _ => Trusted::Nothing,
    }
}

fn read(path: &Path) -> Content {
    let bytes = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(MOST).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    Content {
        path: path.to_path_buf(),
        is_plain: fs::metadata(path).is_ok_and(|about| about.is_file()),
        bytes: bytes().map_err(|error: std::io::Error| error.to_string()),
    }
}

fn read_if_there(path: &Path) -> Option<Content> {
    match fs::metadata(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            None
        }
        Err(error) => Some(unread(path, error.to_string())),
        Ok(_) => Some(read(path)),
    }
}

/// Reads a key as libpq does: one that others may read is refused.
fn read_key(path: &Path) -> Content {
    const BY_ROOT: u32 = 0o037;
    const BY_OTHERS: u32 = 0o077;
    let about = match fs::metadata(path) {
        Ok(about) => about,
        Err(error) => return unread(path, error.to_string()),
    };
    if !about.is_file() {
        return unread(path, "it is no plain file".into());
    }
    let limit = if about.uid() == 0 { BY_ROOT } else { BY_OTHERS };
    if about.permissions().mode() & limit != 0 {
        let what = "others may read it; it must have permissions 0600 or less, or 0640 or less where root owns it";
        return unread(path, what.into());
    }
    read(path)
}

fn unread(path: &Path, why: String) -> Content {
    Content {
        path: path.to_path_buf(),
        bytes: Err(why),
        is_plain: true,
    }
}

/// Reads what a directory holds, which OpenSSL reads again, one by one, when it needs them: what hangs is to hang here.
fn look_through(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let _read = read(&entry.path());
    }
}
