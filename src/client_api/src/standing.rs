//! What accounts may do that are not as others: locked, suspended, or a guest's (Client-Server API, "Account moderation", "Guest
//! Access"). One page, so that no handler can forget it.

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode};
use stoa_http::{Error, MaybeWho, Who};

use crate::Api;

/// Lets a request through, or says why not. A wrong token is for the handlers to refuse: some need none.
pub(crate) async fn standing(State(api): State<Api>, route: MatchedPath, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let who = MaybeWho::from_request_parts(&mut parts, &api).await;
    if let Ok(MaybeWho(Some(who))) = who
        && let Err(error) = permit(&who, &parts.method, route.as_str())
    {
        return error.into_response();
    }
    next.run(Request::from_parts(parts, body)).await
}

fn permit(who: &Who, method: &Method, route: &str) -> Result<(), Error> {
    if !(who.locked || who.suspended || who.guest) {
        return Ok(());
    }
    // Behind `/_matrix/client/v3/`; media is served under older paths too.
    let path = route.strip_prefix("/_matrix/client/").and_then(|rest| Some(rest.split_once('/')?.1)).unwrap_or(route);
    if who.locked && !matches!(path, "logout" | "logout/all" | "login" | "refresh" | "/_matrix/client/versions") {
        return Err(stoa_accounts::Error::UserLocked.into());
    }
    if who.suspended && is_speech(method, path) {
        return Err(suspended());
    }
    if who.guest && !is_for_guests(method, path) {
        return Err(stoa_accounts::Error::GuestAccess.into());
    }
    Ok(())
}

/// 403 `M_USER_SUSPENDED`
pub(crate) fn suspended() -> Error {
    Error::new(StatusCode::FORBIDDEN, "M_USER_SUSPENDED", "You cannot do that while your account is suspended")
}

/// What a suspended account may not do: what others would notice, other than leaving. Redacting is judged by its handler,
/// because one's own events may be redacted.
fn is_speech(method: &Method, path: &str) -> bool {
    if method == Method::GET {
        return false;
    }
    // Sending delayed events at once is judged by its handler, because they may be cancelled.
    let begins = path.starts_with("profile/") || path.starts_with("directory/");
    if begins || path.contains("/ephemeral/") || path.contains("/delayed_event/") {
        return true;
    }
    matches!(
        path,
        "createRoom"
            | "join/{roomIdOrAlias}"
            | "knock/{roomIdOrAlias}"
            | "rooms/{roomId}/join"
            | "rooms/{roomId}/invite"
            | "rooms/{roomId}/kick"
            | "rooms/{roomId}/ban"
            | "rooms/{roomId}/unban"
            | "rooms/{roomId}/upgrade"
            | "rooms/{roomId}/typing/{userId}"
            | "rooms/{roomId}/send/{eventType}/{txnId}"
            | "rooms/{roomId}/state/{eventType}"
            | "rooms/{roomId}/state/{eventType}/"
            | "rooms/{roomId}/state/{eventType}/{stateKey}"
            | "presence/{userId}/status"
    )
}

/// What a guest may do: the list of "Guest Access", what every client asks for as it starts, and leaving for good.
fn is_for_guests(method: &Method, path: &str) -> bool {
    // MSC4140, "Guest accounts".
    if path.contains("/delayed_event/") || path.contains("delayed_events") {
        return true;
    }
    match *method {
        Method::GET => {
            path.starts_with("media/")
                || path.starts_with("/_matrix/media/")
                || matches!(
                    path,
                    "rooms/{roomId}/state"
                        | "rooms/{roomId}/state/{eventType}"
                        | "rooms/{roomId}/state/{eventType}/"
                        | "rooms/{roomId}/state/{eventType}/{stateKey}"
                        | "rooms/{roomId}/context/{eventId}"
                        | "rooms/{roomId}/event/{eventId}"
                        | "rooms/{roomId}/messages"
                        | "rooms/{roomId}/members"
                        | "rooms/{roomId}/joined_members"
                        | "rooms/{roomId}/initialSync"
                        | "room_summary/{roomIdOrAlias}"
                        | "directory/room/{roomAlias}"
                        | "joined_rooms"
                        | "publicRooms"
                        | "events"
                        | "sync"
                        | "devices"
                        | "devices/{deviceId}"
                        | "account/whoami"
                        | "capabilities"
                        | "voip/turnServer"
                        | "rtc/transports"
                        | "org.matrix.msc4143/rtc/transports"
                        | "login"
                        | "pushrules/"
                        | "pushrules/global/"
                        | "user/{userId}/filter/{filterId}"
                        | "profile/{userId}"
                        | "profile/{userId}/{keyName}"
                        | "/_matrix/client/versions"
                )
                || path.starts_with("/.well-known/")
        }
        Method::POST => matches!(
            path,
            "rooms/{roomId}/join"
                | "join/{roomIdOrAlias}"
                | "rooms/{roomId}/leave"
                | "rooms/{roomId}/forget"
                | "keys/upload"
                | "keys/query"
                | "keys/claim"
                | "user/{userId}/filter"
                | "login"
                | "logout"
                | "logout/all"
                | "register"
                | "org.matrix.simplified_msc3575/sync"
        ),
        // Which field of the profile is judged by its handler.
        Method::PUT => matches!(
            path,
            "rooms/{roomId}/send/{eventType}/{txnId}"
                | "rooms/{roomId}/state/{eventType}"
                | "rooms/{roomId}/state/{eventType}/"
                | "rooms/{roomId}/state/{eventType}/{stateKey}"
                | "sendToDevice/{eventType}/{txnId}"
                | "devices/{deviceId}"
                | "profile/{userId}/{keyName}"
        ),
        Method::DELETE => path == "profile/{userId}/{keyName}",
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_is_no_speech() {
        assert!(!is_speech(&Method::GET, "profile/{userId}"));
        assert!(!is_speech(&Method::POST, "rooms/{roomId}/leave"));
        assert!(!is_speech(&Method::PUT, "rooms/{roomId}/redact/{eventId}/{txnId}"));
        assert!(is_speech(&Method::PUT, "profile/{userId}/{keyName}"));
        assert!(is_speech(&Method::PUT, "rooms/{roomId}/send/{eventType}/{txnId}"));
        assert!(is_speech(&Method::PUT, "rooms/{roomId}/delayed_event/{eventType}/{txnId}"));
    }

    #[test]
    fn guests_make_no_rooms() {
        assert!(!is_for_guests(&Method::POST, "createRoom"));
        assert!(!is_for_guests(&Method::POST, "rooms/{roomId}/invite"));
        assert!(!is_for_guests(&Method::POST, "account/password"));
        assert!(is_for_guests(&Method::GET, "rooms/{roomId}/messages"));
    }
}
