//! What push rules say to an event (Client-Server API, "Push Rules"), with patterns that are matched by our own hand.
//!
//! ruma's matcher calls itself once a word: a long message of words that almost match overflows the stack, which ends
//! the process. Here nothing recurses, a pattern costs at most its length times that of the text, and all rules together
//! cost at most what [`BUDGET`] says. Rules are made ready once for many events; of an event only what a rule asks for is
//! read.

mod glob;

use std::{
    cell::{Cell, OnceCell},
    ops::RangeBounds,
};

use ruma_common::{
    UserId,
    power_levels::NotificationPowerLevelsKey,
    push::{
        Action, AnyPushRuleRef, PushCondition, PushConditionPowerLevelsCtx, RoomMemberCountIs, Ruleset, ScalarJsonValue,
    },
};
use serde_json::Value;
use stoa_store::rows::events::StoredEvent;

use self::glob::{Glob, fold};

/// How many characters are compared at most to judge one event. Only who writes rules against his own server gets there;
/// patterns beyond it do not match.
const BUDGET: usize = 100_000_000;

/// The enabled rules of a user, in the order in which they are asked.
pub(crate) struct Rules {
    rules: Vec<Rule>,
}

struct Rule {
    conditions: Vec<Condition>,
    actions: Vec<Action>,
}

enum Condition {
    Matches(Property, Glob),
    Is(Property, ScalarJsonValue),
    Contains(Property, ScalarJsonValue),
    DisplayName,
    Members(RoomMemberCountIs),
    Power(NotificationPowerLevelsKey),
    /// The event is in a thread that the user follows, or does not (MSC4306).
    Thread(bool),
    /// What this server does not know applies to nothing.
    Never,
}

/// A property of an event by its path.
enum Property {
    Kind,
    Sender,
    StateKey,
    Room,
    /// `content.body`: the only one whose patterns match words.
    Body,
    /// A path below `content`.
    Content(Vec<String>),
    Other(Vec<String>),
}

/// Who asks, and what is known of the room. What costs something to know is said when it is asked for.
pub(crate) struct Context<'a> {
    pub(crate) user: &'a str,
    pub(crate) room: &'a str,
    pub(crate) joined: u32,
    /// The user's name in the room.
    pub(crate) name: Option<&'a str>,
    /// Who may notify everyone; nothing where the room does not say.
    pub(crate) powers: Option<Option<&'a PushConditionPowerLevelsCtx>>,
    /// Whether the user follows the thread of the event; nothing where it is in none, or the user follows none anywhere.
    pub(crate) follows: Option<Option<bool>>,
}

/// What a rule asks for and the context does not say yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lacks {
    Name,
    Powers,
    Threads,
}

impl Rules {
    pub(crate) fn of(rules: &Ruleset) -> Rules {
        let rules = rules.into_iter().filter(|rule| rule.enabled());
        Rules {
            rules: rules.map(|rule| Rule { conditions: conditions(rule), actions: rule.actions().to_vec() }).collect(),
        }
    }

    /// What the first rule that applies wants done; nothing where none does, or where the user sent the event.
    pub(crate) fn ask(&self, event: &StoredEvent, context: &Context<'_>) -> Result<&[Action], Lacks> {
        self.judge(&Asked::of(event, context))
    }

    fn judge(&self, event: &Asked<'_>) -> Result<&[Action], Lacks> {
        if event.sender == event.context.user {
            return Ok(&[]);
        }
        for rule in &self.rules {
            if event.fits(&rule.conditions)? {
                return Ok(&rule.actions);
            }
        }
        Ok(&[])
    }
}

