//! The service file: sections of `name=value`, which give what nobody else has given.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::Surroundings;
use super::error::ConninfoError;
use super::given::Given;
use super::pairs::is_space;
use super::{keyword, path};

/// Where the installed libpq may have been told, as it was built, to look.
const SYSTEM: [&str; 2] = ["/etc/postgresql-common", "/usr/local/pgsql/etc"];
const NAME: &str = "pg_service.conf";

/// Fills up with what the service gives.
pub(super) fn fill(given: &mut Given, surroundings: &Surroundings) -> Result<(), ConninfoError> {
    let value = |name: &str, variable: &str| {
        given
            .get(name)
            .map(<[u8]>::to_vec)
            .or_else(|| surroundings.variable(variable).map(<[u8]>::to_vec))
    };
    let Some(service) = value("service", "PGSERVICE") else {
        return Ok(());
    };
    let mut files = Vec::new();
    match value("servicefile", "PGSERVICEFILE") {
        Some(named) => {
            let file = path(&named);
            if let Err(error) = fs::metadata(&file) {
                return Err(unreadable(&file, error.kind()));
            }
            files.push(file);
        }
        None => files.extend(
            surroundings
                .home
                .as_ref()
                .map(|home| home.join(".pg_service.conf")),
        ),
    }
    match surroundings.variable("PGSYSCONFDIR") {
        Some(directory) => files.push(path(directory).join(NAME)),
        None => files.extend(
            SYSTEM
                .iter()
                .map(|directory| Path::new(directory).join(NAME)),
        ),
    }
    for file in files {
        if fs::metadata(&file).is_ok() && section(given, &service, &file)? {
            return Ok(());
        }
    }
    Err(ConninfoError::new(
        "the service that is named (service, PGSERVICE) is in no service file",
    ))
}

/// Fills up with a section of a file; says whether it is there.
fn section(given: &mut Given, service: &[u8], file: &Path) -> Result<bool, ConninfoError> {
    let content = fs::read(file).map_err(|error| unreadable(file, error.kind()))?;
    let mut is_inside = false;
    for (n, line) in content.split(|byte| *byte == b'\n').enumerate() {
        let line = trimmed(line);
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        if let Some(name) = line.strip_prefix(b"[") {
            if is_inside {
                return Ok(true);
            }
            is_inside = name
                .strip_prefix(service)
                .is_some_and(|rest| rest.starts_with(b"]"));
            continue;
        }
        if !is_inside {
            continue;
        }
        let wrong = |what: &str| {
            let place = format!("{}, line {}", file.display(), n + 1);
            Err(ConninfoError::new(format!("{place}: {what}")))
        };
        let Some(at) = line.iter().position(|byte| *byte == b'=') else {
            return wrong("this is no name=value (a service that LDAP gives is not asked for)");
        };
        let (name, value) = (
            std::str::from_utf8(&line[..at]).unwrap_or_default(),
            &line[at + 1..],
        );
        if matches!(name, "service" | "servicefile") {
            return wrong("a service names no other");
        }
        if keyword::named(name).is_none() {
            return wrong("this keyword is none of libpq's that the control plane knows");
        }
        given.fill(name, value);
    }
    Ok(is_inside)
}

/// A line without what C calls spaces around it.
fn trimmed(line: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !is_space(*byte);
    let from = line.iter().position(is_text).unwrap_or(line.len());
    let to = line.iter().rposition(is_text).map_or(from, |last| last + 1);
    &line[from..to]
}

fn unreadable(file: &Path, why: ErrorKind) -> ConninfoError {
    ConninfoError::new(format!(
        "the service file {} cannot be read: {why}",
        file.display()
    ))
}
