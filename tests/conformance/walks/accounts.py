"""Registration, login, refresh, logout, password, deactivation ("Client Authentication")."""

import time

from harness import MISSING, WRONG_TYPE, walk


def register(h, body, **kwargs):
    """Both steps of a registration; an error may come at either."""
    first = h.call("register", body=body, expect=(200, 400, 401, 403), note=kwargs.pop("note", ""))
    if first.status != 401:
        wanted = kwargs.get("expect", 200)
        codes = kwargs.get("errcode")
        codes = codes if isinstance(codes, tuple) or codes is None else (codes,)
        good = first.status == wanted and (codes is None or first.errcode in codes)
        h.check(f"registering {str(body)[:120]} answers {wanted} {codes or ''}", good, first.excerpt())
        return first
    auth = {"type": "m.login.dummy", "session": first["session"]}
    return h.call("register", body={**body, "auth": auth}, **kwargs)


@walk("registration")
def registration(h):
    name = h.unique("reg")
    h.call("checkUsernameAvailability", query={"username": name})
    h.call("checkUsernameAvailability", query={"username": "not a name"}, expect=400, errcode="M_INVALID_USERNAME")
    h.call("checkUsernameAvailability", expect=400, errcode=MISSING, note="no username")
    answer = register(h, {"username": name, "password": "long enough pw 1", "device_id": "MYDEV",
                          "initial_device_display_name": "my device"})  # fmt: skip
    h.check("user id is made of the name", answer["user_id"].startswith(f"@{name}:"), answer["user_id"])
    h.check("the device id asked for is used", answer["device_id"] == "MYDEV", answer["device_id"])
    whoami = h.call("getTokenOwner", token=answer["access_token"])
    h.check("whoami names user and device", (whoami["user_id"], whoami["device_id"]) == (answer["user_id"], "MYDEV"))
    device = h.call("getDevice", {"deviceId": "MYDEV"}, token=answer["access_token"])
    h.check("the device's name was kept", device.get("display_name") == "my device", device.excerpt())
    h.call("checkUsernameAvailability", query={"username": name}, expect=400, errcode="M_USER_IN_USE")
    register(h, {"username": name, "password": "another pw 12345"}, expect=400, errcode="M_USER_IN_USE")
    register(h, {"username": name.upper(), "password": "another pw 12345"}, expect=400,
             errcode=("M_USER_IN_USE", "M_INVALID_USERNAME"), note="the same name in capitals is not a second account")  # fmt: skip


@walk("registration without a name, without login, with a refresh token")
def registration_options(h):
    answer = register(h, {"password": "long enough pw 1"}, note="the server picks a name")
    h.check("a name was picked", answer["user_id"].startswith("@"))
    answer = register(h, {"username": h.unique("inhibit"), "password": "long enough pw 1", "inhibit_login": True})
    h.check("inhibit_login: no token and no device", "access_token" not in answer.json and "device_id" not in answer.json, answer.excerpt())
    answer = register(h, {"username": h.unique("refresh"), "password": "long enough pw 1", "refresh_token": True})
    h.check("a refresh token was given", isinstance(answer.get("refresh_token"), str), answer.excerpt())


