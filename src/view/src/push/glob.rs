//! Patterns of push rules with `*` and `?` (Client-Server API, "Conditions for push rules", `event_match`).

/// Without regard to case.
pub(super) fn fold(text: &str) -> Vec<char> {
    text.chars().flat_map(char::to_lowercase).collect()
}

/// A pattern with `*` and `?`: the pieces between the `*`; `None` is a `?`.
pub(super) struct Glob {
    pieces: Vec<Vec<Option<char>>>,
    /// The pattern where it is ASCII and has neither: most have, and are compared without unfolding the text.
    literal: Option<String>,
}

impl Glob {
    pub(super) fn new(pattern: &str) -> Glob {
        let mut pieces = vec![Vec::new()];
        for c in fold(pattern) {
            match (c, pieces.last_mut()) {
                ('*', _) => pieces.push(Vec::new()),
                (c, Some(piece)) => piece.push((c != '?').then_some(c)),
                (_, None) => {}
            }
        }
        let literal = (pattern.is_ascii() && !pattern.contains(['*', '?'])).then(|| pattern.to_owned());
        Glob { pieces, literal }
    }

    /// A text that stands for itself, whatever characters it has.
    pub(super) fn plain(text: &str) -> Glob {
        Glob { pieces: vec![fold(text).into_iter().map(Some).collect()], literal: None }
    }

    /// How many characters of a text of that length are compared at most.
    pub(super) fn cost(&self, text: usize) -> usize {
        let length: usize = self.pieces.iter().map(|piece| piece.len() + 1).sum();
        text.saturating_mul(length)
    }

    /// Whether it matches the whole text, where both are simple enough to say so at once.
    pub(super) fn matches_simply(&self, text: &str) -> Option<bool> {
        let literal = self.literal.as_ref().filter(|_| text.is_ascii())?;
        Some(literal.eq_ignore_ascii_case(text))
    }

    /// Whether it matches the whole text.
    pub(super) fn matches(&self, text: &[char]) -> bool {
        let Some((first, rest)) = self.pieces.split_first() else { return false };
        let Some((last, middle)) = rest.split_last() else { return first.len() == text.len() && fits(first, text) };
        if !fits(first, text) {
            return false;
        }
        let Some(at) = after_all(middle, text, first.len()) else { return false };
        text.len().checked_sub(last.len()).is_some_and(|end| at <= end && fits(last, &text[end..]))
    }

    /// Whether it matches some part of the text that begins and ends between words.
    pub(super) fn matches_words(&self, text: &[char]) -> bool {
        let Some((first, rest)) = self.pieces.split_first() else { return false };
        if first.is_empty() && rest.is_empty() {
            return text.is_empty();
        }
        let mut starts = (0..=text.len()).filter(|at| between(text, *at) && fits(first, &text[*at..]));
        let Some((last, middle)) = rest.split_last() else {
            return starts.any(|at| between(text, at + first.len()));
        };
        // The first place leaves most room for what follows.
        let Some(start) = starts.next() else { return false };
        let Some(at) = after_all(middle, text, start + first.len()) else { return false };
        let ends = at..=text.len().saturating_sub(last.len());
        let mut ends = ends.filter(|at| fits(last, &text[*at..]));
        ends.any(|at| between(text, at + last.len()))
    }
}

/// Where the pieces have been found one after another; each as early as it can be.
fn after_all(pieces: &[Vec<Option<char>>], text: &[char], mut at: usize) -> Option<usize> {
    for piece in pieces {
        let end = text.len().checked_sub(piece.len())?;
        at = (at..=end).find(|at| fits(piece, &text[*at..]))? + piece.len();
    }
    Some(at)
}

/// Whether the text begins with a piece.
fn fits(piece: &[Option<char>], text: &[char]) -> bool {
    piece.len() <= text.len() && piece.iter().zip(text).all(|(want, is)| want.is_none_or(|want| want == *is))
}

/// Whether a place is not inside a word: an end of the text, or beside a character that no word has.
fn between(text: &[char], at: usize) -> bool {
    let word = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    let before = at.checked_sub(1).and_then(|i| text.get(i));
    !(before.is_some_and(word) && text.get(at).is_some_and(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|i| whole(rest, &text[i..])),
            Some(('?', rest)) => !text.is_empty() && whole(rest, &text[1..]),
            Some((c, rest)) => text.first() == Some(c) && whole(rest, &text[1..]),
        }
    }

    fn words(pattern: &[char], text: &[char]) -> bool {
        if pattern.is_empty() {
            return text.is_empty();
        }
        let places = || (0..=text.len()).filter(|at| between(text, *at));
        places().any(|from| places().any(|to| from <= to && whole(pattern, &text[from..to])))
    }

    /// All strings over some letters up to a length.
    fn all(letters: &[char], length: usize) -> Vec<Vec<char>> {
        let mut found = vec![Vec::new()];
        let mut last = found.clone();
        for _ in 0..length {
            last = last.iter().flat_map(|s| letters.iter().map(move |c| [&s[..], &[*c]].concat())).collect();
            found.extend(last.iter().cloned());
        }
        found
    }

    #[test]
    fn globs_match_what_they_should() {
        let texts = all(&['a', 'b', ' '], 4);
        for pattern in all(&['a', 'b', ' ', '?', '*'], 4) {
            let glob = Glob::new(&pattern.iter().collect::<String>());
            for text in &texts {
                assert_eq!(glob.matches(text), whole(&pattern, text), "{pattern:?} {text:?}");
                let simply = glob.matches_simply(&text.iter().collect::<String>());
                assert!(simply.is_none_or(|simply| simply == whole(&pattern, text)), "{pattern:?} {text:?}");
                assert_eq!(glob.matches_words(text), words(&pattern, text), "words {pattern:?} {text:?}");
            }
        }
    }

    #[test]
    fn words_are_those_of_the_specification() {
        let matches = |pattern: &str, text: &str| Glob::new(pattern).matches_words(&fold(text));
        // Client-Server API, "Conditions for push rules": the examples of `event_match`.
        assert!(matches("lunc?*", "a lunch, and more"));
        assert!(!matches("lunc?*", "lunc"));
        assert!(matches("ex*ple", "An EXAMPLE event."));
        assert!(!matches("exple", "An example event."));
        assert!(matches("conduit ⚡️", "CONDUIT ⚡️!"));
        assert!(!matches("foo", "foo_bar foobar"));
        assert!(matches("foo", "foobar foo"));
        assert!(matches("ä", "xäx"));
    }
}
