"""Which operations must be there, in which order the chapters run, and which documented answers no walk brings about."""

CHAPTERS = ["generic", "accounts", "personal", "keys", "rooms", "sending", "reading", "live", "syncing", "media", "bad_input", "modes", "further"]

# Operations by the specification's own names. A milestone that builds more adds its names here.
REQUIRED = set("""
getVersions getCapabilities getWellknown
register checkUsernameAvailability registrationTokenValidity getLoginFlows login refresh logout logout_all getTokenOwner
changePassword deactivateAccount getDevices getDevice updateDevice deleteDevice deleteDevices
getUserProfile getProfileField setProfileField deleteProfileField
setAccountData getAccountData setAccountDataPerRoom getAccountDataPerRoom defineFilter getFilter
getPushRules getPushRulesGlobal getPushRule setPushRule deletePushRule
isPushRuleEnabled setPushRuleEnabled getPushRuleActions setPushRuleActions
uploadKeys queryKeys claimKeys getKeysChanges uploadCrossSigningKeys uploadCrossSigningSignatures sendToDevice
postRoomKeysVersion getRoomKeysVersionCurrent getRoomKeysVersion putRoomKeysVersion deleteRoomKeysVersion
putRoomKeys getRoomKeys deleteRoomKeys putRoomKeysByRoomId getRoomKeysByRoomId deleteRoomKeysByRoomId
putRoomKeyBySessionId getRoomKeyBySessionId deleteRoomKeyBySessionId
createRoom inviteUser joinRoom joinRoomById leaveRoom forgetRoom kick ban unban getJoinedRooms
setRoomAlias getRoomIdByAlias deleteRoomAlias getLocalAliases
sendMessage setRoomStateWithKey redactEvent
sync getRoomEvents getEventContext getOneRoomEvent getMembersByRoom getJoinedMembersByRoom getRoomState getRoomStateWithKey
getRelatingEvents getRelatingEventsWithRelType getRelatingEventsWithRelTypeAndEventType getThreadRoots
getMutualRooms getTurnServer
upgradeRoom getSpaceHierarchy getRoomSummary getEventByTimestamp
search searchUserDirectory
setTyping postReceipt setReadMarker reportEvent reportRoom reportUser getPresence setPresence
uploadContent getConfigAuthed getContentAuthed getContentOverrideNameAuthed getContentThumbnailAuthed getUrlPreviewAuthed getUrlPreview
""".split())

# (operation or *, status, error code or *) -> why no walk brings this documented answer about.
NOT_EXERCISED = {
    ("*", "429", "*"): "rate limits are off during the run",
    ("*", "307", "*"): "no redirects of media", ("*", "308", "*"): "no redirects of media",
    ("*", "502", "*"): "only about other servers", ("*", "504", "*"): "only about uploads that come later",
    ("*", "400", "M_EXCLUSIVE"): "needs an application service", ("*", "400", "M_APPSERVICE_LOGIN_UNSUPPORTED"): "needs an application service",
    ("getTokenOwner", "403", "M_FORBIDDEN"): "needs an application service", ("updateDevice", "201", "*"): "needs an application service",
    ("inviteBy3PID", "403", "M_INVITE_BLOCKED"): "needs an identity server",
    ("inviteUser", "400", "M_UNSUPPORTED_ROOM_VERSION"): "only about other servers",
    ("login", "403", "M_USER_DEACTIVATED"): "M_FORBIDDEN is allowed instead",
    ("registrationTokenValidity", "403", "M_FORBIDDEN"): "registration is open during the run",
    ("getUserProfile", "403", "M_FORBIDDEN"): "profiles are public", ("getProfileField", "403", "M_FORBIDDEN"): "profiles are public",
    ("getLoginFlows", "404", "M_UNRECOGNIZED"): "the legacy authentication API is there",
    ("uploadContent", "403", "M_FORBIDDEN"): "no quota during the run", ("getContentThumbnailAuthed", "413", "M_TOO_LARGE"): "400 is allowed instead",
    ("getWellknown", "404", "*"): "either answer will do", ("getWellknown", "200", ""): "either answer will do",
    ("deleteProfileField", "400", "M_BAD_JSON"): "the request has no body",
    ("getLocalAliases", "400", "M_INVALID_PARAM"): "403 is allowed instead",
    ("reportRoom", "404", "M_NOT_FOUND"): "whether there is such a room is not told",
    ("reportUser", "404", "M_NOT_FOUND"): "whether there is such a user is not told",
    ("getPresence", "404", "*"): "403 is allowed instead",
    ("setPushRule", "404", "M_NOT_FOUND"): "400 is allowed instead",
}  # fmt: skip
