//! A URL, as libpq reads it; and `SQLAlchemy`'s forms: a driver in the scheme, several `host=name:port`, `plugin=`.

use super::error::ConninfoError;
use super::given::Given;
use super::pairs;

/// What follows the scheme of a URL of a `PostgreSQL` database; none for another text.
pub(super) fn body(text: &[u8]) -> Option<&[u8]> {
    let at = text.windows(3).position(|three| three == b"://")?;
    let (scheme, rest) = text.split_at(at);
    let name = scheme.split(|byte| *byte == b'+').next()?;
    let is_ours = matches!(name, b"postgres" | b"postgresql")
        && scheme
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+_".contains(byte));
    is_ours.then_some(rest.get(3..).unwrap_or_default())
}

pub(super) fn parse(body: &[u8]) -> Result<Given, ConninfoError> {
    // A password may hold a `?`: it ends at the first `@` or `/`.
    let (person, body) = match body.iter().position(|byte| b"@/".contains(byte)) {
        Some(n) if body[n] == b'@' => (Some(&body[..n]), &body[n + 1..]),
        _ => (None, body),
    };
    let (body, query) = cut(body, b'?');
    let (hosts, database) = match body.iter().position(|byte| *byte == b'/') {
        Some(n) => (&body[..n], Some(&body[n + 1..])),
        None => (body, None),
    };
    // libpq ends the password at the first `@` or `/`, SQLAlchemy at another: what either would take for a host or
    // a database may be the rest of a password.
    let is_doubtful = hosts.contains(&b'@') || database.is_some_and(|name| name.contains(&b'@'));
    if is_doubtful {
        return Err(ConninfoError::new(
            "a URL has a second @, or one after a / (not shown: it may be a piece of the password): write %40 for an \
             @ and %2F for a / in names and passwords",
        ));
    }
    let mut given = Given::default();
    if let Some(person) = person {
        let at = person.iter().position(|byte| *byte == b':');
        let user = at.map_or(person, |n| &person[..n]);
        if !user.is_empty() {
            given.set("user", decoded(user)?);
        }
        if let Some(password) = at.map(|n| &person[n + 1..]).filter(|text| !text.is_empty()) {
            given.set("password", decoded(password)?);
        }
    }
    places(&mut given, hosts)?;
    if let Some(database) = database.filter(|name| !name.is_empty()) {
        given.set("dbname", decoded(database)?);
    }
    parameters(&mut given, query)?;
    Ok(given)
}

/// Reads `name:port,[address]:port,…`.
fn places(given: &mut Given, text: &[u8]) -> Result<(), ConninfoError> {
    if text.is_empty() {
        return Ok(());
    }
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for place in text.split(|byte| *byte == b',') {
        let (host, port) = if let Some(rest) = place.strip_prefix(b"[") {
            let (host, after) = cut(rest, b']');
            match after.ok_or_else(bracket)?.split_first() {
                None => (host, &[][..]),
                Some((b':', port)) => (host, port),
                Some(_) => return Err(bracket()),
            }
        } else {
            let (host, port) = cut(place, b':');
            (host, port.unwrap_or_default())
        };
        hosts.push(decoded(host)?);
        ports.push(decoded(port)?);
    }
    keep(given, "host", &hosts);
    keep(given, "port", &ports);
    Ok(())
}

fn parameters(given: &mut Given, query: Option<&[u8]>) -> Result<(), ConninfoError> {
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for pair in query.unwrap_or_default().split(|byte| *byte == b'&') {
        if pair.is_empty() {
            continue;
        }
        let (name, value) = cut(pair, b'=');
        let value =
            decoded(value.ok_or_else(|| ConninfoError::new("a parameter of a URL has no ="))?)?;
        match name {
            b"host" => hosts.extend(value.split(|byte| *byte == b',').map(<[u8]>::to_vec)),
            b"port" => ports.extend(value.split(|byte| *byte == b',').map(<[u8]>::to_vec)),
            b"plugin" => {}
            b"ssl" if value == b"true" => given.set("sslmode", "require"),
            name => pairs::set(given, &decoded(name)?, value)?,
        }
    }
    if !hosts.is_empty() && ports.is_empty() {
        // SQLAlchemy's form. A socket's directory has no port in it, and an IPv6 address more colons.
        let split: Vec<_> = hosts.iter().map(|host| split_port(host)).collect();
        if split.iter().any(|(_, port)| !port.is_empty()) {
            ports = split.iter().map(|(_, port)| port.to_vec()).collect();
            hosts = split.iter().map(|(host, _)| host.to_vec()).collect();
        }
    }
    if !hosts.is_empty() {
        keep(given, "host", &hosts);
    }
    if !ports.is_empty() {
        keep(given, "port", &ports);
    }
    Ok(())
}

fn split_port(host: &[u8]) -> (&[u8], &[u8]) {
    let is_name = !host.starts_with(b"/") && !host.starts_with(b"@");
    match host.iter().position(|byte| *byte == b':') {
        Some(n) if is_name && !host[n + 1..].contains(&b':') => (&host[..n], &host[n + 1..]),
        _ => (host, &[]),
    }
}

fn keep(given: &mut Given, name: &str, values: &[Vec<u8>]) {
    if values.iter().any(|value| !value.is_empty()) {
        given.set(name, values.join(&b','));
    }
}

fn cut(text: &[u8], at: u8) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|byte| *byte == at) {
        Some(n) => (&text[..n], Some(&text[n + 1..])),
        None => (text, None),
    }
}

fn decoded(text: &[u8]) -> Result<Vec<u8>, ConninfoError> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let digits = after
            .get(..2)
            .filter(|two| two.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|two| std::str::from_utf8(two).ok());
        let byte = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        match byte {
            Some(byte) if byte != 0 => bytes.push(byte),
            _ => {
                return Err(ConninfoError::new(
                    "a URL has a % that two hexadecimal digits do not follow: write %25 for a %",
                ));
            }
        }
        rest = &after[2..];
    }
    Ok(bytes)
}

fn bracket() -> ConninfoError {
    ConninfoError::new("a URL has a [ without its ], or something between ] and the port")
}
