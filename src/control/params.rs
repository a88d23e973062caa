//! How the control plane reaches a server: plain values, worked out by who knows the application's.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// One place where the server, or one of a cluster, may be.
#[derive(Clone)]
pub struct Endpoint {
    /// A name, an address, or the directory of a unix socket.
    pub host: String,
    /// The address to use in place of looking the name up.
    pub hostaddr: Option<String>,
    /// The port.
    pub port: u16,
    /// The password for this place.
    pub password: Option<String>,
}

impl Endpoint {
    /// Whether it is a unix socket.
    pub fn is_local(&self) -> bool {
        self.host.starts_with(['/', '@'])
    }

    /// How it is called in an error.
    pub fn shown(&self) -> String {
        if self.is_local() {
            return self.path();
        }
        match &self.hostaddr {
            Some(address) if *address != self.host => {
                format!("{}:{} ({address})", self.host, self.port)
            }
            _ => format!("{}:{}", self.host, self.port),
        }
    }

    /// The path of its unix socket.
    pub fn path(&self) -> String {
        format!("{}/.s.PGSQL.{}", self.host, self.port)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

/// What libpq calls `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// When the server offers it; not checked.
    Prefer,
    /// Always; not checked, unless root certificates are given.
    Require,
    /// Always, and the certificate's issuer is checked.
    VerifyCa,
    /// Always, and issuer and name are checked.
    VerifyFull,
}

impl TlsMode {
    /// The mode of that name; libpq's `allow` counts as `prefer`.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "disable" => Self::Disable,
            "allow" | "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => return None,
        })
    }
}

/// TLS: whether, and what is checked by what.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Whether, and what is checked.
    pub mode: TlsMode,
    /// Root certificates, in PEM.
    pub roots: Option<PathBuf>,
    /// The client's certificate and its key, in PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Everything about one server. Its `Debug` shows no password.
#[derive(Clone, Debug)]
pub struct Params {
    /// Where it may be, in order of preference.
    pub endpoints: Vec<Endpoint>,
    /// The role.
    pub user: String,
    /// The database.
    pub database: String,
    /// The name that `pg_stat_activity` shows.
    pub application: String,
    /// Libpq's `options`, where given.
    pub options: Option<String>,
    /// TLS.
    pub tls: Tls,
    /// Take a server only when it accepts writes.
    pub writable_only: bool,
    /// The longest that one place may take to connect.
    pub connect_within: Duration,
    /// Connections at most.
    pub size: usize,
}
