//! How a server may let us in: `require_auth`, `channel_binding`, `sslcertmode` and `requirepeer`.

use super::error::ConninfoError;

/// A way in which a server asks who we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The password in clear.
    Password,
    /// Its MD5 hash.
    Md5,
    /// GSSAPI.
    Gss,
    /// SSPI.
    Sspi,
    /// SCRAM-SHA-256, with channel binding or without.
    Scram,
    /// OAuth.
    Oauth,
    /// It does not ask.
    None,
}

const METHODS: [(&str, Method); 7] = [
    ("password", Method::Password),
    ("md5", Method::Md5),
    ("gss", Method::Gss),
    ("sspi", Method::Sspi),
    ("scram-sha-256", Method::Scram),
    ("oauth", Method::Oauth),
    ("none", Method::None),
];

/// Whether a password is bound to the TLS session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Binding {
    /// Never.
    Disable,
    /// Where both can.
    #[default]
    Prefer,
    /// Always; nobody else is let near the password.
    Require,
}

/// What is asked of a server before it is answered.
#[derive(Clone, Debug, Default)]
pub struct Auth {
    /// The methods that are allowed; none for all.
    allowed: Option<Vec<Method>>,
    /// Channel binding.
    pub binding: Binding,
    /// Whether it must ask for our certificate, and be sent one.
    pub wants_certificate: bool,
    /// The system's user as whom it must run, where it is reached by a unix socket.
    pub peer: Option<String>,
}

impl Auth {
    /// Whether `method` is allowed.
    pub fn allows(&self, method: Method) -> bool {
        self.allowed
            .as_ref()
            .is_none_or(|allowed| allowed.contains(&method))
    }

    pub(super) fn allowing(require: &[u8]) -> Result<Self, ConninfoError> {
        let allowed = match require {
            [] => None,
            require => Some(methods(require)?),
        };
        Ok(Self {
            allowed,
            ..Self::default()
        })
    }
}

fn methods(text: &[u8]) -> Result<Vec<Method>, ConninfoError> {
    let parts: Vec<_> = text.split(|byte| *byte == b',').collect();
    let is_negative = parts.iter().any(|part| part.starts_with(b"!"));
    let mut listed = Vec::new();
    for part in parts {
        let word = match part.strip_prefix(b"!") {
            Some(word) => word,
            None if is_negative => {
                return Err(ConninfoError::new(
                    "require_auth names methods with ! and without: give the ones to allow, or the ones to refuse",
                ));
            }
            None => part,
        };
        let known = METHODS.iter().find(|(name, _)| name.as_bytes() == word);
        let Some((name, method)) = known else {
            let all = METHODS.map(|(name, _)| name);
            return Err(ConninfoError::value("require_auth", word, &all));
        };
        if listed.contains(method) {
            return Err(ConninfoError::new(format!(
                "require_auth names {name} twice"
            )));
        }
        listed.push(*method);
    }
    if is_negative {
        let others = METHODS.iter().map(|(_, method)| *method);
        return Ok(others.filter(|method| !listed.contains(method)).collect());
    }
    Ok(listed)
}
