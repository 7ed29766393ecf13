//! Redactions: the rule that versions 1 and 2 have for them, and when a redaction takes effect in later ones (room
//! version 3, "Handling redactions").

use super::{Powers, Reject, Rule};
use crate::{pdu::Pdu, version::Rules};

/// Rule 11 of versions 1 and 2.
pub(super) fn check(rules: &Rules, event: &Pdu, powers: &Powers) -> Result<(), Reject> {
    let own = event.event_id().server_name();
    let same_server = own.is_some() && event.redacts().is_some_and(|redacted| redacted.server_name() == own);
    if same_server || powers.can_redact_others(event.sender()) {
        return Ok(());
    }
    Err(Reject::new(rules, Rule::Redaction, "the sender has not the power to redact and the event is not its server's"))
}

/// Whether an allowed redaction is applied to the event that it names. In versions 1 and 2 the rules have decided that.
///
/// `powers` are those before the redaction.
pub fn redaction_applies(rules: &Rules, redaction: &Pdu, redacted: &Pdu, powers: &Powers) -> bool {
    redaction.room_id() == redacted.room_id()
        && (rules.special_case_redaction
            || redaction.sender().server_name() == redacted.sender().server_name()
            || powers.can_redact_others(redaction.sender()))
}
