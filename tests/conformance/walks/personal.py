"""Profiles, account data, filters, push rules, capabilities, versions."""

from harness import HIDDEN, MISSING, WRONG_TYPE, by_type, walk


@walk("versions, capabilities and discovery")
def discovery(h):
    alice = h.person("alice")
    versions = h.call("getVersions")["versions"]
    h.check("names versions of the specification, v1.11 or newer among them", any(v in versions for v in ("v1.11", "v1.12", "v1.13", "v1.14", "v1.15", "v1.16", "v1.17", "v1.18")), versions)
    alice.call("getVersions", note="with a token")
    capabilities = alice.call("getCapabilities")["capabilities"]
    rooms = capabilities.get("m.room_versions", {})
    h.check("room versions: a default that is available", rooms.get("default") in rooms.get("available", {}), rooms)
    h.call("getWellknown", expect=(200, 404))


@walk("profile")
def profile(h):
    alice, bob = h.newcomer("prof"), h.person("bob")
    me = {"userId": alice.id}
    for field, value in (("displayname", "Alice ✓ \U0001f600"), ("avatar_url", "mxc://localhost/abcDEF123")):
        alice.call("setProfileField", {**me, "keyName": field}, body={field: value})
        one = h.call("getProfileField", {**me, "keyName": field}, note="also without a token")
        h.check(f"{field} reads as written", one.json == {field: value}, one.excerpt())
    whole = h.call("getUserProfile", me)
    h.check("the whole profile", whole.get("displayname") == "Alice ✓ \U0001f600" and whole.get("avatar_url") == "mxc://localhost/abcDEF123", whole.excerpt())
    nobody = {"userId": f"@nobody-{h.run}:{alice.server}"}
    h.call("getUserProfile", nobody, expect=404, errcode="M_NOT_FOUND")
    h.call("getProfileField", {**nobody, "keyName": "displayname"}, expect=404, errcode="M_NOT_FOUND")
    h.call("getUserProfile", {"userId": "not-a-user-id"}, expect=(400, 404))
    with h.unchanged("writing somebody else's profile", alice.reads("getUserProfile", me)):
        bob.call("setProfileField", {**me, "keyName": "displayname"}, body={"displayname": "hacked"}, expect=403, errcode="M_FORBIDDEN")
        bob.call("deleteProfileField", {**me, "keyName": "displayname"}, expect=403, errcode="M_FORBIDDEN")
    with h.unchanged("profile values of wrong kinds", alice.reads("getUserProfile", me)):
        for bad in (17, True, ["x"], {"a": 1}):
            alice.call("setProfileField", {**me, "keyName": "displayname"}, body={"displayname": bad}, expect=400, errcode=WRONG_TYPE)
            alice.call("setProfileField", {**me, "keyName": "avatar_url"}, body={"avatar_url": bad}, expect=400, errcode=WRONG_TYPE)
        alice.call("setProfileField", {**me, "keyName": "displayname"}, body={"avatar_url": "x"}, expect=400, errcode=MISSING)
        alice.call("setProfileField", {**me, "keyName": "displayname"}, body={}, expect=400, errcode=MISSING)
    alice.call("deleteProfileField", {**me, "keyName": "avatar_url"})
    h.check("deleted", "avatar_url" not in h.call("getUserProfile", me).json)
    alice.call("deleteProfileField", {**me, "keyName": "avatar_url"}, note="again")