@walk("registration refused")
def registration_refused(h):
    for bad in ("with space", "@at:localhost", "ünïcödé", "a" * 256, "slash\\", "nul\x00", ""):
        register(h, {"username": bad, "password": "long enough pw 1"}, expect=400,
                 errcode=("M_INVALID_USERNAME", "M_INVALID_PARAM"), note=repr(bad[:20]))  # fmt: skip
    for bad in (17, True, ["x"], {"a": 1}):
        register(h, {"username": bad, "password": "long enough pw 1"}, expect=400, errcode=(*WRONG_TYPE, "M_INVALID_USERNAME"))
        register(h, {"username": h.unique(), "password": bad}, expect=400, errcode=(*WRONG_TYPE, "M_WEAK_PASSWORD"))
    name = h.unique("stage")
    first = h.call("register", body={"username": name, "password": "long enough pw 1"}, expect=401)
    body = {"username": name, "password": "long enough pw 1"}
    h.call("register", body={**body, "auth": {"session": first["session"]}}, expect=401, note="only the session: nothing completed")
    h.call("register", body={**body, "auth": {"type": "chat.no.such.stage", "session": first["session"]}}, expect=(400, 401),
           errcode=("M_UNRECOGNIZED", "M_UNKNOWN", "M_FORBIDDEN", "M_INVALID_PARAM", None), note="a stage that is not offered")  # fmt: skip
    h.call("register", body={**body, "auth": {"type": "m.login.dummy", "session": "no-such-session"}}, expect=(400, 401, 403),
           note="a session that does not exist")  # fmt: skip
    h.call("register", body={**body, "auth": "nonsense"}, expect=400, errcode=WRONG_TYPE)
    h.call("checkUsernameAvailability", query={"username": name}, note="none of these made the account")
    guest = h.client.send("POST", "/_matrix/client/v3/register?kind=guest", body={})
    if guest.status != 200:
        h.call("register", query={"kind": "guest"}, body={}, expect=403, errcode="M_FORBIDDEN")
    h.call("register", query={"kind": "neither"}, body={}, expect=400)
    h.call("registrationTokenValidity", query={"token": "no-such-token"}, expect=(200, 403), errcode=(None, "M_FORBIDDEN"))
    h.call("registrationTokenValidity", expect=400, errcode=MISSING, note="no token to look at")


@walk("login")
def login(h):
    alice = h.newcomer("login")
    flows = h.call("getLoginFlows")["flows"]
    h.check("password login is offered", {"type": "m.login.password"}.items() <= (flows[0].items() if len(flows) == 1 else
            next((f for f in flows if f.get("type") == "m.login.password"), {}).items()), flows)  # fmt: skip
    good = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": alice.username}, "password": alice.password}
    answer = h.call("login", body=good)
    h.check("a new device without being asked", answer["device_id"] != alice.device)
    h.check("the user id", answer["user_id"] == alice.id)
    h.call("login", body={**good, "identifier": {"type": "m.id.user", "user": alice.id}}, note="by whole user id")
    h.call("login", body={"type": "m.login.password", "user": alice.username, "password": alice.password}, note="deprecated `user`")
    named = h.call("login", body={**good, "device_id": "LOGINDEV", "initial_device_display_name": "first"})
    h.check("the device asked for", named["device_id"] == "LOGINDEV")
    again = h.call("login", body={**good, "device_id": "LOGINDEV", "initial_device_display_name": "second"})
    h.call("getTokenOwner", token=named["access_token"], expect=401, errcode="M_UNKNOWN_TOKEN", note="the device's older token")
    device = h.call("getDevice", {"deviceId": "LOGINDEV"}, token=again["access_token"])
    h.check("the name of a device that exists is not changed by login", device.get("display_name") == "first", device.excerpt())


