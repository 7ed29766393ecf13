//! Redactions: the rule that versions 1 and 2 have for them, and when a redaction takes effect in later ones (room
//! version 3, "Handling redactions").

use std::borrow::Cow;

use super::{
    Powers, Reject, Rule,
    content::{each_field, text},
    kind,
};
use crate::{pdu::Pdu, version::Rules};

/// Rule 11 of versions 1 and 2. One that names nothing is allowed and does nothing, as in Synapse; the text is silent.
pub(super) fn check(rules: &Rules, event: &Pdu, powers: &Powers) -> Result<(), Reject> {
    if powers.can_redact_others(event.sender()) {
        return Ok(());
    }
    let Some(redacted) = named(event) else {
        return Ok(());
    };
    // The domains are compared as text: the id need not be one that we would accept.
    let own = domain(event.event_id().as_str());
    if own.is_some() && domain(&redacted) == own {
        return Ok(());
    }
    Err(Reject::new(rules, Rule::Redaction, "the sender has not the power to redact and the event is not its server's"))
}

/// `redacts` as it stands at the top of the event, if it is a string.
fn named(event: &Pdu) -> Option<Cow<'_, str>> {
    let mut named = None;
    each_field(event.json(), &mut |key, value| {
        if key == "redacts" {
            named = text(value);
        }
    });
    named
}

fn domain(id: &str) -> Option<&str> {
    id.split_once(':').map(|(_, domain)| domain)
}

/// Whether an allowed redaction is applied to the event that it names. In versions 1 and 2 the rules have decided that.
/// A create event is never redacted, as in Synapse: before version 11 it would lose the room's version and federation.
///
/// `powers` are those before the redaction.
pub fn redaction_applies(rules: &Rules, redaction: &Pdu, redacted: &Pdu, powers: &Powers) -> bool {
    redaction.room_id() == redacted.room_id()
        && redacted.kind() != kind::CREATE
        && (rules.special_case_redaction
            || redaction.sender().server_name() == redacted.sender().server_name()
            || powers.can_redact_others(redaction.sender()))
}
