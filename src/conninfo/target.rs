//! Where a connection leads and what it asks for, worked out: plain values.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::auth::Auth;

/// A password, or what else is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub(super) Vec<u8>);

impl Secret {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// What a `Debug` shows of a text that should be no secret. One that looks like a connection string is not shown: a
/// URL that strays into `dbname` has a password in it.
fn plain(text: &str) -> &str {
    let is_plain = !text.contains("://") && !text.contains(['@', '=', '%', '\n']);
    if is_plain { text } else { "…" }
}

/// One place where the server, or one of a cluster, may be. Its `Debug` shows no password.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// A name, an address, or the directory of a unix socket; empty where there is an address alone.
    pub host: String,
    /// The address to use in place of looking the name up.
    pub hostaddr: Option<String>,
    /// The port.
    pub port: u16,
    /// The password for this place.
    pub password: Option<Secret>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("host", &plain(&self.host))
            .field("hostaddr", &self.hostaddr.as_deref().map(plain))
            .field("port", &self.port)
            .field("password", &self.password)
            .finish()
    }
}

impl Endpoint {
    /// Whether it is a unix socket.
    pub fn is_local(&self) -> bool {
        self.hostaddr.is_none() && self.host.starts_with(['/', '@'])
    }

    /// How it is called in an error. A name with an `@` in it is not shown: it may be the rest of a password.
    pub fn shown(&self) -> String {
        if self.host.trim_start_matches('@').contains('@') {
            return format!(
                "a host with an @ in its name (not shown: it may be a piece of a password, where %40 stands for an \
                 @), port {}",
                self.port
            );
        }
        if self.is_local() {
            return self.path();
        }
        match &self.hostaddr {
            Some(address) if self.host.is_empty() || *address == self.host => {
                format!("{address}:{}", self.port)
            }
            Some(address) => format!("{}:{} ({address})", self.host, self.port),
            None => format!("{}:{}", self.host, self.port),
        }
    }

    /// The path of its unix socket; one that begins with `@` has no file.
    pub fn path(&self) -> String {
        format!("{}/.s.PGSQL.{}", self.host, self.port)
    }
}

/// What libpq calls `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// When the server lets nobody in without.
    Allow,
    /// When the server offers it.
    Prefer,
    /// Always.
    Require,
    /// Always, and the certificate's issuer is checked.
    VerifyCa,
    /// Always, and issuer and name are checked.
    VerifyFull,
}

impl TlsMode {
    /// With TLS or without, in the order in which libpq tries it.
    pub(crate) fn ways(self, is_unix: bool) -> &'static [bool] {
        match self {
            // TLS is not for unix sockets.
            _ if is_unix => &[false],
            Self::Disable => &[false],
            Self::Allow => &[false, true],
            Self::Prefer => &[true, false],
            Self::Require | Self::VerifyCa | Self::VerifyFull => &[true],
        }
    }
}

/// Which certificates are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// The system's, which these name where they are set: a file, a directory.
    System(Option<PathBuf>, Option<PathBuf>),
    /// A file's; where it is not there, `verify-…` refuses, and the others check nothing.
    File(PathBuf),
    /// There is no home in which to look.
    Nowhere,
}

/// TLS: whether, how, and what is checked by what.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Whether, and what is checked.
    pub mode: TlsMode,
    /// Begins at once, without asking for it in the protocol first.
    pub is_direct: bool,
    /// Says the host's name in clear as it begins.
    pub says_name: bool,
    /// What is trusted.
    pub roots: Roots,
    /// Revocation lists: a file, a directory; what is not there is left out.
    pub revoked: (Option<PathBuf>, Option<PathBuf>),
    /// The client's certificate; where it is not there, none is sent.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// What decrypts the key.
    pub key_password: Option<Secret>,
    /// The lowest version.
    pub lowest: Option<TlsVersion>,
    /// The highest.
    pub highest: Option<TlsVersion>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum TlsVersion {
    V1_0,
    V1_1,
    V1_2,
    V1_3,
}

/// Which servers of several will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// Any.
    Any,
    /// One that takes writes.
    ReadWrite,
    /// One that takes none.
    ReadOnly,
    /// No standby.
    Primary,
    /// A standby.
    Standby,
    /// A standby, or else any.
    PreferStandby,
}

impl Sessions {
    /// Whether a server will do that is a standby, or does not write.
    pub fn take(self, is_standby: bool, is_read_only: bool) -> bool {
        match self {
            Self::Any | Self::PreferStandby => true,
            Self::ReadWrite => !is_standby && !is_read_only,
            Self::ReadOnly => is_standby || is_read_only,
            Self::Primary => !is_standby,
            Self::Standby => is_standby,
        }
    }
}

/// Everything about one connection. Its `Debug` shows no password.
#[derive(Clone)]
pub struct Target {
    /// Where it may lead, in order of preference.
    pub endpoints: Vec<Endpoint>,
    /// Whether the order is drawn by lot.
    pub is_shuffled: bool,
    /// The role.
    pub user: String,
    /// The database.
    pub database: String,
    /// The name that `pg_stat_activity` shows.
    pub application: String,
    /// What is set for the session, as for the server's command line.
    pub options: Option<String>,
    /// TLS.
    pub tls: Tls,
    /// How it lets us in.
    pub auth: Auth,
    /// Which servers will do.
    pub sessions: Sessions,
    /// The longest that one place may take; none for the default.
    pub connect_timeout: Option<Duration>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("endpoints", &self.endpoints)
            .field("is_shuffled", &self.is_shuffled)
            .field("user", &plain(&self.user))
            .field("database", &plain(&self.database))
            .field("application", &plain(&self.application))
            .field(
                "options",
                &self.options.as_ref().map(|_| Secret(Vec::new())),
            )
            .field("tls", &self.tls)
            .field("auth", &self.auth)
            .field("sessions", &self.sessions)
            .field("connect_timeout", &self.connect_timeout)
            .finish()
    }
}
