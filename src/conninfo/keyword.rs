//! Every keyword of libpq (`PostgreSQL` 18, and `servicefile`, which asyncpg has), and what becomes of it here.
//!
//! A keyword that makes libpq stricter is taken or refused by its name; none is left out in silence.
//! `docs/security.md` shows this table; a test compares them.

/// What becomes of a keyword.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// It means what it means to libpq.
    Taken,
    /// It has nothing to act on, and the reason.
    NoEffect(&'static str),
    /// Whoever gives it is told so, with the reason. The values listed, separated by a space, are those by which
    /// libpq becomes no stricter; they are allowed.
    Refused(&'static str, &'static str),
}

/// A keyword: its name, its environment variable, libpq's compiled-in default, what becomes of it.
#[derive(Clone, Copy, Debug)]
pub struct Keyword {
    /// As it is written in a connection string.
    pub name: &'static str,
    /// The variable that stands in for it; empty for none.
    pub variable: &'static str,
    /// The value where nobody gives one; empty for none.
    pub default: &'static str,
    /// What becomes of it.
    pub treatment: Treatment,
}

const fn taken(name: &'static str, variable: &'static str, default: &'static str) -> Keyword {
    Keyword {
        name,
        variable,
        default,
        treatment: Treatment::Taken,
    }
}

const fn idle(name: &'static str, variable: &'static str, why: &'static str) -> Keyword {
    Keyword {
        name,
        variable,
        default: "",
        treatment: Treatment::NoEffect(why),
    }
}

const fn refused(
    name: &'static str,
    variable: &'static str,
    harmless: &'static str,
    why: &'static str,
) -> Keyword {
    Keyword {
        name,
        variable,
        default: "",
        treatment: Treatment::Refused(why, harmless),
    }
}

const DEADLINES: &str = "each operation has a deadline, which ends it whatever the socket does";
const GSS: &str = "a server that asks for GSSAPI is refused";
const OAUTH: &str = "a server that asks for OAuth is refused";

/// The keywords, in libpq's order.
pub const KEYWORDS: &[Keyword] = &[
    taken("service", "PGSERVICE", ""),
    taken("servicefile", "PGSERVICEFILE", ""),
    taken("user", "PGUSER", ""),
    taken("password", "PGPASSWORD", ""),
    taken("passfile", "PGPASSFILE", ""),
    taken("channel_binding", "PGCHANNELBINDING", "prefer"),
    taken("connect_timeout", "PGCONNECT_TIMEOUT", ""),
    taken("dbname", "PGDATABASE", ""),
    taken("host", "PGHOST", ""),
    taken("hostaddr", "PGHOSTADDR", ""),
    taken("port", "PGPORT", "5432"),
    idle(
        "client_encoding",
        "PGCLIENTENCODING",
        "the control plane speaks UTF-8",
    ),
    taken("options", "PGOPTIONS", ""),
    taken("application_name", "PGAPPNAME", ""),
    taken("fallback_application_name", "", ""),
    idle("keepalives", "", DEADLINES),
    idle("keepalives_idle", "", DEADLINES),
    idle("keepalives_interval", "", DEADLINES),
    idle("keepalives_count", "", DEADLINES),
    idle("tcp_user_timeout", "", DEADLINES),
    taken("sslmode", "PGSSLMODE", "prefer"),
    taken("sslnegotiation", "PGSSLNEGOTIATION", "postgres"),
    idle(
        "sslcompression",
        "PGSSLCOMPRESSION",
        "TLS is never compressed",
    ),
    taken("sslcert", "PGSSLCERT", ""),
    taken("sslkey", "PGSSLKEY", ""),
    taken("sslcertmode", "PGSSLCERTMODE", "allow"),
    taken("sslpassword", "", ""),
    taken("sslrootcert", "PGSSLROOTCERT", ""),
    taken("sslcrl", "PGSSLCRL", ""),
    taken("sslcrldir", "PGSSLCRLDIR", ""),
    taken("sslsni", "PGSSLSNI", "1"),
    taken("requirepeer", "PGREQUIREPEER", ""),
    taken("require_auth", "PGREQUIREAUTH", ""),
    refused(
        "min_protocol_version",
        "PGMINPROTOCOLVERSION",
        "3.0",
        "version 3.0 of the protocol is spoken",
    ),
    idle(
        "max_protocol_version",
        "PGMAXPROTOCOLVERSION",
        "version 3.0 of the protocol, the lowest, is spoken",
    ),
    taken(
        "ssl_min_protocol_version",
        "PGSSLMINPROTOCOLVERSION",
        "TLSv1.2",
    ),
    taken("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", ""),
    refused(
        "gssencmode",
        "PGGSSENCMODE",
        "disable prefer",
        "GSSAPI encryption is not spoken",
    ),
    idle("krbsrvname", "PGKRBSRVNAME", GSS),
    idle("gsslib", "PGGSSLIB", GSS),
    idle("gssdelegation", "PGGSSDELEGATION", GSS),
    refused(
        "replication",
        "",
        "false off no 0",
        "a session for replication takes no statements of leases",
    ),
    taken("target_session_attrs", "PGTARGETSESSIONATTRS", "any"),
    taken("load_balance_hosts", "PGLOADBALANCEHOSTS", "disable"),
    refused(
        "scram_client_key",
        "",
        "",
        "SCRAM begins with a password here",
    ),
    refused(
        "scram_server_key",
        "",
        "",
        "SCRAM begins with a password here",
    ),
    idle("oauth_issuer", "", OAUTH),
    idle("oauth_client_id", "", OAUTH),
    idle("oauth_client_secret", "", OAUTH),
    idle("oauth_scope", "", OAUTH),
    idle(
        "sslkeylogfile",
        "",
        "the keys of a session are written nowhere",
    ),
];

/// The keyword of that name.
pub fn named(name: &str) -> Option<&'static Keyword> {
    KEYWORDS.iter().find(|keyword| keyword.name == name)
}

impl Keyword {
    /// How the table shows what becomes of it.
    pub fn shown(&self) -> String {
        match self.treatment {
            Treatment::Taken => "taken".into(),
            Treatment::NoEffect(why) => format!("no effect here: {why}"),
            Treatment::Refused(why, "") => format!("refused: {why}"),
            Treatment::Refused(why, harmless) => {
                let values = harmless.replace(' ', ", ");
                format!("refused, but for {values}: {why}")
            }
        }
    }
}
