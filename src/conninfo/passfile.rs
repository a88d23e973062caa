//! The password file: `host:port:database:user:password`, the first line that fits.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What a line must fit: host, port, database, user.
pub(super) type Wanted<'a> = [&'a [u8]; 4];

/// More of a file is not read.
const MOST: u64 = 1 << 20;
const OTHERS: u32 = 0o077;

/// The lines of a password file; none where libpq leaves it alone: it is not there, is no plain file, cannot be read,
/// or others may read it.
pub(super) fn read(path: &Path) -> Option<Vec<u8>> {
    let about = fs::metadata(path).ok()?;
    if !about.is_file() || about.permissions().mode() & OTHERS != 0 {
        return None;
    }
    let mut content = Vec::new();
    let file = File::open(path).ok()?;
    file.take(MOST).read_to_end(&mut content).ok()?;
    Some(content)
}

/// The password of the first line that fits.
pub(super) fn find(content: &[u8], wanted: Wanted<'_>) -> Option<Vec<u8>> {
    content
        .split(|byte| *byte == b'\n')
        .map(unreturned)
        .filter(|line| !line.is_empty() && !line.starts_with(b"#"))
        .find_map(|line| {
            let mut rest = line;
            for value in wanted {
                rest = fits(rest, value)?;
            }
            Some(unescaped(rest))
        })
}

/// A line without the carriage returns at its end, however many.
fn unreturned(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|byte| *byte != b'\r');
    &line[..end.map_or(0, |end| end + 1)]
}

/// What follows the first field, if it fits.
fn fits<'a>(line: &'a [u8], value: &[u8]) -> Option<&'a [u8]> {
    if let Some(rest) = line.strip_prefix(b"*:") {
        return Some(rest);
    }
    let mut rest = line;
    for byte in value {
        let (first, after) = rest.split_first()?;
        // A colon that is not escaped is taken where one is wanted, as libpq does: `::1` needs no escapes.
        let (found, after) = match first {
            b'\\' => after.split_first()?,
            first => (first, after),
        };
        if found != byte {
            return None;
        }
        rest = after;
    }
    rest.strip_prefix(b":")
}

/// The last field: to its end, or to a colon.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut password = Vec::new();
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b':' => break,
            b'\\' => password.push(*bytes.next().unwrap_or(byte)),
            byte => password.push(*byte),
        }
    }
    password
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn a_colon_needs_no_escape_where_one_is_wanted() {
        let wanted = [b"::1".as_slice(), b"5432", b"db", b"app"];
        for line in ["::1:5432:db:app:pw", "\\:\\:1:5432:db:app:pw"] {
            assert_eq!(find(line.as_bytes(), wanted), Some(b"pw".to_vec()));
        }
        assert_eq!(find(b":1:5432:db:app:pw", wanted), None);
    }

    #[test]
    fn carriage_returns_at_its_end_are_no_part_of_a_line() {
        for end in ["", "\n", "\r\n", "\r\r\n", "\r\r"] {
            let content = format!("# a comment\r\r\n\r\r\n*:*:*:*: p\rw {end}");
            let found = find(content.as_bytes(), [b"h", b"1", b"d", b"u"]);
            assert_eq!(found, Some(b" p\rw ".to_vec()), "{end:?}");
        }
    }
}