@walk("login refused")
def login_refused(h):
    alice = h.newcomer("nologin")
    good = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": alice.username}, "password": alice.password}
    h.call("login", body={**good, "password": "wrong"}, expect=403, errcode="M_FORBIDDEN")
    unknown = {"type": "m.id.user", "user": "nobody-" + h.run}
    h.call("login", body={**good, "identifier": unknown}, expect=403, errcode="M_FORBIDDEN", note="unknown user, same answer")
    h.call("login", body={**good, "identifier": {"type": "m.id.user", "user": "@a:elsewhere.example"}}, expect=(400, 403), note="of another server")
    h.call("login", body={"type": "m.login.chat.no.such"}, expect=400, errcode=("M_UNKNOWN", "M_UNRECOGNIZED"))
    h.call("login", body={}, expect=400, errcode=MISSING, note="no type")
    h.call("login", body={**good, "type": 17}, expect=400, errcode=(*WRONG_TYPE, "M_UNKNOWN"))
    h.call("login", body={"type": "m.login.password", "identifier": good["identifier"]}, expect=400, errcode=(*MISSING, "M_INVALID_PARAM"), note="no password")
    h.call("login", body={"type": "m.login.password", "password": "x"}, expect=400, errcode=(*MISSING, "M_INVALID_PARAM"), note="nobody named")
    h.call("login", body={**good, "identifier": {"type": "chat.no.such"}}, expect=400)
    h.call("login", body={**good, "identifier": "alice"}, expect=400, errcode=WRONG_TYPE)
    h.call("login", body={**good, "password": 17}, expect=(400, 403), errcode=(*WRONG_TYPE, "M_FORBIDDEN"))
    h.call("login", body={**good, "device_id": 17}, expect=400, errcode=WRONG_TYPE)
    h.call("login", body={**good, "device_id": "D" * 600}, expect=400, note="an over-long device id")
    h.check("all that left one device", len(alice.call("getDevices")["devices"]) == 1)


@walk("refresh tokens")
def refresh(h):
    alice = h.newcomer("refresher")
    one = h.call("login", body={"type": "m.login.password", "identifier": {"type": "m.id.user", "user": alice.username},
                                "password": alice.password, "refresh_token": True})  # fmt: skip
    h.check("login with refresh_token gives one", isinstance(one.get("refresh_token"), str), one.excerpt())
    h.check("and says how long the access token lasts", isinstance(one.get("expires_in_ms"), int), one.excerpt())
    two = h.call("refresh", body={"refresh_token": one["refresh_token"]})
    h.check("a new access token", two["access_token"] != one["access_token"])
    lost = h.call("refresh", body={"refresh_token": one["refresh_token"]}, note="the answer was lost: the old one still works")
    who = h.call("getTokenOwner", token=lost["access_token"])
    h.check("same device", who["device_id"] == one["device_id"])
    h.call("refresh", body={"refresh_token": one["refresh_token"]}, expect=401, errcode="M_UNKNOWN_TOKEN", note="revoked by use of the new one")
    h.call("getTokenOwner", token=one["access_token"], expect=401, errcode="M_UNKNOWN_TOKEN", note="the old access token")
    h.call("refresh", body={"refresh_token": "no-such"}, expect=401, errcode="M_UNKNOWN_TOKEN")
    h.call("refresh", body={"refresh_token": lost["access_token"]}, expect=401, errcode="M_UNKNOWN_TOKEN", note="an access token is none")
    h.call("refresh", body={}, expect=400, errcode=MISSING)
    h.call("refresh", body={"refresh_token": 5}, expect=400, errcode=WRONG_TYPE)
    h.call("logout", token=lost["access_token"])
    newest = lost.get("refresh_token") or one["refresh_token"]
    h.call("refresh", body={"refresh_token": newest}, expect=401, errcode="M_UNKNOWN_TOKEN", note="after logout")


@walk("logout")
def logout(h):
    alice = h.newcomer("leaver")
    second = alice.login("SECOND")
    second.call("logout")
    gone = second.call("getTokenOwner", expect=401, errcode="M_UNKNOWN_TOKEN")
    h.check("a hard logout: soft_logout is not true", gone.get("soft_logout", False) is False, gone.excerpt())
    alice.call("getDevice", {"deviceId": "SECOND"}, expect=404, errcode="M_NOT_FOUND", note="its device went with it")
    alice.call("getTokenOwner", note="the other device stays")
    second.call("logout", expect=401, errcode="M_UNKNOWN_TOKEN", note="again")
    third = alice.login()
    third.call("logout_all")
    alice.call("getTokenOwner", expect=401, errcode="M_UNKNOWN_TOKEN")
    third.call("getTokenOwner", expect=401, errcode="M_UNKNOWN_TOKEN")
    h.check("login again", alice.login().token)


