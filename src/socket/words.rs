//! What the system says, for people.

/// A text without the numbers that Rust puts behind the system's words: ` (os error 111)`.
pub(crate) fn in_words(text: &str) -> String {
    let mut parts = text.split(" (os error ");
    let mut words = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                words.push_str(rest);
            }
            _ => {
                words.push_str(" (os error ");
                words.push_str(part);
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn the_systems_words_have_no_number_behind_them() {
        let refused = io::Error::from_raw_os_error(111).to_string();
        assert!(refused.ends_with("(os error 111)"), "{refused}");
        assert_eq!(in_words(&refused), "Connection refused");
        assert_eq!(in_words("a: b (os error 2): c (os error 13)"), "a: b: c");
        for text in ["a (os error x) b", "a (os error 5", "", "(os error 5)"] {
            assert_eq!(in_words(text), text);
        }
    }
}
