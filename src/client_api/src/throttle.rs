//! Which requests are counted against which rate limit: one page, so that no handler can forget it.

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::Method;
use stoa_http::{Error, Ip, Limits, MaybeService, MaybeWho, Who, limit::Kind};

use crate::Api;

/// What a request counts as, by its method and route.
fn kind(method: &Method, route: &str) -> Option<Kind> {
    let path = route.strip_prefix("/_matrix/client/")?.split_once('/')?.1;
    let writes = method == Method::PUT || method == Method::POST;
    let kind = match path {
        "register/available" | "register/m.login.registration_token/validity" => Kind::Login,
        _ if !writes => return None,
        "login" | "login/get_token" | "refresh" => Kind::Login,
        "register" => Kind::Registration,
        "rooms/{roomId}/join" | "join/{roomIdOrAlias}" | "knock/{roomIdOrAlias}" => Kind::Join,
        "rooms/{roomId}/invite" => Kind::Invite,
        "createRoom"
        | "rooms/{roomId}/upgrade"
        | "rooms/{roomId}/send/{eventType}/{txnId}"
        | "rooms/{roomId}/redact/{eventId}/{txnId}"
        | "rooms/{roomId}/state/{eventType}"
        | "rooms/{roomId}/state/{eventType}/"
        | "rooms/{roomId}/state/{eventType}/{stateKey}" => Kind::Message,
        "search" | "user_directory/search" => Kind::Search,
        "rooms/{roomId}/typing/{userId}" | "presence/{userId}/status" => Kind::Live,
        _ if path.contains("/ephemeral/") => Kind::Live,
        _ if path.contains("/delayed_event/") => Kind::Message,
        // Calls restart theirs every few seconds. What is sent counts when it is sent.
        _ if path.contains("delayed_events/") => Kind::Live,
        _ => return None,
    };
    Some(kind)
}

/// Counts a request, and refuses it where it is one too many.
pub(crate) async fn throttle(State(api): State<Api>, route: MatchedPath, request: Request, next: Next) -> Response {
    let Some(kind) = kind(request.method(), route.as_str()) else { return next.run(request).await };
    let (mut parts, body) = request.into_parts();
    match count(&api, kind, &mut parts).await {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(error) => error.into_response(),
    }
}

/// Counts one more for who asks, unless it is an application service to which no limits apply.
pub(crate) fn take(limits: &Limits, kind: Kind, who: &Who) -> Result<(), Error> {
    if who.is_unlimited() {
        return Ok(());
    }
    if kind == Kind::Message {
        limits.take(Kind::Device, format_args!("{} {}", who.user, who.device))?;
    }
    limits.take(kind, &who.user)
}

async fn count(api: &Api, kind: Kind, parts: &mut http::request::Parts) -> Result<(), Error> {
    if matches!(kind, Kind::Login | Kind::Registration) {
        // Who logs its users in or makes them is nobody who guesses.
        if let Ok(MaybeService(Some(_))) = MaybeService::from_request_parts(parts, api).await {
            return Ok(());
        }
        let Ok(Ip(ip)) = Ip::from_request_parts(parts, api).await;
        return api.limits.take(kind, ip);
    }
    match MaybeWho::from_request_parts(parts, api).await? {
        MaybeWho(Some(who)) => {
            take(&api.limits, kind, &who)?;
            // All that is counted by user is something that people do. Bridges say themselves who is there elsewhere.
            if who.service.is_none() {
                api.accounts.is_active(&who);
            }
            Ok(())
        }
        // Without a token the handler says so.
        MaybeWho(None) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_writes_is_counted() {
        assert_eq!(kind(&Method::POST, "/_matrix/client/v3/login"), Some(Kind::Login));
        assert_eq!(kind(&Method::GET, "/_matrix/client/v3/login"), None);
        let send = "/_matrix/client/r0/rooms/{roomId}/send/{eventType}/{txnId}";
        assert_eq!(kind(&Method::PUT, send), Some(Kind::Message));
        assert_eq!(kind(&Method::GET, "/_matrix/client/v3/sync"), None);
        let delay = "/_matrix/client/unstable/org.matrix.msc4140/rooms/{roomId}/delayed_event/{eventType}/{txnId}";
        assert_eq!(kind(&Method::PUT, delay), Some(Kind::Message));
        assert_eq!(kind(&Method::POST, "/_matrix/client/v1/delayed_events/{delayId}/{action}"), Some(Kind::Live));
    }
}
