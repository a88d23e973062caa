//! A connection string of libpq as `name=value` pairs.

use super::error::ConninfoError;
use super::given::Given;
use super::keyword;

/// What C calls a space.
pub(super) fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

fn skip_spaces(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| !is_space(*byte));
    text.get(end.unwrap_or(text.len())..).unwrap_or_default()
}

/// Reads pairs.
///
/// # Errors
///
/// [`ConninfoError`]; it quotes nothing that may be a secret.
pub(super) fn parse(text: &[u8]) -> Result<Given, ConninfoError> {
    let mut given = Given::default();
    let mut rest = skip_spaces(text);
    while !rest.is_empty() {
        let end = rest
            .iter()
            .position(|byte| *byte == b'=' || is_space(*byte))
            .unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let after = skip_spaces(after);
        let Some((b'=', after)) = after.split_first() else {
            return Err(broken());
        };
        let after = skip_spaces(after);
        let (value, after) = match after.split_first() {
            Some((b'\'', after)) => quoted(after)?,
            _ => bare(after),
        };
        set(&mut given, name, value)?;
        rest = skip_spaces(after);
    }
    Ok(given)
}

/// Stores a pair that a text gave. A name that is unknown is shown when it cannot be a piece of a password with a
/// space in it: before there is one.
pub(super) fn set(given: &mut Given, name: &[u8], value: Vec<u8>) -> Result<(), ConninfoError> {
    let text = std::str::from_utf8(name).unwrap_or_default();
    let is_known = keyword::named(text).is_some() || text == "requiressl";
    if !is_known {
        let is_plain = !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let follows_a_secret =
            given.get("password").is_some() || given.get("sslpassword").is_some();
        return Err(if is_plain && !follows_a_secret {
            super::unknown(text)
        } else {
            ConninfoError::new(
                "a connection string holds a keyword that is none of libpq's (not shown: it may be a piece of a \
                 password; one with a space in it is written in quotes)",
            )
        });
    }
    given.set(text, value);
    Ok(())
}

fn quoted(text: &[u8]) -> Result<(Vec<u8>, &[u8]), ConninfoError> {
    let mut value = Vec::new();
    let mut n = 0;
    loop {
        match text.get(n) {
            None => return Err(broken()),
            Some(b'\'') => return Ok((value, text.get(n + 1..).unwrap_or_default())),
            Some(b'\\') => {
                n += 1;
                value.push(*text.get(n).ok_or_else(broken)?);
            }
            Some(byte) => value.push(*byte),
        }
        n += 1;
    }
}

fn bare(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut value = Vec::new();
    let mut n = 0;
    while let Some(byte) = text.get(n) {
        match byte {
            b'\\' => {
                n += 1;
                value.extend(text.get(n));
            }
            byte if is_space(*byte) => break,
            byte => value.push(*byte),
        }
        n += 1;
    }
    (value, text.get(n..).unwrap_or_default())
}

fn broken() -> ConninfoError {
    ConninfoError::new("a connection string must be a URL (postgresql://…) or name=value pairs")
}
