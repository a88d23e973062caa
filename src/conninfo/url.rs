//! A URL, as libpq reads it; and `SQLAlchemy`'s forms: a driver in the scheme, several `host=name:port`, `plugin=`.
//!
//! Source: `conninfo_uri_parse_options`, `conninfo_uri_parse_params` and `conninfo_uri_decode` in `fe-connect.c` of
//! `PostgreSQL` 18.

use super::error::ConninfoError;
use super::given::Given;
use super::pairs;

/// What the scheme says of a URL's writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// libpq's own: of several `host=` the last counts.
    Plain,
    /// With a driver, which `SQLAlchemy` alone writes: several `host=` are a list.
    WithDriver,
}

/// The scheme of a URL of a `PostgreSQL` database, and what follows it; none for another text.
pub(super) fn split(text: &[u8]) -> Option<(Scheme, &[u8])> {
    let at = text.windows(3).position(|three| three == b"://")?;
    let (scheme, rest) = text.split_at(at);
    let (name, driver) = cut(scheme, b'+');
    let is_word = |word: &[u8]| {
        word.iter()
            .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
    };
    let is_ours = matches!(name, b"postgres" | b"postgresql") && driver.is_none_or(is_word);
    let scheme = match driver {
        None => Scheme::Plain,
        Some(_) => Scheme::WithDriver,
    };
    is_ours.then_some((scheme, rest.get(3..).unwrap_or_default()))
}

pub(super) fn parse(scheme: Scheme, body: &[u8]) -> Result<Given, ConninfoError> {
    let mut given = Given::default();
    // A password may hold a `?`: it ends at the first `@` or `/`.
    let rest = match body.iter().position(|byte| b"@/".contains(byte)) {
        Some(n) if body[n] == b'@' => {
            let (user, password) = cut(&body[..n], b':');
            store(&mut given, "user", user)?;
            store(&mut given, "password", password.unwrap_or_default())?;
            &body[n + 1..]
        }
        _ => body,
    };
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    let rest = places(rest, &mut hosts, &mut ports)?;
    let (database, query) = match rest.split_first() {
        Some((b'/', after)) => cut(after, b'?'),
        Some((_, query)) => (&[][..], Some(query)),
        None => (&[][..], None),
    };
    // libpq ends the password at the first `@` or `/`, SQLAlchemy at another: what either would take for a host or
    // a database may be the rest of a password.
    if [&hosts, &ports, database]
        .iter()
        .any(|text| text.contains(&b'@'))
    {
        return Err(ConninfoError::new(
            "a URL has a second @, or one after a / (not shown: it may be a piece of the password): write %40 for an \
             @ and %2F for a / in names and passwords",
        ));
    }
    store(&mut given, "host", &hosts)?;
    store(&mut given, "port", &ports)?;
    store(&mut given, "dbname", database)?;
    parameters(&mut given, scheme, query.unwrap_or_default())?;
    Ok(given)
}

/// Stores what stands before the query: where nothing stands, nothing was given.
fn store(given: &mut Given, name: &str, text: &[u8]) -> Result<(), ConninfoError> {
    if !text.is_empty() {
        given.set(name, decoded(text)?);
    }
    Ok(())
}

/// Reads `name:port,[address]:port,…` into the list of hosts and that of ports; returns what follows.
fn places<'a>(
    text: &'a [u8],
    hosts: &mut Vec<u8>,
    ports: &mut Vec<u8>,
) -> Result<&'a [u8], ConninfoError> {
    let mut rest = text;
    loop {
        let host;
        if let Some(bracketed) = rest.strip_prefix(b"[") {
            let (address, after) = cut(bracketed, b']');
            rest = after.ok_or_else(bracket)?;
            if address.is_empty() || rest.first().is_some_and(|byte| !b":/?,".contains(byte)) {
                return Err(bracket());
            }
            host = address;
        } else {
            (host, rest) = until(rest, b":/?,");
        }
        hosts.extend_from_slice(host);
        if let Some(after) = rest.strip_prefix(b":") {
            let port;
            (port, rest) = until(after, b"/?,");
            ports.extend_from_slice(port);
        }
        let Some(after) = rest.strip_prefix(b",") else {
            return Ok(rest);
        };
        hosts.push(b',');
        ports.push(b',');
        rest = after;
    }
}