@walk("profile fields beyond the two old ones")
def extended_profile(h):
    alice = h.newcomer("fields")
    me = {"userId": alice.id}
    alice.call("setProfileField", {**me, "keyName": "m.tz"}, body={"m.tz": "Europe/Berlin"})
    value = {"list": [1, "two", None, {"three": 3}]}
    alice.call("setProfileField", {**me, "keyName": "chat.stoa.field"}, body={"chat.stoa.field": value})
    one = h.call("getProfileField", {**me, "keyName": "chat.stoa.field"})
    h.check("any JSON is kept as it is", one.json == {"chat.stoa.field": value}, one.excerpt())
    with h.unchanged("bad profile fields", alice.reads("getUserProfile", me)):
        alice.call("setProfileField", {**me, "keyName": "Not Grammar"}, body={"Not Grammar": 1}, expect=400, errcode="M_INVALID_PARAM")
        long = "chat." + "a" * 255
        alice.call("setProfileField", {**me, "keyName": long}, body={long: 1}, expect=400, errcode="M_KEY_TOO_LARGE")
        alice.call("setProfileField", {**me, "keyName": "chat.stoa.big"}, body={"chat.stoa.big": "x" * 66_000}, expect=(400, 413), errcode=("M_PROFILE_TOO_LARGE", "M_TOO_LARGE"))
        for i in range(3):
            key = f"chat.stoa.b{i}"
            r = h.client.send("PUT", f"/_matrix/client/v3/profile/{alice.id}/{key}", body={key: "x" * 30_000}, token=alice.token)
        h.check("the sum counts, not the field: 64 KiB", (r.status, r.errcode) == (400, "M_PROFILE_TOO_LARGE"), r.excerpt())
        for i in range(2):
            alice.call("deleteProfileField", {**me, "keyName": f"chat.stoa.b{i}"})
        alice.call("setProfileField", {**me, "keyName": "chat.stoa.field"}, body=b"{", expect=400, errcode=("M_BAD_JSON", "M_NOT_JSON"))
        alice.call("deleteProfileField", {**me, "keyName": "Not Grammar"}, expect=400, errcode="M_INVALID_PARAM")
    h.call("getProfileField", {**me, "keyName": "chat.stoa.none"}, expect=404, errcode="M_NOT_FOUND")
    alice.call("deleteProfileField", {**me, "keyName": "chat.stoa.field"})
    h.call("getProfileField", {**me, "keyName": "chat.stoa.field"}, expect=404, errcode="M_NOT_FOUND")


@walk("a new name appears in the rooms")
def profile_in_rooms(h):
    alice, bob = h.newcomer("named"), h.person("bob")
    room = bob.create_room(preset="public_chat")
    alice.join(room)
    alice.call("setProfileField", {"userId": alice.id, "keyName": "displayname"}, body={"displayname": "Somebody Else"})
    bob.sync(filter='{"room":{"timeline":{"limit":1}}}')
    for _ in range(10):
        member = bob.get_state(room, "m.room.member", alice.id)
        if member.get("displayname") == "Somebody Else":
            break
        bob.sync(timeout=500)
    h.check("m.room.member has the new name", member.get("displayname") == "Somebody Else" and member.get("membership") == "join", member.excerpt())


@walk("account data")
def account_data(h):
    alice, bob = h.newcomer("data"), h.person("bob")
    room = alice.create_room()
    for operation, extra in (("AccountData", {}), ("AccountDataPerRoom", {"roomId": room})):
        where = {"userId": alice.id, "type": "chat.stoa.test", **extra}
        alice.call("get" + operation, where, expect=404, errcode="M_NOT_FOUND")
        value = {"a": [1, 2, {"b": "ünï \U0001f600"}], "big": 9007199254740991, "nothing": None}
        alice.call("set" + operation, where, body=value)
        read = alice.call("get" + operation, where)
        h.check("reads as written", read.json == value, read.excerpt())
        with h.unchanged("bad account data", alice.reads("get" + operation, where)):
            alice.call("set" + operation, where, body=b"{", expect=400, errcode="M_NOT_JSON")
            alice.call("set" + operation, where, body=[], expect=400, errcode=("M_BAD_JSON", "M_NOT_JSON"))
            alice.call("set" + operation, where, body=b'"text"', expect=400, errcode=("M_BAD_JSON", "M_NOT_JSON"))
            bob.call("set" + operation, where, body={"x": 1}, expect=403, errcode="M_FORBIDDEN")
        bob.call("get" + operation, where, expect=403, errcode="M_FORBIDDEN")
        for kind in ("m.fully_read", "m.push_rules"):
            alice.call("set" + operation, {**where, "type": kind}, body={"event_id": "$x"}, expect=405, errcode="M_BAD_JSON", note="the server's own")
    for bad in ("not-a-room", "@user:localhost", "#alias:localhost"):
        where = {"userId": alice.id, "type": "chat.stoa.test", "roomId": bad}
        alice.call("setAccountDataPerRoom", where, body={}, expect=400, errcode="M_INVALID_PARAM")
        alice.call("getAccountDataPerRoom", where, expect=400, errcode="M_INVALID_PARAM")
    first = alice.sync(fresh=True)
    h.check("global data in sync", by_type(first["account_data"]["events"], "chat.stoa.test") != [], first.get("account_data"))
    h.check("the room's data in sync", by_type(first["rooms"]["join"][room].get("account_data", {}).get("events", []), "chat.stoa.test") != [])
    alice.call("setAccountData", {"userId": alice.id, "type": "chat.stoa.test"}, body={"new": True})
    second = alice.sync()
    h.check("only what is new comes next", [e["content"] for e in second.get("account_data", {}).get("events", [])] == [{"new": True}], second.excerpt())
    third = alice.sync()
    h.check("and not again", third.get("account_data", {}).get("events", []) == [], third.excerpt())
    alice.call("setAccountData", {"userId": alice.id, "type": "m.direct"}, body={bob.id: [room]})
    alice.call("setAccountData", {"userId": alice.id, "type": "m.ignored_user_list"}, body={"ignored_users": {bob.id: {}}})
    alice.sync()