fn conditions(rule: AnyPushRuleRef<'_>) -> Vec<Condition> {
    match rule {
        AnyPushRuleRef::Override(rule) | AnyPushRuleRef::Underride(rule) | AnyPushRuleRef::PostContent(rule) => {
            rule.conditions.iter().map(Condition::of).collect()
        }
        AnyPushRuleRef::Content(rule) => vec![Condition::Matches(Property::Body, Glob::new(&rule.pattern))],
        AnyPushRuleRef::Room(rule) => vec![Condition::Is(Property::Room, rule.rule_id.as_str().into())],
        AnyPushRuleRef::Sender(rule) => vec![Condition::Is(Property::Sender, rule.rule_id.as_str().into())],
        #[allow(unreachable_patterns, reason = "kinds that other features of ruma add")]
        _ => vec![Condition::Never],
    }
}

impl Condition {
    fn of(condition: &PushCondition) -> Condition {
        match condition {
            PushCondition::EventMatch(data) => Condition::Matches(Property::of(&data.key), Glob::new(&data.pattern)),
            #[allow(deprecated)]
            PushCondition::ContainsDisplayName => Condition::DisplayName,
            PushCondition::RoomMemberCount(data) => Condition::Members(data.is),
            PushCondition::SenderNotificationPermission(data) => Condition::Power(data.key.clone()),
            PushCondition::EventPropertyIs(data) => Condition::Is(Property::of(&data.key), data.value.clone()),
            PushCondition::EventPropertyContains(data) => {
                Condition::Contains(Property::of(&data.key), data.value.clone())
            }
            PushCondition::ThreadSubscription(data) => Condition::Thread(data.subscribed),
            _ => Condition::Never,
        }
    }
}

impl Property {
    /// A path: dots separate levels, a backslash takes a dot's or a backslash's meaning away (Appendices,
    /// "Dot-separated property paths").
    fn of(path: &str) -> Property {
        let mut names = vec![String::new()];
        let mut letters = path.chars().peekable();
        while let Some(letter) = letters.next() {
            let next = letters.peek().copied();
            match (letter, names.last_mut()) {
                ('.', _) => names.push(String::new()),
                ('\\', Some(name)) if matches!(next, Some('.' | '\\')) => name.extend(letters.next()),
                (other, Some(name)) => name.push(other),
                (_, None) => {}
            }
        }
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        match known[..] {
            ["type"] => Property::Kind,
            ["sender"] => Property::Sender,
            ["state_key"] => Property::StateKey,
            ["room_id"] => Property::Room,
            ["content", "body"] => Property::Body,
            ["content", _, ..] => Property::Content(names.split_off(1)),
            _ => Property::Other(names),
        }
    }
}

