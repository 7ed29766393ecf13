//! Every error of the crates below on one page: its status and its errcode (Client-Server API, "Common error codes" and the
//! endpoints' own). The matches are exhaustive, so that a new error has to be given its place here.

use http::StatusCode;
use stoa_event::format::FormatError;

use crate::Error;

impl From<stoa_accounts::Error> for Error {
    fn from(error: stoa_accounts::Error) -> Self {
        use stoa_accounts::Error as E;
        let message = error.to_string();
        let new = |status, errcode| Error::new(status, errcode, message.clone());
        match error {
            E::UnknownToken { soft_logout } => Error::unknown_token(soft_logout, message),
            E::UserLocked => new(StatusCode::UNAUTHORIZED, "M_USER_LOCKED").with("soft_logout", true),
            E::UserDeactivated => new(StatusCode::FORBIDDEN, "M_USER_DEACTIVATED"),
            E::BadCredentials | E::Forbidden(_) => Error::forbidden(message),
            E::GuestAccess => new(StatusCode::FORBIDDEN, "M_GUEST_ACCESS_FORBIDDEN"),
            E::Challenge(challenge) => challenged(&challenge),
            E::UserInUse => new(StatusCode::BAD_REQUEST, "M_USER_IN_USE"),
            E::InvalidUsername(_) => new(StatusCode::BAD_REQUEST, "M_INVALID_USERNAME"),
            E::Exclusive => new(StatusCode::BAD_REQUEST, "M_EXCLUSIVE"),
            E::UnknownDevice => new(StatusCode::BAD_REQUEST, "M_UNKNOWN_DEVICE"),
            E::WeakPassword(_) => new(StatusCode::BAD_REQUEST, "M_WEAK_PASSWORD"),
            E::NotFound(_) => Error::not_found(message),
            E::ManagedElsewhere(_) => new(StatusCode::METHOD_NOT_ALLOWED, "M_BAD_JSON"),
            E::BadJson(_) => Error::bad_json(message),
            E::InvalidParam(_) => Error::invalid_param(message),
            E::MissingParam(_) => Error::missing_param(message),
            E::InvalidSignature(_) => new(StatusCode::BAD_REQUEST, "M_INVALID_SIGNATURE"),
            E::WrongBackupVersion { current } => {
                new(StatusCode::FORBIDDEN, "M_WRONG_ROOM_KEYS_VERSION").with("current_version", current)
            }
            E::Unknown(_) => Error::unknown(message),
            E::TooLarge(_) => Error::too_large(message),
            E::KeyTooLarge => new(StatusCode::BAD_REQUEST, "M_KEY_TOO_LARGE"),
            E::ProfileTooLarge => new(StatusCode::BAD_REQUEST, "M_PROFILE_TOO_LARGE"),
            E::LimitExceeded { retry_after_ms } => Error::limit_exceeded(retry_after_ms),
            E::ThreepidDenied => new(StatusCode::FORBIDDEN, "M_THREEPID_DENIED"),
            E::ThreepidInUse => new(StatusCode::BAD_REQUEST, "M_THREEPID_IN_USE"),
            E::ThreepidNotFound => new(StatusCode::BAD_REQUEST, "M_THREEPID_NOT_FOUND"),
            E::ThreepidAuthFailed => new(StatusCode::BAD_REQUEST, "M_THREEPID_AUTH_FAILED"),
            E::Store(error) => error.into(),
        }
    }
}

