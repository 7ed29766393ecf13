//! What goes wrong with accounts. `stoa_http` has the page that gives each its status and errcode.

use serde::Serialize;

/// What goes wrong with accounts.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such access or refresh token, or it has ended (`M_UNKNOWN_TOKEN`).
    #[error("the token is unknown or has ended")]
    UnknownToken {
        /// Whether the device is still there, so that the client can keep what it knows and log in again.
        soft_logout: bool,
    },
    /// The account was deactivated (`M_USER_DEACTIVATED`).
    #[error("this account has been deactivated")]
    UserDeactivated,
    /// An administrator locked the account (401 `M_USER_LOCKED`, a soft logout).
    #[error("this account has been locked")]
    UserLocked,
    /// User or password are wrong; it does not say which (`M_FORBIDDEN`).
    #[error("wrong user or password")]
    BadCredentials,
    /// Not allowed (`M_FORBIDDEN`).
    #[error("{0}")]
    Forbidden(&'static str),
    /// Guests are not served (`M_GUEST_ACCESS_FORBIDDEN`).
    #[error("guest access is disabled")]
    GuestAccess,
    /// More authentication is needed: 401 with the challenge as the body.
    #[error("more authentication is needed")]
    Challenge(Box<Challenge>),
    /// The name is taken (`M_USER_IN_USE`).
    #[error("this user name is taken")]
    UserInUse,
    /// The name cannot be (`M_INVALID_USERNAME`).
    #[error("{0}")]
    InvalidUsername(&'static str),
    /// The name is reserved (`M_EXCLUSIVE`).
    #[error("this name is reserved")]
    Exclusive,
    /// An application service names a device that its user does not have (`M_UNKNOWN_DEVICE`).
    #[error("the user has no such device")]
    UnknownDevice,
    /// The password is too easy to guess (`M_WEAK_PASSWORD`).
    #[error("{0}")]
    WeakPassword(String),
    /// There is no such thing (`M_NOT_FOUND`).
    #[error("{0}")]
    NotFound(&'static str),
    /// The method is not for this (405, `M_BAD_JSON`).
    #[error("{0}")]
    ManagedElsewhere(&'static str),
    /// A field has the wrong shape (`M_BAD_JSON`).
    #[error("{0}")]
    BadJson(String),
    /// A field has a value that cannot be (`M_INVALID_PARAM`).
    #[error("{0}")]
    InvalidParam(String),
    /// A field is not there (`M_MISSING_PARAM`).
    #[error("{0} is missing")]
    MissingParam(&'static str),
    /// A signature that is wrong or missing (`M_INVALID_SIGNATURE`).
    #[error("{0}")]
    InvalidSignature(String),
    /// Another version of the key backup is the current one (`M_WRONG_ROOM_KEYS_VERSION`).
    #[error("that is not the current version of the key backup")]
    WrongBackupVersion {
        /// The current one.
        current: String,
    },
    /// Something the server does not know (`M_UNKNOWN`).
    #[error("{0}")]
    Unknown(&'static str),
    /// Too large (`M_TOO_LARGE`).
    #[error("{0}")]
    TooLarge(&'static str),
    /// The name of a profile field is too long (`M_KEY_TOO_LARGE`).
    #[error("the name of a profile field has at most 255 bytes")]
    KeyTooLarge,
    /// The profile would be too large (`M_PROFILE_TOO_LARGE`).
    #[error("a profile has at most 64 KiB")]
    ProfileTooLarge,
    /// Too many attempts (`M_LIMIT_EXCEEDED`).
    #[error("too many attempts")]
    LimitExceeded {
        /// When to try again.
        retry_after_ms: u64,
    },
    /// This server sends no e-mail and no text messages (`M_THREEPID_DENIED`).
    #[error("this server does not know e-mail addresses or phone numbers")]
    ThreepidDenied,
    /// The address is somebody's already (`M_THREEPID_IN_USE`).
    #[error("this address belongs to an account already")]
    ThreepidInUse,
    /// No account has the address (`M_THREEPID_NOT_FOUND`).
    #[error("no account has this address")]
    ThreepidNotFound,
    /// Nobody has shown that the address is his (`M_THREEPID_AUTH_FAILED`).
    #[error("the link in the letter was not followed, or the letter was for something else")]
    ThreepidAuthFailed,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] stoa_store::Error),
}

/// What a client must still do to be believed (Client-Server API, "User-Interactive Authentication API"). It serialises
/// as the body of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Challenge {
    /// Goes into `auth.session` of the next request.
    pub session: String,
    /// The ways that lead through, each a list of stages.
    pub flows: Vec<Flow>,
    /// What the stages need to know.
    pub params: serde_json::Map<String, serde_json::Value>,
    /// The stages that are done.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub completed: Vec<&'static str>,
    /// What was wrong with the last stage.
    #[serde(flatten)]
    pub refused: Option<Refused>,
}

/// A way through user-interactive authentication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flow {
    /// The authentication types, in order.
    pub stages: Vec<&'static str>,
}

/// Why a stage of user-interactive authentication was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The errcode.
    pub errcode: &'static str,
    /// The reason for people.
    pub error: &'static str,
}