/// What a property is.
enum Found<'a> {
    Nothing,
    Text(&'a str),
    Json(&'a Value),
}

impl<'a> Found<'a> {
    fn text(self) -> Option<&'a str> {
        match self {
            Found::Text(text) => Some(text),
            Found::Json(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    fn is(&self, scalar: &ScalarJsonValue) -> bool {
        match self {
            Found::Nothing => false,
            Found::Text(text) => scalar.as_str() == Some(text),
            Found::Json(value) => same(value, scalar),
        }
    }
}

fn same(value: &Value, scalar: &ScalarJsonValue) -> bool {
    match (value, scalar) {
        (Value::Null, ScalarJsonValue::Null) => true,
        (Value::Bool(value), ScalarJsonValue::Bool(wanted)) => value == wanted,
        (Value::Number(value), ScalarJsonValue::Integer(wanted)) => value.as_i64() == Some((*wanted).into()),
        (Value::String(value), ScalarJsonValue::String(wanted)) => value == wanted,
        _ => false,
    }
}

/// An event that is asked about; what is parsed of it is parsed once, when it is asked for.
struct Asked<'a> {
    context: &'a Context<'a>,
    kind: &'a str,
    sender: &'a str,
    state_key: Option<&'a str>,
    content_json: &'a [u8],
    json: &'a [u8],
    content: OnceCell<Value>,
    whole: OnceCell<Value>,
    /// `content.body` without regard to case.
    body: OnceCell<Option<Vec<char>>>,
    /// What is left of the budget.
    left: Cell<usize>,
}

impl<'a> Asked<'a> {
    fn of(event: &'a StoredEvent, context: &'a Context<'a>) -> Asked<'a> {
        let header = &event.header;
        let state_key = header.state_key.as_deref();
        Asked::new((&header.kind, &header.sender, state_key), event.content(), &event.json, context)
    }

    fn new(
        (kind, sender, state_key): (&'a str, &'a str, Option<&'a str>),
        content_json: &'a [u8],
        json: &'a [u8],
        context: &'a Context<'a>,
    ) -> Asked<'a> {
        Asked {
            context,
            kind,
            sender,
            state_key,
            content_json,
            json,
            content: OnceCell::new(),
            whole: OnceCell::new(),
            body: OnceCell::new(),
            left: Cell::new(BUDGET),
        }
    }

    fn fits(&self, conditions: &[Condition]) -> Result<bool, Lacks> {
        for condition in conditions {
            let fits = match condition {
                Condition::Matches(Property::Body, glob) => self.body_has(glob),
                Condition::Matches(property, glob) => {
                    self.find(property).text().is_some_and(|it| self.spells(it, glob))
                }
                Condition::Is(property, wanted) => self.find(property).is(wanted),
                Condition::Contains(property, wanted) => match self.find(property) {
                    Found::Json(Value::Array(all)) => all.iter().any(|one| same(one, wanted)),
                    _ => false,
                },
                Condition::DisplayName => match &self.context.name {
                    // A name is a name, whatever characters it has.
                    Some(name) => self.body_has(&Glob::plain(name)),
                    None => return Err(Lacks::Name),
                },
                Condition::Members(count) => count.contains(&self.context.joined.into()),
                Condition::Power(key) => self.may_notify(key)?,
                Condition::Thread(wanted) => self.context.follows.ok_or(Lacks::Threads)? == Some(*wanted),
                Condition::Never => false,
            };
            if !fits {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn content(&self) -> &Value {
        self.content.get_or_init(|| serde_json::from_slice(self.content_json).unwrap_or_default())
    }

    fn find(&self, property: &Property) -> Found<'_> {
        let below = |whole, path: &[String]| {
            let found = path.iter().try_fold(whole, |value: &Value, name| value.as_object()?.get(name));
            found.map_or(Found::Nothing, Found::Json)
        };
        match property {
            Property::Kind => Found::Text(self.kind),
            Property::Sender => Found::Text(self.sender),
            Property::StateKey => self.state_key.map_or(Found::Nothing, Found::Text),
            Property::Room => Found::Text(self.context.room),
            Property::Body => self.content().get("body").map_or(Found::Nothing, Found::Json),
            Property::Content(path) => below(self.content(), path),
            Property::Other(path) => {
                below(self.whole.get_or_init(|| serde_json::from_slice(self.json).unwrap_or_default()), path)
            }
        }
    }

    /// Whether a pattern is all of a text.
    fn spells(&self, text: &str, glob: &Glob) -> bool {
        if let Some(simply) = glob.matches_simply(text) {
            return simply;
        }
        let text = fold(text);
        self.afford(glob, text.len()) && glob.matches(&text)
    }

    /// Whether a pattern is among the words of the body.
    fn body_has(&self, glob: &Glob) -> bool {
        let body = self.body.get_or_init(|| self.find(&Property::Body).text().map(fold));
        body.as_ref().is_some_and(|body| self.afford(glob, body.len()) && glob.matches_words(body))
    }

    fn afford(&self, glob: &Glob, text: usize) -> bool {
        let left = self.left.get().checked_sub(glob.cost(text));
        left.inspect(|left| self.left.set(*left)).is_some()
    }

    fn may_notify(&self, key: &NotificationPowerLevelsKey) -> Result<bool, Lacks> {
        let Some(powers) = self.context.powers else { return Err(Lacks::Powers) };
        let sender = <&UserId>::try_from(self.sender).ok();
        Ok(powers.zip(sender).is_some_and(|(powers, sender)| powers.has_sender_notification_permission(sender, key)))
    }
}

#[cfg(test)]
mod tests;
