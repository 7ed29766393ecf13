//! Editing of push rules (Client-Server API, "Push Rules: API"). They are kept as account data `m.push_rules`.

use ruma_common::push::{
    Action, AnyPushRuleRef, InsertPushRuleError, NewConditionalPushRule, NewPatternedPushRule, NewPushRule,
    NewSimplePushRule, PushCondition, RemovePushRuleError, RuleKind, Ruleset,
};
use serde::Deserialize;
use serde_json::{Map, Value};
use stoa_event::ids::{OwnedRoomId, OwnedUserId};
use stoa_store::rows::push_rules;

use crate::{Accounts, Error, Result, Who};

/// How many rules a user can add.
const MAX_RULES: usize = 1000;
/// How many conditions and actions a rule has at most.
const MAX_PARTS: usize = 50;
/// The greatest length of a rule's id, a pattern and a key, in bytes. Matching takes time and memory by their length.
const MAX_BYTES: usize = 512;
/// The greatest size of all rules of a user.
const MAX_TOTAL: usize = 512 * 1024;

/// A rule as a client sends it.
#[derive(Clone, Debug, Deserialize)]
pub struct NewRule {
    /// What to do.
    pub actions: Vec<Value>,
    /// When, for `override` and `underride` rules.
    #[serde(default)]
    pub conditions: Vec<Value>,
    /// When, for `content` rules.
    pub pattern: Option<String>,
}

impl Accounts {
    /// All push rules of a user.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn push_rules(&self, who: &Who) -> Result<Ruleset> {
        let snapshot = self.store().snapshot().await?;
        Ok(push_rules::get(&snapshot, who.user_no, &who.user).await?.0)
    }

    /// One push rule, as clients see it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InvalidParam`]
    pub async fn push_rule(&self, who: &Who, kind: &str, id: &str) -> Result<Map<String, Value>> {
        let kind = parse_kind(kind)?;
        let rules = self.push_rules(who).await?;
        let rule = rules.get(kind, id).ok_or(UNKNOWN)?;
        let json = match rule {
            AnyPushRuleRef::Override(rule) | AnyPushRuleRef::Underride(rule) | AnyPushRuleRef::PostContent(rule) => {
                serde_json::to_value(rule)
            }
            AnyPushRuleRef::Content(rule) => serde_json::to_value(rule),
            AnyPushRuleRef::Room(rule) => serde_json::to_value(rule),
            AnyPushRuleRef::Sender(rule) => serde_json::to_value(rule),
            _ => return Err(UNKNOWN),
        };
        match json {
            Ok(Value::Object(rule)) => Ok(rule),
            _ => Err(stoa_store::Error::Corrupt("a push rule cannot be written").into()),
        }
    }

    /// Adds a rule, or replaces one of the same kind and id.
    ///
    /// # Errors
    /// [`Error::InvalidParam`], [`Error::BadJson`], [`Error::MissingParam`], [`Error::Unknown`] where `before` or `after`
    /// is no rule, [`Error::TooLarge`]
    pub async fn put_push_rule(
        &self,
        who: &Who,
        kind: &str,
        id: &str,
        rule: &NewRule,
        before: Option<&str>,
        after: Option<&str>,
    ) -> Result<()> {
        let kind = parse_kind(kind)?;
        let rule = new_rule(&kind, id, rule)?;
        if before == Some(id) || after == Some(id) {
            return Err(Error::Unknown("a rule cannot be placed by itself"));
        }
        self.edit_push_rules(who, |rules| {
            let enabled = rules.get(kind.clone(), id).map(|rule| rule.enabled());
            if enabled.is_some() && (before.is_some() || after.is_some()) {
                // Taken out before it is placed, so that its old place does not count among those of the others; a
                // default rule stays, and is refused by what follows.
                let _ = rules.remove(kind.clone(), id);
            }
            rules.insert(rule, after, before).map_err(insert_error)?;
            if let Some(enabled) = enabled {
                rules.set_enabled(kind, id, enabled).map_err(|_| UNKNOWN)?;
            }
            if rules.iter().filter(|rule| !rule.is_server_default()).count() > MAX_RULES {
                return Err(Error::TooLarge("too many push rules"));
            }
            Ok(())
        })
        .await
    }

    /// Removes a rule that the user added.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InvalidParam`] for default rules
    pub async fn delete_push_rule(&self, who: &Who, kind: &str, id: &str) -> Result<()> {
        let kind = parse_kind(kind)?;
        self.edit_push_rules(who, |rules| {
            rules.remove(kind, id).map_err(|error| match error {
                RemovePushRuleError::NotFound => UNKNOWN,
                _ => Error::InvalidParam("a default rule can be disabled, not deleted".to_owned()),
            })
        })
        .await
    }

    /// Enables or disables a rule.
    ///
    /// # Errors
    /// [`Error::NotFound`]
    pub async fn enable_push_rule(&self, who: &Who, kind: &str, id: &str, enabled: bool) -> Result<()> {
        let kind = parse_kind(kind)?;
        self.edit_push_rules(who, |rules| rules.set_enabled(kind, id, enabled).map_err(|_| UNKNOWN)).await
    }

    /// Changes what a rule does.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::BadJson`]
    pub async fn set_push_rule_actions(&self, who: &Who, kind: &str, id: &str, actions: &[Value]) -> Result<()> {
        let kind = parse_kind(kind)?;
        let actions = parse_actions(actions)?;
        self.edit_push_rules(who, |rules| rules.set_actions(kind, id, actions).map_err(|_| UNKNOWN)).await
    }

    async fn edit_push_rules(&self, who: &Who, edit: impl FnOnce(&mut Ruleset) -> Result<()>) -> Result<()> {
        let _guard = self.lock(who.user_no).await;
        let snapshot = self.store().snapshot().await?;
        let (mut rules, _) = push_rules::get(&snapshot, who.user_no, &who.user).await?;
        edit(&mut rules)?;
        let json = push_rules::json(&rules);
        if json.len() > MAX_TOTAL {
            return Err(Error::TooLarge("too many push rules"));
        }
        self.write_account_data(&snapshot, who.user_no, None, push_rules::TYPE, &json.into()).await
    }
}

