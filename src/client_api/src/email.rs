//! E-mail addresses (Client-Server API, "Adding Account Administrative Contact Information"; "m.login.email.identity"): letters are
//! asked for, their links are followed, addresses are added and removed. Text messages are not sent.

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use stoa_accounts::{Accounts, Credentials, EmailRequest, PAGE, Purpose, uia::AuthData};
use stoa_http::{Body, Empty, Error, Ip, Json, Limits, MaybeWho, Params, Result, Segments, Who, limit::Kind};

use crate::{Api, paths::Paths};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .v3("/register/email/requestToken", post(for_registration))
        .v3("/register/msisdn/requestToken", post(no_texts_to_register))
        .v3("/account/password/email/requestToken", post(for_password))
        .v3("/account/password/msisdn/requestToken", post(unknown_number))
        .v3("/account/3pid", get(list).post(add_old))
        .v3("/account/3pid/add", post(add))
        .v3("/account/3pid/bind", post(bind))
        .v3("/account/3pid/delete", post(remove))
        .v3("/account/3pid/unbind", post(unbind))
        .v3("/account/3pid/email/requestToken", post(for_account))
        .v3("/account/3pid/msisdn/requestToken", post(no_texts))
        .route(&format!("{PAGE}{{sid}}"), get(page).post(follow))
}

#[derive(Deserialize)]
struct Asked {
    client_secret: String,
    email: String,
    send_attempt: u64,
    next_link: Option<String>,
}

/// What every request for a letter costs and gives.
async fn ask(
    accounts: &Accounts,
    limits: &Limits,
    ip: impl std::fmt::Display,
    headers: &HeaderMap,
    who: Option<&Who>,
    purpose: Purpose,
    body: Asked,
) -> Result<Json<Value>> {
    limits.take(Kind::Login, ip)?;
    let languages = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let request = EmailRequest {
        address: body.email,
        secret: body.client_secret,
        attempt: body.send_attempt,
        next: body.next_link,
        languages: languages.chars().take(200).collect(),
    };
    let sid = accounts.request_email(who.map(|who| who.user_no), purpose, request).await?;
    Ok(Json(json!({ "sid": sid })))
}

/// `POST /_matrix/client/v3/register/email/requestToken`
async fn for_registration(
    State(accounts): State<Accounts>,
    State(limits): State<Limits>,
    Ip(ip): Ip,
    headers: HeaderMap,
    Body(body): Body<Asked>,
) -> Result<Json<Value>> {
    ask(&accounts, &limits, ip, &headers, None, Purpose::Register, body).await
}

/// `POST /_matrix/client/v3/account/password/email/requestToken`
async fn for_password(
    State(accounts): State<Accounts>,
    State(limits): State<Limits>,
    Ip(ip): Ip,
    headers: HeaderMap,
    Body(body): Body<Asked>,
) -> Result<Json<Value>> {
    if !accounts.sends_mail() {
        return Err(unknown_number().await);
    }
    ask(&accounts, &limits, ip, &headers, None, Purpose::Password, body).await
}

/// `POST /_matrix/client/v3/account/3pid/email/requestToken`
async fn for_account(
    MaybeWho(who): MaybeWho,
    State(accounts): State<Accounts>,
    State(limits): State<Limits>,
    Ip(ip): Ip,
    headers: HeaderMap,
    Body(body): Body<Asked>,
) -> Result<Json<Value>> {
    if !accounts.sends_mail() {
        return Err(no_texts().await);
    }
    ask(&accounts, &limits, ip, &headers, who.as_ref(), Purpose::Add, body).await
}

/// `GET /_matrix/client/v3/account/3pid`
async fn list(who: Who, State(accounts): State<Accounts>) -> Result<Json<Value>> {
    let emails = accounts.emails(who.user_no).await?.into_iter().map(|(address, email)| {
        json!({ "medium": "email", "address": address, "validated_at": email.validated, "added_at": email.added })
    });
    Ok(Json(json!({ "threepids": emails.collect::<Vec<_>>() })))
}

#[derive(Deserialize)]
struct Add {
    #[serde(flatten)]
    by: Credentials,
    auth: Option<AuthData>,
}

