//! From what is given to where a connection leads.

use std::path::PathBuf;
use std::time::Duration;

use super::auth::{Auth, Binding};
use super::error::ConninfoError;
use super::given::Given;
use super::keyword::{self, KEYWORDS, Treatment};
use super::target::{Endpoint, Roots, Secret, Sessions, Target, Tls, TlsMode, TlsVersion};
use super::{Surroundings, passfile, path, service, unknown};

const HOME: &str = ".postgresql";
const DEFAULT_PORT: &str = "5432";

const MODES: [(&str, TlsMode); 6] = [
    ("disable", TlsMode::Disable),
    ("allow", TlsMode::Allow),
    ("prefer", TlsMode::Prefer),
    ("require", TlsMode::Require),
    ("verify-ca", TlsMode::VerifyCa),
    ("verify-full", TlsMode::VerifyFull),
];
const VERSIONS: [(&str, TlsVersion); 4] = [
    ("tlsv1", TlsVersion::V1_0),
    ("tlsv1.1", TlsVersion::V1_1),
    ("tlsv1.2", TlsVersion::V1_2),
    ("tlsv1.3", TlsVersion::V1_3),
];
const BINDINGS: [(&str, Binding); 3] = [
    ("disable", Binding::Disable),
    ("prefer", Binding::Prefer),
    ("require", Binding::Require),
];
const CERTIFICATES: [(&str, Certificates); 3] = [
    ("disable", Certificates::Disable),
    ("allow", Certificates::Allow),
    ("require", Certificates::Require),
];
const SESSIONS: [(&str, Sessions); 6] = [
    ("any", Sessions::Any),
    ("read-write", Sessions::ReadWrite),
    ("read-only", Sessions::ReadOnly),
    ("primary", Sessions::Primary),
    ("standby", Sessions::Standby),
    ("prefer-standby", Sessions::PreferStandby),
];

/// What libpq calls `sslcertmode`: whether our certificate is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Certificates {
    Disable,
    Allow,
    Require,
}

pub(super) fn resolve(given: &Given, around: &Surroundings) -> Result<Target, ConninfoError> {
    let values = Values::filled(given, around)?;
    values.refuse()?;
    let user = match values.text("user")? {
        user if !user.is_empty() => user,
        _ => around.user.clone().ok_or_else(|| {
            ConninfoError::new(
                "no user is given, and the system has no name for this process's: give user",
            )
        })?,
    };
    let database = match values.text("dbname")? {
        database if !database.is_empty() => database,
        _ => user.clone(),
    };
    let application = match values.text("application_name")? {
        name if !name.is_empty() => name,
        _ => values.text("fallback_application_name")?,
    };
    let auth = values.auth()?;
    let tls = values.tls(around)?;
    Ok(Target {
        endpoints: values.endpoints(around, &user, &database)?,
        is_shuffled: values.choice(
            "load_balance_hosts",
            &[("disable", false), ("random", true)],
        )?,
        user,
        database,
        application,
        options: Some(values.text("options")?).filter(|options| !options.is_empty()),
        tls,
        auth,
        sessions: values.choice("target_session_attrs", &SESSIONS)?,
        connect_timeout: values.timeout()?,
    })
}

/// A value for every keyword, empty for none.
struct Values(Given);

impl Values {
    fn filled(given: &Given, around: &Surroundings) -> Result<Self, ConninfoError> {
        for (name, value) in given.iter() {
            let is_newer = around.newer.iter().any(|(newer, _)| newer == name);
            if keyword::named(name).is_none() && !is_newer {
                return Err(unknown(name));
            }
            if value.contains(&0) {
                return Err(ConninfoError::new(format!("{name} holds a byte 0")));
            }
        }
        let mut given = given.clone();
        service::fill(&mut given, around)?;
        for keyword in KEYWORDS {
            if let Some(value) = around.variable(keyword.variable) {
                given.fill(keyword.name, value);
            }
        }
        for (name, variable) in &around.newer {
            if let Some(value) = around.variable(variable) {
                given.fill(name, value);
            }
        }
        // An old word for a mode; and the system's roots are many: the name must be checked too.
        if around
            .variable("PGREQUIRESSL")
            .is_some_and(|value| value.starts_with(b"1"))
        {
            given.fill("sslmode", "require");
        }
        if given.get("sslrootcert") == Some(b"system") {
            given.fill("sslmode", "verify-full");
        }
        for keyword in KEYWORDS {
            let built = around.defaults.get(keyword.name).map(Vec::as_slice);
            given.fill(keyword.name, built.unwrap_or(keyword.default.as_bytes()));
        }
        Ok(Self(given))
    }

