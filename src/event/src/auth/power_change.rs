//! The rules for a new `m.room.power_levels` event (rule 10, up to 11 rule 9): nobody lifts anybody, or lowers what
//! stands above them, beyond their own power.

use super::{Create, Field, Power, PowerLevels, Powers, Reject, Rule, power::Levels};
use crate::{ids::UserId, pdu::Pdu, version::Rules};

/// Judges the change from the current levels to those of an event.
pub(super) fn check(rules: &Rules, event: &Pdu, powers: &Powers) -> Result<(), Reject> {
    let new = PowerLevels::read(rules, event.content())?;
    creators_unlisted(rules, &new, powers.create())?;
    let Some(old) = powers.levels() else {
        return Ok(());
    };
    if old.has_nulls() || new.has_nulls() {
        return Err(Reject::new(rules, Rule::LevelsFields, "a level that is null cannot be compared"));
    }

    let change = Change { rules, sender: event.sender(), power: powers.of(event.sender()) };
    change.fields(old, &new)?;
    change.entries("events", &old.events, &new.events)?;
    if rules.limit_notifications {
        change.entries("notifications", &old.notifications, &new.notifications)?;
    }
    change.users(&old.users, &new.users)
}

fn creators_unlisted(rules: &Rules, new: &PowerLevels, create: &Create) -> Result<(), Reject> {
    if !create.creators_are_privileged() {
        return Ok(());
    }
    match create.creators().iter().find(|creator| new.users.get(creator.as_str()).is_some()) {
        Some(creator) => {
            Err(Reject::new(rules, Rule::LevelsCreator, format!("{creator} is a creator and has no level")))
        }
        None => Ok(()),
    }
}

struct Change<'a> {
    rules: &'a Rules,
    sender: &'a UserId,
    power: Power,
}

impl Change<'_> {
    /// A property that is added or removed has no current or no new value: its default is not compared. (ruma compares
    /// the default; Synapse, which judges most rooms, does not.)
    fn fields(&self, old: &PowerLevels, new: &PowerLevels) -> Result<(), Reject> {
        for field in Field::ALL {
            let (old, new) = (old.given(field), new.given(field));
            if old != new {
                self.within(Rule::LevelsFieldOld, field.as_str(), old)?;
                self.within(Rule::LevelsFieldNew, field.as_str(), new)?;
            }
        }
        Ok(())
    }

    fn entries(&self, property: &str, old: &Levels, new: &Levels) -> Result<(), Reject> {
        each_change(old, new, |name, old, new| {
            let name = format!("{property}.{name}");
            self.within(Rule::LevelsEntryOld, &name, old)?;
            self.within(Rule::LevelsEntryNew, &name, new)
        })
    }

    fn users(&self, old: &Levels, new: &Levels) -> Result<(), Reject> {
        each_change(old, new, |name, old, new| {
            if name != self.sender.as_str() && old.is_some_and(|old| Power::Level(old) >= self.power) {
                return self.refuse(Rule::LevelsUserOld, name, old);
            }
            self.within(Rule::LevelsUserNew, name, new)
        })
    }

    fn within(&self, rule: Rule, name: &str, level: Option<i64>) -> Result<(), Reject> {
        if level.is_some_and(|level| !self.power.reaches(level)) { self.refuse(rule, name, level) } else { Ok(()) }
    }

    fn refuse(&self, rule: Rule, name: &str, level: Option<i64>) -> Result<(), Reject> {
        let level = level.unwrap_or_default();
        let why = format!("{} has power {} and cannot touch `{name}` at {level}", self.sender, self.power);
        Err(Reject::new(self.rules, rule, why))
    }
}

/// Calls `each` for every name whose level is not the same in both; both are sorted by name.
fn each_change(
    old: &Levels,
    new: &Levels,
    mut each: impl FnMut(&str, Option<i64>, Option<i64>) -> Result<(), Reject>,
) -> Result<(), Reject> {
    for (name, level) in old.iter() {
        let now = new.get(name);
        if now != Some(level) {
            each(name, Some(level), now)?;
        }
    }
    for (name, level) in new.iter() {
        if old.get(name).is_none() {
            each(name, None, Some(level))?;
        }
    }
    Ok(())
}