/// `POST /_matrix/client/v3/account/3pid/add`
async fn add(who: Who, State(accounts): State<Accounts>, Body(body): Body<Add>) -> Result<Empty> {
    if !accounts.sends_mail() {
        return Err(stoa_accounts::Error::ThreepidDenied.into());
    }
    accounts.add_email(&who, &body.by, body.auth.as_ref()).await?;
    Ok(Empty {})
}

/// `POST /_matrix/client/v3/account/3pid`: it had no authentication of its own, and is not served for that.
async fn add_old(_: Who) -> Error {
    stoa_accounts::Error::ThreepidDenied.into()
}

/// `POST /_matrix/client/v3/account/3pid/bind`: identity servers are not asked.
async fn bind(_: Who) -> Error {
    stoa_accounts::Error::ThreepidDenied.into()
}

#[derive(Deserialize)]
struct Remove {
    medium: String,
    address: String,
}

/// `POST /_matrix/client/v3/account/3pid/delete`
async fn remove(who: Who, State(accounts): State<Accounts>, Body(body): Body<Remove>) -> Result<Json<Value>> {
    if body.medium == "email" {
        accounts.delete_email(&who, &body.address).await?;
    }
    Ok(unbound())
}

/// `POST /_matrix/client/v3/account/3pid/unbind`
async fn unbind(_: Who) -> Json<Value> {
    unbound()
}

fn unbound() -> Json<Value> {
    Json(json!({ "id_server_unbind_result": "no-support" }))
}

/// `POST /_matrix/client/v3/register/msisdn/requestToken`
async fn no_texts_to_register() -> Error {
    Error::new(StatusCode::FORBIDDEN, "M_THREEPID_DENIED", "This server sends no text messages")
}

/// `POST /_matrix/client/v3/account/3pid/msisdn/requestToken`, and that for e-mail where no letters are sent.
async fn no_texts() -> Error {
    let why = "This server does not send messages of this kind";
    Error::new(StatusCode::BAD_REQUEST, "M_THREEPID_MEDIUM_NOT_SUPPORTED", why)
}

/// `POST /_matrix/client/v3/account/password/msisdn/requestToken`, and that for e-mail where no letters are sent.
async fn unknown_number() -> Error {
    stoa_accounts::Error::ThreepidNotFound.into()
}

#[derive(Deserialize)]
struct Link {
    #[serde(default)]
    token: String,
}

/// The page that a letter leads to. Following the link does nothing yet: programs that look into letters follow it too.
async fn page(
    State(accounts): State<Accounts>,
    Segments(sid): Segments<String>,
    Params(link): Params<Link>,
) -> Result<Response> {
    let Some(session) = accounts.email_link(&sid, &link.token).await? else { return Ok(gone()) };
    let what = match session.purpose.as_str() {
        "register" => "make an account",
        "add" => "add this address to an account",
        _ => "set a new password",
    };
    let body = format!(
        "<p>Somebody who has the address <b>{}</b> wants to {what} on this server. Is it you?</p>\
         <form method=\"post\"><button>Yes, it is me</button></form><p>If not, close this page.</p>",
        escaped(&session.address)
    );
    Ok(html(StatusCode::OK, "Is it you?", &body))
}

/// The same link, with the button pressed.
async fn follow(
    State(accounts): State<Accounts>,
    Segments(sid): Segments<String>,
    Params(link): Params<Link>,
) -> Result<Response> {
    let Some(session) = accounts.follow_email_link(&sid, &link.token).await? else { return Ok(gone()) };
    let mut body = "<p>Thank you. Go back to your Matrix client and continue there.</p>".to_owned();
    if let Some(next) = &session.next {
        body += &format!("<p><a href=\"{}\" rel=\"noreferrer\">Back to your client</a></p>", escaped(next));
    }
    Ok(html(StatusCode::OK, "It is you", &body))
}

fn gone() -> Response {
    let body = "<p>This link is not good any more. Ask your Matrix client for another letter.</p>";
    html(StatusCode::BAD_REQUEST, "Too late", body)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// A page on which nothing runs, that nobody frames, and whose address goes nowhere else: it has a token in it.
fn html(status: StatusCode, title: &str, body: &str) -> Response {
    let page = format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"></head><body><h1>{title}</h1>{body}</body></html>"
    );
    let mut response = (status, page).into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        ),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
