//! What push rules say to an event (Client-Server API, "Push Rules"), with patterns that are matched by our own hand.
//!
//! ruma's matcher calls itself once a word: a long message of words that almost match overflows the stack, which ends
//! the process. Here nothing recurses, a pattern costs at most its length times that of the text, and all rules together
//! cost at most what [`BUDGET`] says.

use ruma_common::push::{
    Action, AnyPushRuleRef, ConditionalPushRule, FlattenedJson, PushCondition, PushConditionRoomCtx, Ruleset,
};

/// The property whose patterns match words.
const BODY: &str = "content.body";
/// How many characters are compared at most to judge one event. Only who writes rules against his own server gets there;
/// patterns beyond it do not match.
const BUDGET: usize = 100_000_000;

/// What the first rule that applies wants done; nothing where none does, or where the user sent the event.
pub(crate) async fn actions<'a>(
    rules: &'a Ruleset,
    event: &FlattenedJson,
    context: &PushConditionRoomCtx,
) -> &'a [Action] {
    if event.get_str("sender").is_some_and(|sender| sender == context.user_id) {
        return &[];
    }
    let mut event = Event { json: event, context, body: event.get_str(BODY).map(fold), left: BUDGET };
    for rule in rules {
        if event.fits(rule).await {
            return rule.actions();
        }
    }
    &[]
}

struct Event<'a> {
    json: &'a FlattenedJson,
    context: &'a PushConditionRoomCtx,
    /// `content.body` without regard to case.
    body: Option<Vec<char>>,
    /// What is left of the budget.
    left: usize,
}

impl Event<'_> {
    async fn fits(&mut self, rule: AnyPushRuleRef<'_>) -> bool {
        match rule {
            AnyPushRuleRef::Override(rule) | AnyPushRuleRef::Underride(rule) => self.fits_all(rule).await,
            AnyPushRuleRef::Content(rule) => rule.enabled && self.finds(BODY, &Glob::new(&rule.pattern)),
            // Rooms and senders are compared, nothing more.
            other => other.applies(self.json, self.context).await,
        }
    }

    async fn fits_all(&mut self, rule: &ConditionalPushRule) -> bool {
        if !rule.enabled {
            return false;
        }
        for condition in &rule.conditions {
            let fits = match condition {
                PushCondition::EventMatch(data) => self.finds(&data.key, &Glob::new(&data.pattern)),
                #[allow(deprecated)]
                PushCondition::ContainsDisplayName => self.names_the_user(),
                other => other.applies(self.json, self.context).await,
            };
            if !fits {
                return false;
            }
        }
        true
    }

    /// Whether a property matches: the body by words, others as a whole.
    fn finds(&mut self, key: &str, glob: &Glob) -> bool {
        let folded;
        let text = match key {
            BODY => self.body.as_deref(),
            "room_id" => {
                folded = fold(self.context.room_id.as_str());
                Some(&folded[..])
            }
            _ => match self.json.get_str(key) {
                Some(value) => {
                    folded = fold(value);
                    Some(&folded[..])
                }
                None => None,
            },
        };
        let Some(text) = text else { return false };
        let Some(left) = self.left.checked_sub(glob.cost(text.len())) else { return false };
        let matches = if key == BODY { glob.matches_words(text) } else { glob.matches(text) };
        self.left = left;
        matches
    }

    fn names_the_user(&mut self) -> bool {
        let name = fold(&self.context.user_display_name);
        // A name is a name, whatever characters it has.
        self.finds(BODY, &Glob { pieces: vec![name.into_iter().map(Some).collect()] })
    }
}

fn fold(text: &str) -> Vec<char> {
    text.chars().flat_map(char::to_lowercase).collect()
}

/// A pattern with `*` and `?`: the pieces between the `*`; `None` is a `?`.
struct Glob {
    pieces: Vec<Vec<Option<char>>>,
}

impl Glob {
    fn new(pattern: &str) -> Glob {
        let mut pieces = vec![Vec::new()];
        for c in fold(pattern) {
            match (c, pieces.last_mut()) {
                ('*', _) => pieces.push(Vec::new()),
                (c, Some(piece)) => piece.push((c != '?').then_some(c)),
                (_, None) => {}
            }
        }
        Glob { pieces }
    }

    /// How many characters of a text of that length are compared at most.
    fn cost(&self, text: usize) -> usize {
        let length: usize = self.pieces.iter().map(|piece| piece.len() + 1).sum();
        text.saturating_mul(length)
    }

    /// Whether it matches the whole text.
    fn matches(&self, text: &[char]) -> bool {
        let Some((first, rest)) = self.pieces.split_first() else { return false };
        let Some((last, middle)) = rest.split_last() else { return first.len() == text.len() && fits(first, text) };
        if !fits(first, text) {
            return false;
        }
        let Some(at) = after_all(middle, text, first.len()) else { return false };
        text.len().checked_sub(last.len()).is_some_and(|end| at <= end && fits(last, &text[end..]))
    }

    /// Whether it matches some part of the text that begins and ends between words.
    fn matches_words(&self, text: &[char]) -> bool {
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
    use ruma_common::{push::PatternedPushRule, serde::Raw};
    use serde_json::{Value, json};

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

    struct PushRule(String, String);

    fn rule(PushRule(id, pattern): PushRule) -> PatternedPushRule {
        let rule =
            json!({ "actions": ["notify"], "default": false, "enabled": true, "rule_id": id, "pattern": pattern });
        serde_json::from_value(rule).unwrap()
    }

    async fn any_notifies(all: impl Iterator<Item = PushRule>, event: &str) -> bool {
        let mut rules = Ruleset::new();
        rules.content.extend(all.map(rule));
        let raw = Raw::<()>::from_json_string(event.to_owned()).unwrap();
        let (room, user) = ("!r:a".try_into().unwrap(), "@a:b".try_into().unwrap());
        let context = PushConditionRoomCtx::new(room, 2u32.into(), user, "A*".into());
        !actions(&rules, &FlattenedJson::from_raw(&raw), &context).await.is_empty()
    }

    async fn notifies(pattern: &str, event: Value) -> bool {
        any_notifies([PushRule("x".into(), pattern.into())].into_iter(), &event.to_string()).await
    }

    /// With ruma's matcher this ends the process.
    #[tokio::test]
    async fn a_long_message_of_words_that_almost_match_is_just_a_message() {
        let message = |body: String| json!({ "sender": "@b:b", "content": { "body": body } });
        assert!(!notifies("a", message("aa ".repeat(21_000))).await);
        assert!(notifies("a", message("aa ".repeat(21_000) + "a")).await);
        for pattern in ["*a".repeat(255) + "*b", "?".repeat(511) + "b", "a?".repeat(255) + "b"] {
            assert!(!notifies(&pattern, message("a".repeat(60_000))).await);
        }
        let many = (0..1000).map(|n| PushRule(format!("{n}"), "*a".repeat(250) + "*b"));
        let begin = tokio::time::Instant::now();
        let event = message("a".repeat(60_000)).to_string();
        assert!(!any_notifies(many, &event).await);
        assert!(begin.elapsed() < std::time::Duration::from_secs(20), "{:?}", begin.elapsed());
        let own = json!({ "sender": "@a:b", "content": { "body": "a" } });
        assert!(!notifies("a", own).await);
    }
}