@walk("filters")
def filters(h):
    alice, bob = h.person("alice"), h.person("bob")
    whole = {
        "event_fields": ["type", "content", "sender"], "event_format": "client",
        "presence": {"types": ["m.presence"], "not_senders": [bob.id]},
        "account_data": {"limit": 3, "not_types": ["m.x"]},
        "room": {"include_leave": True, "rooms": ["!a:localhost"], "not_rooms": ["!b:localhost"],
                 "timeline": {"limit": 7, "types": ["m.room.message"], "contains_url": False},
                 "state": {"lazy_load_members": True, "include_redundant_members": True},
                 "ephemeral": {"not_types": ["*"]}, "account_data": {"types": ["m.tag"]}},
    }  # fmt: skip
    for definition in ({}, whole):
        made = alice.call("defineFilter", {"userId": alice.id}, body=definition)
        h.check("a filter id does not begin with {", not made["filter_id"].startswith("{"))
        read = alice.call("getFilter", {"userId": alice.id, "filterId": made["filter_id"]})
        h.check("reads as written", read.json == definition, read.excerpt())
    other = {"userId": bob.id, "filterId": made["filter_id"]}
    alice.call("getFilter", other, **HIDDEN, note="of somebody else")
    alice.call("defineFilter", {"userId": bob.id}, body={}, expect=403, errcode="M_FORBIDDEN")
    alice.call("getFilter", {"userId": alice.id, "filterId": "nosuch"}, expect=(400, 404))
    alice.call("getFilter", {"userId": alice.id, "filterId": "9999999"}, expect=404, errcode="M_NOT_FOUND")
    for bad in ({"room": []}, {"room": {"timeline": {"limit": "ten"}}}, {"event_format": "other"}, {"presence": {"senders": "me"}}):
        alice.call("defineFilter", {"userId": alice.id}, body=bad, expect=400, errcode=WRONG_TYPE, note=str(bad))


DEFAULT_RULES = {
    "override": [".m.rule.master", ".m.rule.suppress_notices", ".m.rule.invite_for_me", ".m.rule.member_event", ".m.rule.is_user_mention",
                 ".m.rule.is_room_mention", ".m.rule.tombstone", ".m.rule.reaction", ".m.rule.room.server_acl", ".m.rule.suppress_edits"],
    "underride": [".m.rule.call", ".m.rule.encrypted_room_one_to_one", ".m.rule.room_one_to_one", ".m.rule.message", ".m.rule.encrypted"],
}  # fmt: skip


@walk("push rules: the default set")
def default_push_rules(h):
    alice = h.newcomer("rules")
    every = alice.call("getPushRules")["global"]
    same = alice.call("getPushRulesGlobal")
    h.check("/global/ is the same", same.json == every)
    for kind, wanted in DEFAULT_RULES.items():
        got = [r["rule_id"] for r in every.get(kind, [])]
        h.check(f"the specified default rules of kind {kind}, in their order", [r for r in got if r in wanted] == wanted, got)
    h.check("all are default rules", all(r["default"] for rules in every.values() for r in rules))
    h.check("only the master rule is off", [r["rule_id"] for rules in every.values() for r in rules if not r["enabled"]] == [".m.rule.master"])
    in_sync = by_type(alice.sync(fresh=True)["account_data"]["events"], "m.push_rules")
    h.check("they come with sync", len(in_sync) == 1 and in_sync[0]["content"].get("global") == every, in_sync)