impl From<stoa_search::Error> for Error {
    fn from(error: stoa_search::Error) -> Self {
        use stoa_search::Error as E;
        let message = error.to_string();
        match error {
            E::TooLong(_) => Error::invalid_param(message),
            E::NotReady => Error::new(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN", message),
            E::Store(error) => error.into(),
            E::Language(_) | E::Index(_) | E::Io(_) | E::Task(_) => Error::internal(message),
        }
    }
}

impl From<stoa_rooms::Error> for Error {
    fn from(error: stoa_rooms::Error) -> Self {
        use stoa_rooms::Error as E;
        let message = error.to_string();
        let bad_request = |errcode| Error::new(StatusCode::BAD_REQUEST, errcode, message.clone());
        match error {
            E::UnknownRoom | E::NotFound(_) => Error::not_found(message),
            E::Forbidden(_) | E::Rejected(_) | E::Unsigned(_) => Error::forbidden(message),
            E::Partial => Error::new(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN", message),
            E::CannotVouch(_) => bad_request("M_UNABLE_TO_GRANT_JOIN"),
            E::CannotTell(_) => bad_request("M_UNABLE_TO_AUTHORISE_JOIN"),
            E::Format(error) => error.into(),
            E::BadContent(_) => Error::bad_json(message),
            E::InvalidParam(_) => Error::invalid_param(message),
            E::InvalidRoomState(_) => bad_request("M_INVALID_ROOM_STATE"),
            E::UnsupportedVersion(_) => bad_request("M_UNSUPPORTED_ROOM_VERSION"),
            E::AliasTaken => bad_request("M_ROOM_IN_USE"),
            E::DuplicateAnnotation => bad_request("M_DUPLICATE_ANNOTATION"),
            E::BadAlias(_) => bad_request("M_BAD_ALIAS"),
            E::BadThread => bad_request("M_UNKNOWN"),
            E::InviteBlocked(_) => Error::new(StatusCode::FORBIDDEN, "M_INVITE_BLOCKED", message),
            E::Unsubscribed => {
                Error::new(StatusCode::CONFLICT, "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION", message)
            }
            E::DelayTooLong { max_ms } => bad_request("M_DELAY_TOO_LARGE")
                .with("org.matrix.msc4140.errcode", "M_MAX_DELAY_EXCEEDED")
                .with("org.matrix.msc4140.max_delay", max_ms),
            E::TooManyDelayed { retry_after_ms } => {
                let limit = Error::limit_exceeded(retry_after_ms);
                Error { message, ..limit }.with("org.matrix.msc4140.errcode", "M_MAX_DELAYED_EVENTS_EXCEEDED")
            }
            E::DelayOver(_) => Error::new(StatusCode::CONFLICT, "M_UNKNOWN", message),
            E::Store(error) => error.into(),
        }
    }
}

impl From<stoa_view::Error> for Error {
    fn from(error: stoa_view::Error) -> Self {
        use stoa_view::Error as E;
        let message = error.to_string();
        match error {
            E::NotFound(_) => Error::not_found(message),
            E::Forbidden(_) => Error::forbidden(message),
            E::InvalidParam(_) => Error::invalid_param(message),
            E::UnknownPos => Error::new(StatusCode::BAD_REQUEST, "M_UNKNOWN_POS", message),
            E::NotInThread => Error::new(StatusCode::BAD_REQUEST, "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD", message),
            E::Store(error) => error.into(),
        }
    }
}

impl From<stoa_federation::Error> for Error {
    fn from(error: stoa_federation::Error) -> Self {
        use stoa_federation::Error as E;
        let message = error.to_string();
        match error {
            E::Remote(error) => error.into(),
            E::Rooms(error) => error.into(),
            E::Accounts(error) => error.into(),
            E::Store(error) => error.into(),
            E::NoServers | E::NotFound(_) => Error::not_found(message),
            E::NoneHelped(_) => Error::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", message),
            E::IncompatibleVersion(version) => {
                let error = Error::new(StatusCode::BAD_REQUEST, "M_INCOMPATIBLE_ROOM_VERSION", message);
                error.with("room_version", version)
            }
            E::Bad(_) => Error::bad_json(message),
            E::Forbidden(_) => Error::forbidden(message),
        }
    }
}

impl From<stoa_remote::Error> for Error {
    fn from(error: stoa_remote::Error) -> Self {
        use stoa_remote::{Error as E, TransportError};
        let message = error.to_string();
        match error {
            E::NotAllowed(_) => Error::forbidden(message),
            E::Ourselves => Error::invalid_param(message),
            E::Unauthorized(_) => Error::new(StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED", message),
            E::Busy => Error::new(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN", message),
            E::Answer(answer) => passed_on(&answer, message),
            E::Transport(TransportError::Timeout) => Error::new(StatusCode::GATEWAY_TIMEOUT, "M_UNKNOWN", message),
            E::BackingOff { .. } | E::Transport(_) | E::Malformed(_) => {
                Error::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", message)
            }
            E::Request(_) => Error::internal(message),
            E::Store(error) => error.into(),
        }
    }
}

/// What another server refused, in its words where they mean the same to our client.
fn passed_on(answer: &stoa_remote::Answer, message: String) -> Error {
    const CODES: [&str; 12] = [
        "M_FORBIDDEN",
        "M_NOT_FOUND",
        "M_BAD_STATE",
        "M_INVALID_PARAM",
        "M_LIMIT_EXCEEDED",
        "M_INCOMPATIBLE_ROOM_VERSION",
        "M_UNSUPPORTED_ROOM_VERSION",
        "M_UNABLE_TO_AUTHORISE_JOIN",
        "M_UNABLE_TO_GRANT_JOIN",
        "M_NOT_YET_UPLOADED",
        "M_INVITE_BLOCKED",
        // What servers say that know it from the proposal.
        "ORG.MATRIX.MSC4155.M_INVITE_BLOCKED",
    ];
    let code = CODES.into_iter().find(|code| answer.errcode.as_deref() == Some(code));
    let status = StatusCode::from_u16(answer.status).ok().filter(StatusCode::is_client_error);
    match (status, code) {
        (Some(status), Some(code)) => {
            let error = Error::new(status, code, answer.message.clone().unwrap_or(message));
            Error { retry_after_ms: answer.retry_after_ms, ..error }
        }
        (_, Some("M_NOT_YET_UPLOADED")) => Error::new(StatusCode::GATEWAY_TIMEOUT, "M_NOT_YET_UPLOADED", message),
        _ => Error::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", message),
    }
}

impl From<FormatError> for Error {
    fn from(error: FormatError) -> Self {
        use FormatError as E;
        let message = error.to_string();
        match error {
            E::TooLarge { .. } => Error::too_large(message),
            E::BadJson(_) | E::Missing(_) | E::WrongType { .. } | E::Unexpected(_) => Error::bad_json(message),
            E::BadId(_) | E::TooMany { .. } => Error::invalid_param(message),
        }
    }
}

impl From<stoa_media::Error> for Error {
    fn from(error: stoa_media::Error) -> Self {
        use stoa_media::Error as E;
        let message = error.to_string();
        match error {
            E::NotFound(_) => Error::not_found(message),
            E::BadId | E::InvalidParam(_) => Error::invalid_param(message),
            E::TooLarge(_) | E::ImageTooLarge => Error::too_large(message),
            E::Forbidden(_) => Error::forbidden(message),
            E::NotYetUploaded => Error::new(StatusCode::GATEWAY_TIMEOUT, "M_NOT_YET_UPLOADED", message),
            E::CannotOverwrite => Error::new(StatusCode::CONFLICT, "M_CANNOT_OVERWRITE_MEDIA", message),
            E::TooManyPending { retry_after_ms } => Error::limit_exceeded(retry_after_ms),
            E::NoThumbnail => Error::unknown(message),
            E::RemoteTooLarge => Error::new(StatusCode::BAD_GATEWAY, "M_TOO_LARGE", message),
            E::Away(_) | E::NoPreview => Error::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", message),
            E::Busy => Error::new(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN", message),
            E::Disk(_) | E::Failed(_) | E::Bucket(_) => Error::internal(message),
            E::Store(error) => error.into(),
        }
    }
}

/// 401 with the challenge as the body, which has `errcode` and `error` only after a stage that failed.
fn challenged(challenge: &stoa_accounts::Challenge) -> Error {
    let mut error = Error::new(StatusCode::UNAUTHORIZED, "", "");
    match serde_json::to_value(challenge) {
        Ok(serde_json::Value::Object(fields)) => error.extra = fields,
        Ok(_) => {}
        Err(why) => return Error::internal(why),
    }
    error
}

impl From<stoa_store::Error> for Error {
    fn from(error: stoa_store::Error) -> Self {
        use stoa_store::Error as E;
        match error {
            E::Closed => Error::new(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN", error.to_string()),
            // Who writes tries again after a conflict; one that arrives here has lost too often.
            E::Conflict => Error::new(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN", error.to_string()),
            E::Engine(_) | E::Corrupt(_) | E::Missing(_) | E::Version { .. } => Error::internal(error),
        }
    }
}