const UNKNOWN: Error = Error::NotFound("there is no such push rule");

fn parse_kind(kind: &str) -> Result<RuleKind> {
    match kind {
        "override" => Ok(RuleKind::Override),
        "content" => Ok(RuleKind::Content),
        push_rules::POSTCONTENT => Ok(RuleKind::PostContent),
        "room" => Ok(RuleKind::Room),
        "sender" => Ok(RuleKind::Sender),
        "underride" => Ok(RuleKind::Underride),
        _ => {
            Err(Error::InvalidParam("the kind is override, content, postcontent, room, sender or underride".to_owned()))
        }
    }
}

fn new_rule(kind: &RuleKind, id: &str, rule: &NewRule) -> Result<NewPushRule> {
    short("a rule id", id)?;
    if id.is_empty() {
        return Err(Error::InvalidParam("a rule has an id".to_owned()));
    }
    let actions = parse_actions(&rule.actions)?;
    Ok(match kind {
        RuleKind::PostContent => {
            return Err(Error::InvalidParam("rules of this kind cannot be added".to_owned()));
        }
        RuleKind::Content => {
            let pattern = rule.pattern.clone().ok_or(Error::MissingParam("pattern"))?;
            short("a pattern", &pattern)?;
            NewPushRule::Content(NewPatternedPushRule::new(id.to_owned(), pattern, actions))
        }
        RuleKind::Room => {
            let room = OwnedRoomId::try_from(id);
            let room = room.map_err(|_| Error::InvalidParam("the id of a room rule is a room id".to_owned()))?;
            NewPushRule::Room(NewSimplePushRule::new(room, actions))
        }
        RuleKind::Sender => {
            let user = OwnedUserId::try_from(id);
            let user = user.map_err(|_| Error::InvalidParam("the id of a sender rule is a user id".to_owned()))?;
            NewPushRule::Sender(NewSimplePushRule::new(user, actions))
        }
        _ => {
            let new = NewConditionalPushRule::new(id.to_owned(), parse_conditions(&rule.conditions)?, actions);
            if *kind == RuleKind::Override { NewPushRule::Override(new) } else { NewPushRule::Underride(new) }
        }
    })
}

fn short(what: &str, text: &str) -> Result<()> {
    if text.len() > MAX_BYTES {
        return Err(Error::InvalidParam(format!("{what} has at most {MAX_BYTES} bytes")));
    }
    Ok(())
}

fn parse_actions(actions: &[Value]) -> Result<Vec<Action>> {
    if actions.len() > MAX_PARTS {
        return Err(Error::InvalidParam(format!("a rule has at most {MAX_PARTS} actions")));
    }
    let parse = |action: &Value| {
        let known = match action {
            Value::String(_) => true,
            Value::Object(fields) => fields.get("set_tweak").is_some_and(Value::is_string),
            _ => false,
        };
        if !known {
            return Err(Error::BadJson("an action is a string or an object with set_tweak".to_owned()));
        }
        short("an action", &action.to_string())?;
        serde_json::from_value(action.clone()).map_err(|error| Error::BadJson(format!("actions: {error}")))
    };
    actions.iter().map(parse).collect()
}

fn parse_conditions(conditions: &[Value]) -> Result<Vec<PushCondition>> {
    if conditions.len() > MAX_PARTS {
        return Err(Error::InvalidParam(format!("a rule has at most {MAX_PARTS} conditions")));
    }
    let parse = |condition: &Value| {
        if !condition.is_object() {
            return Err(Error::BadJson("a condition is an object".to_owned()));
        }
        for field in ["kind", "key", "pattern"] {
            condition.get(field).and_then(Value::as_str).map_or(Ok(()), |text| short(field, text))?;
        }
        if condition.to_string().len() > 4 * MAX_BYTES {
            return Err(Error::InvalidParam(format!("a condition has at most {} bytes", 4 * MAX_BYTES)));
        }
        serde_json::from_value(condition.clone()).map_err(|error| Error::BadJson(format!("conditions: {error}")))
    };
    conditions.iter().map(parse).collect()
}

fn insert_error(error: InsertPushRuleError) -> Error {
    match error {
        InsertPushRuleError::UnknownRuleId => Error::Unknown("before or after is no rule of this kind"),
        InsertPushRuleError::BeforeHigherThanAfter => Error::Unknown("before is more important than after"),
        error => Error::InvalidParam(error.to_string()),
    }
}