@walk("push rules: editing")
def push_rules(h):
    alice = h.newcomer("pusher")
    alice.sync()

    def rule(kind, name):
        return {"kind": kind, "ruleId": name}

    bodies = {
        "override": {"actions": ["notify"], "conditions": [{"kind": "event_match", "key": "type", "pattern": "m.x"}]},
        "underride": {"actions": [], "conditions": [{"kind": "room_member_count", "is": "<5"}]},
        "content": {"actions": ["notify", {"set_tweak": "highlight"}], "pattern": "ca?e*"},
        "room": {"actions": ["notify", {"set_tweak": "sound", "value": "default"}]},
        "sender": {"actions": []},
    }
    names = {"room": "!some:localhost", "sender": "@some:localhost"}
    for kind, body in bodies.items():
        name = names.get(kind, "my rule ✓")
        alice.call("setPushRule", rule(kind, name), body=body)
        read = alice.call("getPushRule", rule(kind, name))
        h.check(f"{kind}: as written, enabled, not default", (read["rule_id"], read["actions"], read["enabled"], read["default"]) == (name, body["actions"], True, False), read.excerpt())
        alice.call("setPushRuleEnabled", rule(kind, name), body={"enabled": False})
        h.check("disabled", alice.call("isPushRuleEnabled", rule(kind, name))["enabled"] is False)
        alice.call("setPushRuleActions", rule(kind, name), body={"actions": ["notify"]})
        h.check("other actions", alice.call("getPushRuleActions", rule(kind, name))["actions"] == ["notify"])
        changed = by_type(alice.sync().get("account_data", {}).get("events", []), "m.push_rules")
        h.check("each change reaches sync", len(changed) == 1, changed)
    alice.call("setPushRule", rule("override", "second"), body=bodies["override"])
    alice.call("setPushRule", rule("override", "third"), query={"after": "second"}, body=bodies["override"])
    alice.call("setPushRule", rule("override", "before"), query={"before": "second"}, body=bodies["override"])
    mine = [r["rule_id"] for r in alice.call("getPushRules")["global"]["override"] if not r["default"]]
    h.check("before and after are kept; new ones are foremost", mine == ["before", "second", "third", "my rule ✓"], mine)
    order = [r["rule_id"] for r in alice.call("getPushRules")["global"]["override"]]
    h.check("user rules come after the master rule and before the other defaults", order[0] == ".m.rule.master" and order[1:5] == mine, order)
    alice.call("setPushRuleEnabled", rule("override", ".m.rule.master"), body={"enabled": True}, note="a default rule can be switched")
    alice.call("setPushRuleActions", rule("underride", ".m.rule.message"), body={"actions": []}, note="and given other actions")
    alice.call("deletePushRule", rule("override", "second"))
    alice.call("getPushRule", rule("override", "second"), expect=404, errcode="M_NOT_FOUND")


@walk("push rules refused")
def push_rules_refused(h):
    alice = h.newcomer("norules")
    everything = alice.reads("getPushRules")

    def rule(kind, name):
        return {"kind": kind, "ruleId": name}

    with h.unchanged("bad push rules", everything):
        for op in ("getPushRule", "deletePushRule", "isPushRuleEnabled", "getPushRuleActions"):
            alice.call(op, rule("override", "nosuch"), expect=404, errcode="M_NOT_FOUND")
        alice.call("setPushRuleEnabled", rule("override", "nosuch"), body={"enabled": True}, expect=404, errcode="M_NOT_FOUND")
        alice.call("setPushRuleActions", rule("override", "nosuch"), body={"actions": []}, expect=404, errcode="M_NOT_FOUND")
        alice.call("setPushRule", rule("override", "x"), query={"after": "nosuch"}, body={"actions": [], "conditions": []}, expect=(400, 404),
                   errcode=("M_NOT_FOUND", "M_UNKNOWN", "M_INVALID_PARAM"))  # fmt: skip
        alice.call("setPushRule", rule("nokind", "x"), body={"actions": []}, expect=400)
        alice.call("setPushRule", rule("override", ".mine"), body={"actions": [], "conditions": []}, expect=400, note="names with a dot are the server's")
        for slash in ("a/b", "a\\b"):
            alice.call("setPushRule", rule("override", slash), body={"actions": [], "conditions": []}, expect=400, note="no slashes")
        alice.call("setPushRule", rule("override", ".m.rule.master"), body={"actions": [], "conditions": []}, expect=(400, 404, 405))
        alice.call("deletePushRule", rule("override", ".m.rule.master"), expect=(400, 404, 405), note="default rules stay")
        alice.call("setPushRule", rule("override", "x"), body={}, expect=400, errcode=(*MISSING, "M_UNKNOWN"))
        alice.call("setPushRule", rule("override", "x"), body={"actions": "notify", "conditions": []}, expect=400)
        alice.call("setPushRule", rule("override", "x"), body={"actions": [17], "conditions": []}, expect=400)
        alice.call("setPushRule", rule("override", "x"), body={"actions": [], "conditions": {}}, expect=400)
        alice.call("setPushRule", rule("content", "x"), body={"actions": []}, expect=400, note="content rules need a pattern")
        alice.call("setPushRuleEnabled", rule("override", ".m.rule.master"), body={"enabled": "yes"}, expect=400, errcode=(*WRONG_TYPE, "M_UNKNOWN"))
        alice.call("setPushRuleEnabled", rule("override", ".m.rule.master"), body={}, expect=400)
        alice.call("setPushRuleActions", rule("override", ".m.rule.master"), body={}, expect=400)
