//! Telling whether a syntax error speaks of the statement that was sent.
//!
//! libpq adds the line it believes it sent (`LINE 1: BEGIN`) to the server's own words
//! (`syntax error at or near "selec"`). When the named token is not in that line, the server
//! was speaking to somebody else.

/// How much of a token libpq is sure to show: it cuts the line 10 screen columns after the
/// error, and a wide character fills two.
const SHOWN: usize = 5;

/// Whether `message` is a syntax error about another statement than the one it quotes.
///
/// Says no whenever it cannot tell: no quoted line, no token, or a token with quotes inside.
pub(super) fn speaks_of_another(message: &str) -> bool {
    let mut lines = message.lines();
    let Some(head) = lines.next() else {
        return false;
    };
    let Some((_, rest)) = head.split_once("at or near \"") else {
        return false;
    };
    let Some(token) = rest.strip_suffix('"') else {
        return false;
    };
    if token.contains('"') || token.is_empty() {
        return false;
    }
    let quoted = lines.find_map(|line| {
        let (number, text) = line.strip_prefix("LINE ")?.split_once(": ")?;
        number.parse::<u32>().ok().map(|_| text)
    });
    let Some(quoted) = quoted else {
        return false;
    };
    if !quoted.ends_with("...") && token.chars().all(in_word) {
        return !has_word(quoted, token);
    }
    let shown: String = token
        .chars()
        .take_while(|c| !c.is_control())
        .take(SHOWN)
        .collect();
    !shown.is_empty() && !quoted.contains(&shown)
}

/// Whether `word` stands in `line` and ends there, so that `selec` is not found in `select`.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, found)| {
        let mut rest = line[at + found.len()..].chars();
        !rest.next().is_some_and(in_word)
    })
}

fn in_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::speaks_of_another;

    #[test]
    fn a_token_that_was_never_sent_is_noticed() {
        assert!(speaks_of_another(
            "syntax error at or near \"selec\"\nLINE 1: BEGIN\n        ^\n"
        ));
    }

    #[test]
    fn a_token_that_only_begins_a_word_was_never_sent() {
        assert!(speaks_of_another(
            "syntax error at or near \"selec\"\nLINE 1: select 42\n        ^\n"
        ));
        assert!(!speaks_of_another(
            "syntax error at or near \"selec\"\nLINE 1: select selec;\n        ^\n"
        ));
    }

    #[test]
    fn a_real_syntax_error_is_the_callers_own() {
        assert!(!speaks_of_another(
            "syntax error at or near \"selec\"\nLINE 1: selec 1\n        ^\n"
        ));
    }

    #[test]
    fn a_token_cut_by_libpq_is_still_found() {
        assert!(!speaks_of_another(
            "syntax error at or near \"abcdefghijklmnop\"\nLINE 3: ...from x abcdefghij...\n"
        ));
    }

    #[test]
    fn what_cannot_be_told_is_not_claimed() {
        for message in [
            "",
            "syntax error at end of input\nLINE 1: select (\n",
            "syntax error at or near \"x\"",
            "syntax error at or near \"\"\nLINE 1: BEGIN",
            "syntax error at or near \"a\"b\"\nLINE 1: BEGIN",
            "syntax error at or near \"x\"\nLINE one: BEGIN",
        ] {
            assert!(!speaks_of_another(message), "{message:?}");
        }
    }
}
