"""What Synapse 1.163 is known to do otherwise than specified: (operation or walk or *, pattern, reason).

Used only with `--oracle synapse`, to see that the walks themselves are right. Nothing here excuses Stoa. A pattern is
searched in "what was done :: what was wrong".
"""

FOLLOWS = "a consequence of something else in this list"

KNOWN = [
    ("*", r"status 500 M_UNKNOWN instead of", "500 for values of wrong kinds"),
    ("*", r"errcode M_UNKNOWN instead of", "M_UNKNOWN where a narrower code is specified"),
    ("*", r"(avatar_url|display_?name|last_seen_ip|last_seen_ts|next_token): None is not of type", "null instead of leaving a key out"),
    ("*", r"status 400 M_FORBIDDEN instead of 403", "400 with M_FORBIDDEN"),
    ("*", r"errcode M_BAD_STATE instead of M_FORBIDDEN", "M_BAD_STATE for banned people"),
    ("*", r"reason: (17|\{\}) is not of type", "takes a `reason` that is no string and serves it"),
    ("*", r"state_key: '@(a:b:c:d|nul\\x00:localhost)' is not", "takes such user ids in ban and unban"),
    ("*", r"(kick|ban|unban|inviteUser|joinRoomById|redactEvent) .*:: status 200 +instead of", "takes a `reason` that is no string, and odd user ids"),
    ("*", r"b'null' :: (status 200|errcode M_MISSING_PARAM)", "null taken as an empty body"),
    ("generic: no token and an unknown token", r"setRoomAlias", "looks at the body before the token"),
    ("generic: bodies that are no JSON, and JSON that is no object", r"b'true' :: status 404|nothing changed", FOLLOWS),
    ("generic: paths and methods that are not there", r"pushrules", "404 and 400 for methods that push rules do not have"),
    ("accounts: registration refused", r"registering .*M_UNKNOWN", "M_UNKNOWN where a narrower code is specified"),
    ("accounts: login", r"the device's older token", "several tokens for one device"),
    ("accounts: login refused", r"errcode M_(INVALID|MISSING)_PARAM instead of", "other codes at login"),
    ("accounts: refresh tokens", r"revoked by use|the old access token", "403 for old refresh tokens, old access tokens live on"),
    ("personal: push rules refused", r"status 200 +instead of 400|nothing changed", "takes conditions that are no list and then fails to read"),
    ("claimKeys", r"status 200 +instead of 400", "looks at nothing in an empty claim"),
    ("keys: key backup: versions", r"status 200 +instead of 400|auth_data: 'x'|the older is current|nothing changed", "takes backup versions of wrong kinds"),
    ("keys: key backup: keys", r"current_version|status 200 +instead of 400|nothing changed", "names the wrong current version; takes session data of wrong kinds"),
    ("rooms: creation refused", r"status 200 +instead of 400|M_ROOM_IN_USE|nothing changed", "takes options of wrong kinds"),
    ("rooms: invites and joins refused", r"nothing changed", FOLLOWS),
    ("rooms: kick, ban and unban", r"nothing changed|status 403 M_FORBIDDEN instead of 200|kicked, with a reason", FOLLOWS),
    ("rooms: aliases", r"nul\\x00", "aliases with NUL"),
    ("sending: transactions", r"another type", "transactions are not told apart by event type"),
    ("sending: redaction", r"nothing changed|it says why", FOLLOWS),
    ("reading: what the server adds to events", r"/event: prev_content", "no prev_content in /event"),
    ("reading: paging through /messages", r"%5B%5D.*status 200", "takes a filter that is a list"),
    ("live: receipts and unread counts", r"no-such-room.*status 200", "takes receipts for rooms that are not there"),
    ("live: read markers", r"status (200|404)", "takes markers of wrong kinds"),
    ("live: typing", r"'yes'.*status 200", "takes `typing` that is no boolean"),
    ("syncing: initial and incremental", r"summary", "a summary only with lazy members"),
    ("syncing: gaps", r"state_after|no `state`", "no state_after"),
    ("syncing: filters", r"not_rooms", "not_rooms leaves the room in"),
    ("syncing: tokens", r"s9999", "takes positions that were never reached"),
    ("media: thumbnails", r"stretch", "404 for a method that is not there"),
    ("bad_input: people that cannot be", r"nothing changed|status 502", "takes such user ids in ban and unban"),
    ("further: room directory", r"", "does not publish rooms unless allowed by its configuration"),
    ("setRoomTag", r"status 200 +instead of 400", "takes an order that is no number"),
    ("getRelatingEvents", r"403 M_FORBIDDEN instead of 404", "403 for strangers"),
    ("getTurnServer", r"required", "an empty answer without TURN"),
    ("coverage", r"createRoom|getUserProfile|joinRoom|register|ProfileField|uploadCrossSigningKeys", "the codes named above"),
]