fn parameters(given: &mut Given, scheme: Scheme, query: &[u8]) -> Result<(), ConninfoError> {
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    // SQLAlchemy reads a + in a query as a space, and leaves out what has no value.
    let is_libpq_s = scheme == Scheme::Plain;
    let spaced = query.split(|byte| *byte == b'+').collect::<Vec<_>>();
    let query = spaced.join(if is_libpq_s { &b"+"[..] } else { b"%20" });
    let mut rest = Some(query.as_slice());
    while let Some(text) = rest.filter(|text| !text.is_empty()) {
        let (pair, after) = cut(text, b'&');
        rest = after;
        let (name, value) = cut(pair, b'=');
        let value = value
            .filter(|value| !value.contains(&b'='))
            .ok_or_else(|| ConninfoError::new("a parameter of a URL has no =, or two"))?;
        let (name, value) = (decoded(name)?, decoded(value)?);
        if value.is_empty() && !is_libpq_s {
            continue;
        }
        match name.as_slice() {
            b"host" => hosts.push(value),
            b"port" => ports.push(value),
            b"plugin" => {}
            b"ssl" if value == b"true" => given.set("sslmode", "require"),
            name => pairs::set(given, name, value)?,
        }
    }
    // A name with a port in it can be no host of libpq's: that is SQLAlchemy's form, whatever the scheme.
    let listed = hosts
        .iter()
        .flat_map(|host| host.split(|byte| *byte == b','));
    let split: Vec<_> = listed.map(split_port).collect();
    if ports.is_empty() && split.iter().any(|(_, port)| !port.is_empty()) {
        given.set(
            "host",
            split
                .iter()
                .map(|(host, _)| *host)
                .collect::<Vec<_>>()
                .join(&b','),
        );
        given.set(
            "port",
            split
                .iter()
                .map(|(_, port)| *port)
                .collect::<Vec<_>>()
                .join(&b','),
        );
        return Ok(());
    }
    for (name, values) in [("host", hosts), ("port", ports)] {
        let value = match (scheme, values.as_slice()) {
            (_, []) => continue,
            (Scheme::Plain, [.., last]) => last.clone(),
            (Scheme::WithDriver, all) => all.join(&b','),
        };
        given.set(name, value);
    }
    Ok(())
}

/// A host's name, and the port behind it. A socket's directory has none, and an IPv6 address more colons.
fn split_port(host: &[u8]) -> (&[u8], &[u8]) {
    let is_name = !host.starts_with(b"/") && !host.starts_with(b"@");
    match cut(host, b':') {
        (name, Some(port)) if is_name && !port.contains(&b':') => (name, port),
        _ => (host, &[]),
    }
}

fn cut(text: &[u8], at: u8) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|byte| *byte == at) {
        Some(n) => (&text[..n], Some(&text[n + 1..])),
        None => (text, None),
    }
}

fn until<'a>(text: &'a [u8], ends: &[u8]) -> (&'a [u8], &'a [u8]) {
    let end = text.iter().position(|byte| ends.contains(byte));
    text.split_at(end.unwrap_or(text.len()))
}

fn decoded(text: &[u8]) -> Result<Vec<u8>, ConninfoError> {
    let mut bytes = Vec::new();
    // Spaces before and after are left out.
    let from = text.iter().position(|byte| *byte != b' ');
    let mut rest = text.get(from.unwrap_or(text.len())..).unwrap_or_default();
    while let Some((first, after)) = rest.split_first() {
        if *first == b' ' {
            if rest.iter().all(|byte| *byte == b' ') {
                break;
            }
            return Err(ConninfoError::new(
                "a URL has a space inside a part of it: write %20 for a space",
            ));
        }
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
    ConninfoError::new(
        "a URL has a [ without its ], nothing between them, or something between ] and the port",
    )
}