@walk("whoami")
def whoami(h):
    alice = h.person("alice")
    answer = alice.call("getTokenOwner")
    h.check("user, device, no guest", (answer["user_id"], answer["device_id"], answer.get("is_guest", False)) == (alice.id, alice.device, False))


@walk("password change")
def password(h):
    alice = h.newcomer("changer")
    other, old = alice.login("OTHER"), alice.password
    first = alice.call("changePassword", body={"new_password": "new pass word 1"}, expect=401, note="which flows?")
    h.check("by password", ["m.login.password"] in [f["stages"] for f in first["flows"]], first.excerpt())
    wrong = alice.call("changePassword", body={"new_password": "new pass word 1", "auth": alice.password_auth(first["session"], "wrong")}, expect=401)
    h.check("a wrong password: M_FORBIDDEN with the flows", wrong.errcode == "M_FORBIDDEN" and "flows" in wrong.json, wrong.excerpt())
    alice.call("changePassword", body={"new_password": 17, "auth": alice.password_auth(first["session"])}, expect=(400, 401))
    alice.call("changePassword", body={"auth": alice.password_auth(first["session"])}, expect=(400, 401), note="no new password")
    other.call("getTokenOwner", note="nothing happened yet")
    alice.call("changePassword", body={"new_password": "new pass word 1", "logout_devices": False,
                                       "auth": alice.password_auth(first["session"])})  # fmt: skip
    other.call("getTokenOwner", note="logout_devices: false")
    h.call("login", body={"type": "m.login.password", "identifier": {"type": "m.id.user", "user": alice.username}, "password": old},
           expect=403, errcode="M_FORBIDDEN", note="the old password")  # fmt: skip
    alice.password = "new pass word 1"
    first = alice.call("changePassword", body={"new_password": "new pass word 2"}, expect=401)
    alice.call("changePassword", body={"new_password": "new pass word 2", "auth": alice.password_auth(first["session"])})
    alice.password = "new pass word 2"
    other.call("getTokenOwner", expect=401, errcode="M_UNKNOWN_TOKEN", note="other devices are logged out unless asked not to")
    alice.call("getTokenOwner", note="this one stays")
    h.check("the new password works", alice.login().token)


@walk("user-interactive authentication cannot be borrowed")
def borrowed(h):
    alice, mallory = h.newcomer("victim"), h.newcomer("mallory")
    first = mallory.call("deactivateAccount", body={}, expect=401)
    body = {"auth": alice.password_auth(first["session"])}
    mallory.call("deactivateAccount", body=body, expect=(401, 403), note="with the password of somebody else")
    first = alice.call("changePassword", body={"new_password": "taken over 123"}, expect=401)
    body = {"new_password": "taken over 123", "auth": mallory.password_auth(first["session"])}
    mallory.call("changePassword", body=body, expect=(200, 400, 401, 403), note="with the session of somebody else")
    alice.login()  # whatever was answered, it was not Alice's password that changed


@walk("deactivation")
def deactivation(h):
    alice, bob = h.newcomer("goner"), h.person("bob")
    room = bob.create_room(preset="public_chat")
    alice.join(room)
    first = alice.call("deactivateAccount", body={}, expect=401)
    alice.call("deactivateAccount", body={"auth": alice.password_auth(first["session"], "wrong")}, expect=401, errcode="M_FORBIDDEN")
    answer = alice.call("deactivateAccount", body={"auth": alice.password_auth(first["session"])})
    h.check("id_server_unbind_result", answer["id_server_unbind_result"] in ("success", "no-support"))
    alice.call("getTokenOwner", expect=401, errcode="M_UNKNOWN_TOKEN")
    h.call("login", body={"type": "m.login.password", "identifier": {"type": "m.id.user", "user": alice.username}, "password": alice.password},
           expect=403, errcode=("M_USER_DEACTIVATED", "M_FORBIDDEN"))  # fmt: skip
    h.call("checkUsernameAvailability", query={"username": alice.username}, expect=400, errcode="M_USER_IN_USE", note="the name stays taken")
    for _ in range(20):  # it may happen in the background
        left = bob.get_state(room, "m.room.member", alice.id)
        if left.get("membership") == "leave":
            break
        time.sleep(0.3)
    h.check("they left their rooms", left.get("membership") == "leave", left.excerpt())


