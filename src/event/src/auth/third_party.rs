//! Third-party invites: the proof, signed by an identity server, that an invited address belongs to the user.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{
    Reject, Rule, State,
    content::{Membership, each_field, text},
    kind,
};
use crate::{
    json::{Object, Value},
    pdu::Pdu,
    sign::{VerifyKey, signed_with},
    version::Rules,
};

/// `signed.token` of the content's `third_party_invite`.
pub(super) fn token(invite: &RawValue) -> Option<Cow<'_, str>> {
    let mut token = None;
    each_field(signed(invite)?.get().as_bytes(), &mut |key, value| {
        if key == "token" {
            token = text(value);
        }
    });
    token
}

fn signed(invite: &RawValue) -> Option<&RawValue> {
    let mut signed = None;
    each_field(invite.get().as_bytes(), &mut |key, value| {
        if key == "signed" {
            signed = Some(value);
        }
    });
    signed
}

/// Judges an invite that redeems a third-party invite (membership rule "invite", point 1).
pub(super) fn check(
    rules: &Rules,
    event: &Pdu,
    target: &str,
    invite: &RawValue,
    state: &dyn State,
) -> Result<(), Reject> {
    let reject = |rule, why: &str| Err(Reject::new(rules, rule, why));
    if state.membership(target) == Membership::Ban {
        return reject(Rule::InviteBanned, "the invited user is banned");
    }
    let Some(signed) = signed(invite) else {
        return reject(Rule::InviteSigned, "the third-party invite is not signed");
    };
    let Ok(signed) = Object::parse_lenient(signed.get().as_bytes()) else {
        return reject(Rule::InviteToken, "`signed` is no object");
    };
    let (Some(mxid), Some(token)) = (signed.get_str("mxid"), signed.get_str("token")) else {
        return reject(Rule::InviteToken, "`signed` has no mxid or no token");
    };
    if mxid != target {
        return reject(Rule::InviteMxid, "the third-party invite is for another user");
    }
    let Some(sent) = state.get(kind::THIRD_PARTY_INVITE, token) else {
        return reject(Rule::InviteUnknownToken, "the room has no third-party invite with that token");
    };
    if sent.sender() != event.sender() {
        return reject(Rule::InviteSender, "the third-party invite was sent by somebody else");
    }
    if !public_keys(sent).iter().any(|key| signed_with(&signed, key)) {
        return reject(Rule::InviteSignature, "no signature matches a public key of the third-party invite");
    }
    Ok(())
}

/// `public_key`, and those of `public_keys`, of an `m.room.third_party_invite`; what is no key is passed over.
fn public_keys(sent: &Pdu) -> Vec<VerifyKey> {
    let Ok(content) = Object::parse_lenient(sent.content()) else {
        return Vec::new();
    };
    let list = content.get("public_keys").and_then(Value::as_array).into_iter().flatten();
    let keys = list.filter_map(|entry| entry.as_object()?.get_str("public_key"));
    let keys = content.get_str("public_key").into_iter().chain(keys);
    keys.filter_map(|key| VerifyKey::parse_any(key).ok()).collect()
}