    fn refuse(&self) -> Result<(), ConninfoError> {
        for (name, value) in self.0.iter().filter(|(_, value)| !value.is_empty()) {
            match keyword::named(name).map(|keyword| keyword.treatment) {
                None => return Err(unknown(name)),
                Some(Treatment::Refused(why, harmless)) => {
                    let is_harmless = harmless.split(' ').any(|word| word.as_bytes() == value);
                    if !is_harmless {
                        return Err(ConninfoError::new(format!(
                            "{name} is set, but {why}: libpq would be stricter than the control plane"
                        )));
                    }
                }
                Some(Treatment::Taken | Treatment::NoEffect(_)) => {}
            }
        }
        Ok(())
    }

    fn get(&self, name: &str) -> &[u8] {
        self.0.get(name).unwrap_or_default()
    }

    fn text(&self, name: &str) -> Result<String, ConninfoError> {
        let text = std::str::from_utf8(self.get(name)).map(str::to_owned);
        text.map_err(|_| ConninfoError::new(format!("{name} holds bytes that are not UTF-8")))
    }

    fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<T, ConninfoError> {
        let value = self.get(name);
        let found = choices.iter().find(|(word, _)| word.as_bytes() == value);
        found.map(|(_, choice)| *choice).ok_or_else(|| {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            ConninfoError::value(name, value, &words)
        })
    }

    fn version(&self, name: &str) -> Result<Option<TlsVersion>, ConninfoError> {
        let value = self.get(name).to_ascii_lowercase();
        if value.is_empty() {
            return Ok(None);
        }
        let found = VERSIONS.iter().find(|(word, _)| word.as_bytes() == value);
        found.map(|(_, version)| Some(*version)).ok_or_else(|| {
            ConninfoError::value(name, b"?", &["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"])
        })
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        let value = self.get(name);
        (!value.is_empty()).then(|| path(value))
    }

