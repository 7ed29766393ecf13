//! The table of room versions against the specification's pages, and against ruma's table.

use ruma_common::room_version_rules::{EventIdFormatVersion, EventsReferenceFormatVersion, StateResolutionVersion};
use stoa_event::{
    ids::RoomVersionId,
    version::{DEFAULT, EventIdFormat, Rules, SUPPORTED, StateResolution},
};

const ALL: [RoomVersionId; 12] = [
    RoomVersionId::V1,
    RoomVersionId::V2,
    RoomVersionId::V3,
    RoomVersionId::V4,
    RoomVersionId::V5,
    RoomVersionId::V6,
    RoomVersionId::V7,
    RoomVersionId::V8,
    RoomVersionId::V9,
    RoomVersionId::V10,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

/// Which versions have a rule, as the pages say ("added in", "changed in").
fn with(has: impl Fn(&Rules) -> bool) -> Vec<usize> {
    (1..=12).filter(|n| has(&Rules::of(&ALL[n - 1]).unwrap())).collect()
}

#[test]
fn the_specifications_pages() {
    let from = |n: usize| (n..=12).collect::<Vec<_>>();
    let to = |n: usize| (1..=n).collect::<Vec<_>>();
    assert_eq!(with(|r| r.event_id == EventIdFormat::Given), to(2));
    assert_eq!(with(|r| r.event_id == EventIdFormat::Hash), [3]);
    assert_eq!(with(|r| r.event_id == EventIdFormat::UrlSafeHash), from(4));
    assert_eq!(with(|r| r.reference_pairs), to(2));
    assert_eq!(with(|r| r.state_resolution == StateResolution::V1), [1]);
    assert_eq!(with(|r| r.state_resolution == StateResolution::V2), (2..=11).collect::<Vec<_>>());
    assert_eq!(with(|r| r.state_resolution == StateResolution::V2_1), [12]);
    assert_eq!(with(|r| r.redaction.keep_aliases), to(5));
    assert_eq!(with(|r| r.redaction.keep_join_rules_allow), from(8));
    assert_eq!(with(|r| r.redaction.keep_member_authorised_via), from(9));
    assert_eq!(with(|r| r.redaction.updated), from(11));
    assert_eq!(with(|r| r.strict_json), from(6));
    assert_eq!(with(|r| r.enforce_key_validity), from(5));
    assert_eq!(with(|r| r.special_case_aliases), to(5));
    assert_eq!(with(|r| r.special_case_redaction), to(2));
    assert_eq!(with(|r| r.limit_notifications), from(6));
    assert_eq!(with(|r| r.knock), from(7));
    assert_eq!(with(|r| r.restricted), from(8));
    assert_eq!(with(|r| r.knock_restricted), from(10));
    assert_eq!(with(|r| r.integer_power_levels), from(10));
    assert_eq!(with(|r| r.creator_is_sender), from(11));
    assert_eq!(with(|r| r.room_id_is_create_hash), [12]);
    assert_eq!(with(|r| r.creators_are_privileged), [12]);
}

#[test]
fn rumas_table() {
    for id in ALL {
        let (ours, theirs) = (Rules::of(&id).unwrap(), id.rules().unwrap());
        assert_eq!(ours.id, id);
        let format = match theirs.event_id_format {
            EventIdFormatVersion::V1 => EventIdFormat::Given,
            EventIdFormatVersion::V2 => EventIdFormat::Hash,
            _ => EventIdFormat::UrlSafeHash,
        };
        assert_eq!(ours.event_id, format, "{id}");
        assert_eq!(ours.event_id == EventIdFormat::Given, theirs.signatures.check_event_id_server, "{id}");
        assert_eq!(ours.event_id == EventIdFormat::Given, theirs.event_format.require_event_id, "{id}");
        let pairs = matches!(theirs.events_reference_format, EventsReferenceFormatVersion::V1);
        assert_eq!(ours.reference_pairs, pairs, "{id}");
        let resolution = match theirs.state_res {
            StateResolutionVersion::V1 => StateResolution::V1,
            StateResolutionVersion::V2(rules) if rules.begin_iterative_auth_checks_with_empty_state_map => {
                assert!(rules.consider_conflicted_state_subgraph);
                StateResolution::V2_1
            }
            _ => StateResolution::V2,
        };
        assert_eq!(ours.state_resolution, resolution, "{id}");

        let auth = &theirs.authorization;
        assert_eq!(ours.special_case_redaction, auth.special_case_room_redaction, "{id}");
        assert_eq!(ours.special_case_aliases, auth.special_case_room_aliases, "{id}");
        assert_eq!(ours.strict_json, auth.strict_canonical_json, "{id}");
        assert_eq!(ours.limit_notifications, auth.limit_notifications_power_levels, "{id}");
        assert_eq!(ours.knock, auth.knocking, "{id}");
        assert_eq!(ours.restricted, auth.restricted_join_rule, "{id}");
        assert_eq!(ours.restricted, theirs.signatures.check_join_authorised_via_users_server, "{id}");
        assert_eq!(ours.knock_restricted, auth.knock_restricted_join_rule, "{id}");
        assert_eq!(ours.integer_power_levels, auth.integer_power_levels, "{id}");
        assert_eq!(ours.creator_is_sender, auth.use_room_create_sender, "{id}");
        assert_eq!(ours.creators_are_privileged, auth.explicitly_privilege_room_creators, "{id}");
        assert_eq!(ours.creators_are_privileged, auth.additional_room_creators, "{id}");
        assert_eq!(ours.room_id_is_create_hash, auth.room_create_event_id_as_room_id, "{id}");
        assert_eq!(ours.room_id_is_create_hash, !theirs.event_format.require_room_create_room_id, "{id}");
        assert_eq!(ours.enforce_key_validity, theirs.enforce_key_validity, "{id}");

        let redaction = &theirs.redaction;
        assert_eq!(ours.redaction.keep_aliases, redaction.keep_room_aliases_aliases, "{id}");
        assert_eq!(ours.redaction.keep_join_rules_allow, redaction.keep_room_join_rules_allow, "{id}");
        let via = redaction.keep_room_member_join_authorised_via_users_server;
        assert_eq!(ours.redaction.keep_member_authorised_via, via, "{id}");
        for theirs in [
            !redaction.keep_origin_membership_prev_state,
            redaction.keep_room_create_content,
            redaction.keep_room_redaction_redacts,
            redaction.keep_room_power_levels_invite,
            redaction.keep_room_member_third_party_invite_signed,
            redaction.content_field_redacts,
        ] {
            assert_eq!(ours.redaction.updated, theirs, "{id}");
        }
    }
}

#[test]
fn what_this_server_offers() {
    assert_eq!(DEFAULT, RoomVersionId::V12);
    assert!(SUPPORTED.contains(&DEFAULT));
    assert_eq!(SUPPORTED, ALL);
    assert!(Rules::of(&RoomVersionId::try_from("org.example.unknown").unwrap()).is_none());
}