@walk("devices")
def devices(h):
    alice, bob = h.newcomer("owner"), h.person("bob")
    second = alice.login("DEV2", initial_device_display_name="two")
    listed = alice.call("getDevices")["devices"]
    h.check("both are listed", {d["device_id"] for d in listed} == {alice.device, "DEV2"}, listed)
    h.check("when and where last seen", all("last_seen_ts" in d for d in listed if d["device_id"] == alice.device), listed)
    one = alice.call("getDevice", {"deviceId": "DEV2"})
    h.check("its name", one.get("display_name") == "two", one.excerpt())
    alice.call("updateDevice", {"deviceId": "DEV2"}, body={"display_name": "zwei ✓"})
    h.check("renamed", alice.call("getDevice", {"deviceId": "DEV2"}).get("display_name") == "zwei ✓")
    alice.call("updateDevice", {"deviceId": "DEV2"}, body={}, note="nothing to change")
    h.check("still named", alice.call("getDevice", {"deviceId": "DEV2"}).get("display_name") == "zwei ✓")
    alice.call("updateDevice", {"deviceId": "DEV2"}, body={"display_name": 17}, expect=400, errcode=WRONG_TYPE)
    for who in (alice, bob):
        device = "NOSUCH" if who is alice else "DEV2"
        who.call("getDevice", {"deviceId": device}, expect=404, errcode="M_NOT_FOUND", note="none of one's own")
        who.call("updateDevice", {"deviceId": device}, body={"display_name": "x"}, expect=404, errcode="M_NOT_FOUND")
    with h.unchanged("deleting somebody else's device", alice.reads("getDevice", {"deviceId": "DEV2"})):
        first = bob.call("deleteDevice", {"deviceId": "DEV2"}, body={}, expect=(200, 401, 404))
        if first.status == 401:
            bob.call("deleteDevice", {"deviceId": "DEV2"}, body={"auth": bob.password_auth(first["session"])}, expect=(200, 404))
    first = alice.call("deleteDevice", {"deviceId": "DEV2"}, body={}, expect=401)
    second.call("getTokenOwner", note="still there")
    alice.call("deleteDevice", {"deviceId": "DEV2"}, body={"auth": alice.password_auth(first["session"])})
    second.call("getTokenOwner", expect=401, errcode="M_UNKNOWN_TOKEN")
    alice.call("getDevice", {"deviceId": "DEV2"}, expect=404, errcode="M_NOT_FOUND")


@walk("several devices deleted at once")
def delete_devices(h):
    alice = h.newcomer("many")
    extra = [alice.login(f"D{i}") for i in range(3)]
    alice.call("deleteDevices", body={}, expect=400, errcode=MISSING)
    alice.call("deleteDevices", body={"devices": "D0"}, expect=400, errcode=WRONG_TYPE)
    alice.call("deleteDevices", body={"devices": [17]}, expect=400, errcode=WRONG_TYPE)
    first = alice.call("deleteDevices", body={"devices": ["D0", "D1"]}, expect=401)
    auth = alice.password_auth(first["session"])
    alice.call("deleteDevices", body={"devices": ["D0", "D1"], "auth": {**auth, "password": "no"}}, expect=401, errcode="M_FORBIDDEN")
    alice.call("deleteDevices", body={"devices": ["D0", "D1"], "auth": auth})
    extra[0].call("getTokenOwner", expect=401, errcode="M_UNKNOWN_TOKEN")
    extra[2].call("getTokenOwner")
    h.check("two are left", {d["device_id"] for d in alice.call("getDevices")["devices"]} == {alice.device, "D2"})