    fn timeout(&self) -> Result<Option<Duration>, ConninfoError> {
        let value = self.get("connect_timeout").trim_ascii();
        if value.is_empty() {
            return Ok(None);
        }
        let seconds = std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse::<i32>().ok());
        let seconds = seconds.ok_or_else(|| {
            ConninfoError::new("connect_timeout must be a whole number of seconds")
        })?;
        let seconds = u64::try_from(seconds).unwrap_or(0);
        Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
    }

    fn auth(&self) -> Result<Auth, ConninfoError> {
        let mut auth = Auth::allowing(self.get("require_auth"))?;
        auth.binding = self.choice("channel_binding", &BINDINGS)?;
        auth.wants_certificate =
            self.choice("sslcertmode", &CERTIFICATES)? == Certificates::Require;
        auth.peer = Some(self.text("requirepeer")?).filter(|peer| !peer.is_empty());
        Ok(auth)
    }

    fn tls(&self, around: &Surroundings) -> Result<Tls, ConninfoError> {
        let mode = self.choice("sslmode", &MODES)?;
        let is_direct = self.choice("sslnegotiation", &[("postgres", false), ("direct", true)])?;
        if is_direct && mode < TlsMode::Require {
            return Err(ConninfoError::new(
                "sslnegotiation=direct needs sslmode require, verify-ca or verify-full",
            ));
        }
        let home = around.home.as_ref().map(|home| home.join(HOME));
        let at_home = |name: &str| home.as_ref().map(|home| home.join(name));
        let roots = match self.get("sslrootcert") {
            b"system" if mode != TlsMode::VerifyFull => {
                return Err(ConninfoError::new(
                    "sslrootcert=system trusts many: it needs sslmode verify-full",
                ));
            }
            b"system" => {
                let named = |name: &str| around.variable(name).map(path);
                Roots::System(named("SSL_CERT_FILE"), named("SSL_CERT_DIR"))
            }
            b"" => at_home("root.crt").map_or(Roots::Nowhere, Roots::File),
            file => Roots::File(path(file)),
        };
        let mut revoked = (self.file("sslcrl"), self.file("sslcrldir"));
        if revoked == (None, None) {
            revoked.0 = at_home("root.crl");
        }
        let lowest = self.version("ssl_min_protocol_version")?;
        let highest = self.version("ssl_max_protocol_version")?;
        if lowest
            .zip(highest)
            .is_some_and(|(lowest, highest)| lowest > highest)
        {
            return Err(ConninfoError::new(
                "ssl_min_protocol_version is above ssl_max_protocol_version",
            ));
        }
        let sends = self.choice("sslcertmode", &CERTIFICATES)? != Certificates::Disable;
        let certificate = self.file("sslcert").or_else(|| at_home("postgresql.crt"));
        let key = self.file("sslkey").or_else(|| at_home("postgresql.key"));
        if self.get("sslkey").contains(&b':') {
            return Err(ConninfoError::new(
                "sslkey names a key of an engine, but keys are read from files",
            ));
        }
        let key_password = self.get("sslpassword");
        Ok(Tls {
            mode,
            is_direct,
            says_name: self.get("sslsni").starts_with(b"1"),
            roots,
            revoked,
            certificate: certificate.filter(|_| sends),
            key,
            key_password: (!key_password.is_empty()).then(|| Secret(key_password.to_vec())),
            lowest,
            highest,
        })
    }

    fn endpoints(
        &self,
        around: &Surroundings,
        user: &str,
        database: &str,
    ) -> Result<Vec<Endpoint>, ConninfoError> {
        let list = |name| {
            let text = self.text(name)?;
            let parts: Vec<_> = text.split(',').map(str::to_owned).collect();
            Ok::<_, ConninfoError>(if text.is_empty() { Vec::new() } else { parts })
        };
        let (hosts, addresses, ports) = (list("host")?, list("hostaddr")?, list("port")?);
        let count = match (hosts.len(), addresses.len()) {
            (0, 0) => 1,
            (hosts, 0) => hosts,
            (0, addresses) => addresses,
            (hosts, addresses) if hosts == addresses => hosts,
            (hosts, addresses) => {
                return Err(ConninfoError::new(format!(
                    "there are {hosts} hosts and {addresses} hostaddr"
                )));
            }
        };
        if ports.len() > 1 && ports.len() != count {
            return Err(ConninfoError::new(format!(
                "there are {} ports for {count} hosts: give as many, or one for all",
                ports.len()
            )));
        }
        let passwords = self.passwords(around);
        let mut found = Vec::new();
        for n in 0..count {
            let port = ports.get(if ports.len() > 1 { n } else { 0 });
            let port = port.map(|port| port.trim()).filter(|port| !port.is_empty());
            let port = port.unwrap_or(DEFAULT_PORT);
            let number = port.parse().ok().filter(|number: &u16| *number > 0);
            let number = number.ok_or_else(|| {
                ConninfoError::new("a port is no number from 1 to 65535 (not shown: it may be a piece of a password)")
            })?;
            let address = addresses
                .get(n)
                .filter(|address| !address.is_empty())
                .cloned();
            let mut host = hosts.get(n).cloned().unwrap_or_default();
            if host.is_empty() && address.is_none() {
                host = around.sockets.to_string_lossy().into_owned();
            }
            let named = match &address {
                Some(address) if host.is_empty() => address,
                _ if around.sockets.as_os_str() == host.as_str() => "localhost",
                _ => &host,
            };
            let wanted = [named, port, database, user].map(str::as_bytes);
            let password = match &passwords {
                Passwords::One(password) => Some(password.clone()),
                Passwords::File(content) => passfile::find(content, wanted).map(Secret),
            };
            found.push(Endpoint {
                host,
                hostaddr: address,
                port: number,
                password: password.filter(|password| !password.0.is_empty()),
            });
        }
        Ok(found)
    }

    fn passwords(&self, around: &Surroundings) -> Passwords {
        let own = self.get("password");
        if !own.is_empty() {
            return Passwords::One(Secret(own.to_vec()));
        }
        let file = self.file("passfile");
        let file = file.or_else(|| around.home.as_ref().map(|home| home.join(".pgpass")));
        Passwords::File(
            file.and_then(|file| passfile::read(&file))
                .unwrap_or_default(),
        )
    }
}

/// Where passwords come from.
enum Passwords {
    One(Secret),
    File(Vec<u8>),
}
