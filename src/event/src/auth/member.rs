//! The rules for `m.room.member` (rule 5, up to version 11 rule 4).

use super::{JoinRule, Membership, Powers, Reject, Rule, State, content::MemberContent, kind, third_party};
use crate::{ids::UserId, pdu::Pdu, version::Rules};

struct Case<'a> {
    rules: &'a Rules,
    event: &'a Pdu,
    sender: &'a UserId,
    target: &'a UserId,
    content: MemberContent<'a>,
    powers: &'a Powers,
    state: &'a dyn State,
}

/// Judges a membership event.
///
/// That the event is signed by the server of `join_authorised_via_users_server` is for the signature check to say; here
/// only a value is refused that is no user, as then nobody can have signed.
pub(super) fn check(rules: &Rules, event: &Pdu, powers: &Powers, state: &dyn State) -> Result<(), Reject> {
    let reject = |rule, why: &str| Err(Reject::new(rules, rule, why));
    let Some(target) = event.state_key().and_then(|key| <&UserId>::try_from(key).ok()) else {
        return reject(Rule::MemberShape, "the state key is no user");
    };
    let content = MemberContent::read(event.content());
    let Some(membership) = content.membership else {
        return reject(Rule::MemberShape, "the content has no membership");
    };
    if rules.restricted && membership == Membership::Join && content.authoriser == Some(None) {
        return reject(Rule::MemberAuthoriser, "join_authorised_via_users_server is no user");
    }
    let case = Case { rules, event, sender: event.sender(), target, content, powers, state };
    match membership {
        Membership::Join => case.join(),
        Membership::Invite => case.invite(),
        Membership::Leave => case.leave(),
        Membership::Ban => case.ban(),
        Membership::Knock if rules.knock => case.knock(),
        _ => reject(Rule::MembershipUnknown, "the membership is not known in this room version"),
    }
}

impl Case<'_> {
    fn reject(&self, rule: Rule, why: impl Into<String>) -> Result<(), Reject> {
        Err(Reject::new(self.rules, rule, why))
    }

    fn join_rule(&self) -> JoinRule {
        JoinRule::of(self.state.get(kind::JOIN_RULES, ""))
    }

    fn is_first_join(&self) -> bool {
        let create = self.powers.create();
        create.creator().is_some_and(|creator| creator == self.target)
            && matches!(self.event.prev_events(), [only] if only == create.event_id())
    }

    fn join(&self) -> Result<(), Reject> {
        if self.is_first_join() {
            return Ok(());
        }
        if self.sender != self.target {
            return self.reject(Rule::JoinOther, "nobody can make somebody else join");
        }
        let current = self.state.membership(self.sender.as_str());
        if current == Membership::Ban {
            return self.reject(Rule::JoinBanned, format!("{} is banned", self.sender));
        }
        let rule = self.join_rule();
        if rule == JoinRule::Public {
            return Ok(());
        }
        if rule.allows_invited(self.rules) && matches!(current, Membership::Join | Membership::Invite) {
            return Ok(());
        }
        if rule.allows_restricted(self.rules) {
            return self.authorised();
        }
        self.reject(Rule::JoinRule, format!("{} is not invited and the join rule is not public", self.sender))
    }

    fn authorised(&self) -> Result<(), Reject> {
        let Some(user) = self.content.authoriser.as_ref().and_then(|user| user.as_deref()) else {
            return self.reject(Rule::JoinAuthoriser, "nobody has authorised this join");
        };
        let power = <&UserId>::try_from(user).map(|user| self.powers.can_invite(user));
        if self.state.membership(user) != Membership::Join || power != Ok(true) {
            return self.reject(Rule::JoinAuthoriser, format!("{user} is not joined or cannot invite"));
        }
        Ok(())
    }

    fn invite(&self) -> Result<(), Reject> {
        if let Some(invite) = self.content.third_party_invite {
            return third_party::check(self.rules, self.event, self.target.as_str(), invite, self.state);
        }
        if !self.sender_joined() {
            return self.reject(Rule::InviteNotJoined, format!("{} is not joined", self.sender));
        }
        let current = self.state.membership(self.target.as_str());
        if matches!(current, Membership::Join | Membership::Ban) {
            let why = format!("the membership of {} is {}", self.target, current.as_str());
            return self.reject(Rule::InviteTarget, why);
        }
        if !self.powers.can_invite(self.sender) {
            return self.reject(Rule::InvitePower, format!("{} has not the power to invite", self.sender));
        }
        Ok(())
    }

    fn leave(&self) -> Result<(), Reject> {
        let current = self.state.membership(self.target.as_str());
        if self.sender == self.target {
            return match current {
                Membership::Join | Membership::Invite => Ok(()),
                Membership::Knock if self.rules.knock => Ok(()),
                _ => self.reject(Rule::LeaveSelf, format!("the membership of {} is {}", self.target, current.as_str())),
            };
        }
        if !self.sender_joined() {
            return self.reject(Rule::KickNotJoined, format!("{} is not joined", self.sender));
        }
        if current == Membership::Ban && !self.powers.of(self.sender).reaches(self.powers.get(super::Field::Ban)) {
            return self.reject(Rule::UnbanPower, format!("{} has not the power to end a ban", self.sender));
        }
        if !self.powers.can_kick(self.sender, self.target) {
            let why = format!("{} has not the power to kick {}", self.sender, self.target);
            return self.reject(Rule::KickPower, why);
        }
        Ok(())
    }

    fn ban(&self) -> Result<(), Reject> {
        if !self.sender_joined() {
            return self.reject(Rule::BanNotJoined, format!("{} is not joined", self.sender));
        }
        if !self.powers.can_ban(self.sender, self.target) {
            return self.reject(Rule::BanPower, format!("{} has not the power to ban {}", self.sender, self.target));
        }
        Ok(())
    }

    fn knock(&self) -> Result<(), Reject> {
        if !self.join_rule().allows_knock(self.rules) {
            return self.reject(Rule::KnockRule, "the join rule has no knocking");
        }
        if self.sender != self.target {
            return self.reject(Rule::KnockOther, "nobody can knock for somebody else");
        }
        let current = self.state.membership(self.sender.as_str());
        if matches!(current, Membership::Ban | Membership::Invite | Membership::Join) {
            let why = format!("the membership of {} is {}", self.sender, current.as_str());
            return self.reject(Rule::KnockMembership, why);
        }
        Ok(())
    }

    fn sender_joined(&self) -> bool {
        self.state.membership(self.sender.as_str()) == Membership::Join
    }
}
