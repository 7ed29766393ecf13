"""Servers with other settings: closed registration, registration by token, rate limits. Only where stoa is started here."""

from harness import walk


@walk("registration is closed")
def closed(h):
    with h.another(registration='mode = "closed"') as other:
        if other is None:
            return
        body = {"username": other.unique("nobody"), "password": "long enough pw 1"}
        other.call("register", body=body, expect=403, errcode="M_FORBIDDEN")
        other.call("register", body={**body, "auth": {"type": "m.login.dummy"}}, expect=403, errcode="M_FORBIDDEN")
        other.call("register", query={"kind": "guest"}, body={}, expect=403, errcode=("M_FORBIDDEN", "M_GUEST_ACCESS_FORBIDDEN"))
        other.call("registrationTokenValidity", query={"token": "any"}, expect=403, errcode="M_FORBIDDEN")
        other.call("login", body={"type": "m.login.password", "identifier": {"type": "m.id.user", "user": body["username"]}, "password": body["password"]},
                   expect=403, errcode="M_FORBIDDEN", note="no account was made")  # fmt: skip


@walk("registration by token")
def by_token(h):
    with h.another(registration='mode = "token"\ntokens = ["let-me-in"]') as other:
        if other is None:
            return
        h.check("a token that holds", other.call("registrationTokenValidity", query={"token": "let-me-in"})["valid"] is True)
        h.check("one that does not", other.call("registrationTokenValidity", query={"token": "other"})["valid"] is False)
        name = other.unique("guest")
        body = {"username": name, "password": "long enough pw 1"}
        first = other.call("register", body=body, expect=401)
        h.check("the stage is offered", any("m.login.registration_token" in f["stages"] for f in first["flows"]), first.excerpt())
        auth = {"type": "m.login.registration_token", "session": first["session"]}
        wrong = other.call("register", body={**body, "auth": {**auth, "token": "other"}}, expect=401, note="a wrong token")
        h.check("which is said", isinstance(wrong.errcode, str), wrong.excerpt())
        other.call("register", body={**body, "auth": auth}, expect=(400, 401), note="no token")
        other.call("register", body={**body, "auth": {"type": "m.login.dummy", "session": first["session"]}}, expect=(400, 401), note="the stage of open servers")
        done = other.call("register", body={**body, "auth": {**auth, "token": "let-me-in"}}, expect=(200, 401))
        if done.status == 401:
            h.check("the stage is completed", "m.login.registration_token" in done.get("completed", []), done.excerpt())
            done = other.call("register", body={**body, "auth": {"type": "m.login.dummy", "session": first["session"]}})
        h.check("the account is there", done["user_id"].startswith(f"@{name}:"))


@walk("rate limits")
def limits(h):
    few = "{ per_second = 0.1, burst = 3 }"
    lines = "\n".join(f"{kind} = {few}" for kind in ("login", "message", "join", "invite", "upload"))
    with h.another(limits="enabled = true\n" + lines) as other:
        if other is None:
            return
        alice, bob = other.newcomer("alice"), other.newcomer("bob")
        room = alice.create_room(preset="public_chat")

        def flood(what, act):
            answers = [act(n) for n in range(8)]
            h.check(f"{what}: some pass, then it is 429", answers[0].status != 429 and answers[-1].status == 429, [a.status for a in answers])

        either = {"expect": (200, 403, 429), "errcode": (None, "M_FORBIDDEN", "M_LIMIT_EXCEEDED")}
        flood("messages", lambda n: alice.send(room, **either))
        login = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": bob.username}, "password": "wrong"}
        flood("logins", lambda n: other.call("login", body=login, **either))
        flood("uploads", lambda n: alice.call("uploadContent", body=b"x", content_type="text/plain", **either))
        flood("joins", lambda n: bob.join(room, **either))
        alice.call("getTokenOwner", note="other calls go on")
        h.check("another person is not stopped", bob.send(room, expect=(200, 403)).status in (200, 403))
