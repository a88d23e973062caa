//! What a server tells of its settings by itself.

use std::collections::HashMap;

/// They change while a session lasts.
#[derive(Debug)]
pub(crate) struct Settings {
    all: HashMap<String, String>,
    /// Whether times are those of UTC: asked for each request that is prepared.
    is_utc: bool,
}

/// No server tells a longer one.
const LONGEST: usize = 64 << 10;
const MOST: usize = 1_000;
const TIME_ZONE: &str = "TimeZone";

impl Settings {
    pub(crate) fn new(all: HashMap<String, String>) -> Self {
        Self {
            is_utc: all.get(TIME_ZONE).is_some_and(|zone| is_utc(zone)),
            all,
        }
    }

    /// One of them.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.all.get(name).map(String::as_str)
    }

    /// Whether times are those of UTC.
    pub(crate) fn is_utc(&self) -> bool {
        self.is_utc
    }

    /// Takes the body of a message that tells one; false where it does not.
    pub(crate) fn take(&mut self, body: &[u8]) -> bool {
        if body.len() > LONGEST {
            return false;
        }
        let Some((name, value)) = setting(body) else {
            return false;
        };
        if name == TIME_ZONE {
            self.is_utc = is_utc(&value);
        }
        if self.all.len() < MOST || self.all.contains_key(&name) {
            self.all.insert(name, value);
        }
        true
    }
}

/// Whether a time zone is UTC, by one of its names.
fn is_utc(zone: &str) -> bool {
    matches!(
        zone,
        "UTC"
            | "Etc/UTC"
            | "UCT"
            | "Etc/UCT"
            | "Zulu"
            | "Etc/Zulu"
            | "Universal"
            | "Etc/Universal"
            | "GMT"
            | "Etc/GMT"
    )
}

/// Name and value of a setting.
pub(crate) fn setting(body: &[u8]) -> Option<(String, String)> {
    let mut texts = body.strip_suffix(&[0])?.splitn(2, |byte| *byte == 0);
    let (name, value) = (texts.next()?, texts.next()?);
    Some((
        std::str::from_utf8(name).ok()?.to_owned(),
        String::from_utf8_lossy(value).into_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_zone_that_was_told_last_counts() {
        let mut settings = Settings::new(HashMap::from([(TIME_ZONE.into(), "UTC".into())]));
        assert!(settings.is_utc());
        assert!(settings.take(b"TimeZone\0Europe/Berlin\0"));
        assert!(!settings.is_utc());
        assert!(settings.take(b"TimeZone\0Etc/UTC\0"));
        assert!(settings.is_utc());
        assert_eq!(settings.get(TIME_ZONE), Some("Etc/UTC"));
        assert!(!settings.take(b"TimeZone"));
    }
}
