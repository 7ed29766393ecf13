//! Who asks: the access token (Client-Server API, "Using access tokens") and the address of the client.

use std::{
    net::{IpAddr, Ipv4Addr},
    ops::Deref,
    sync::Arc,
};

use axum::extract::{FromRef, FromRequestParts};
use http::{HeaderMap, header, request::Parts};
use stoa_accounts::{Accounts, Service};

use crate::Error;

/// The user and device that an access token stands for.
#[derive(Clone, Debug)]
pub struct Who(pub stoa_accounts::Who);

/// The same where an endpoint also serves people without a token. A wrong token is still an error.
#[derive(Clone, Debug)]
pub struct MaybeWho(pub Option<Who>);

/// The application service whose token the request has, whoever it acts as. Another token is an error, and none too.
#[derive(Clone, Debug)]
pub struct AsService(pub Arc<Service>);

/// The same where the request may be anybody's.
#[derive(Clone, Debug)]
pub struct MaybeService(pub Option<Arc<Service>>);

/// The address that the client comes from, as far as we know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip(pub IpAddr);

/// The other end of the connection; whoever listens adds it to each request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

impl Deref for Who {
    type Target = stoa_accounts::Who;

    fn deref(&self) -> &stoa_accounts::Who {
        &self.0
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Who
where
    Accounts: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        MaybeWho::from_request_parts(parts, state).await?.0.ok_or_else(Error::missing_token)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for MaybeWho
where
    Accounts: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        // The limiter may have asked already.
        if let Some(who) = parts.extensions.get::<Who>() {
            return Ok(MaybeWho(Some(who.clone())));
        }
        let Some(token) = token(&parts.headers, parts.uri.query())? else { return Ok(MaybeWho(None)) };
        let accounts = Accounts::from_ref(state);
        let who = match accounts.services().by_token(&token) {
            Some(service) => {
                let (user, device) = masquerade(parts.uri.query());
                Who(accounts.act_as(service, user.as_deref(), device.as_deref()).await?)
            }
            None => Who(accounts.whoami(&token).await?),
        };
        let Ok(Ip(ip)) = Ip::from_request_parts(parts, state).await;
        accounts.seen(&who, Some(ip));
        parts.extensions.insert(who.clone());
        Ok(MaybeWho(Some(who)))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for MaybeService
where
    Accounts: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let token = token(&parts.headers, parts.uri.query())?;
        let services = Accounts::from_ref(state).services();
        Ok(MaybeService(token.and_then(|token| services.by_token(&token).cloned())))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for AsService
where
    Accounts: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let unknown = || stoa_accounts::Error::UnknownToken { soft_logout: false }.into();
        match token(&parts.headers, parts.uri.query())? {
            None => Err(Error::missing_token()),
            Some(token) => {
                let services = Accounts::from_ref(state).services();
                services.by_token(&token).cloned().map(AsService).ok_or_else(unknown)
            }
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Ip {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let peer = parts.extensions.get::<Peer>().map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.0);
        Ok(Ip(client_ip(peer, &parts.headers)))
    }
}

/// A reverse proxy on this machine is believed about whom it speaks for, nobody else. The last entry is the one that
/// this proxy wrote; those before it are what the client claims.
fn client_ip(peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    if !peer.to_canonical().is_loopback() {
        return peer.to_canonical();
    }
    let forwarded = headers.get_all("x-forwarded-for").iter().next_back();
    let last = forwarded.and_then(|value| value.to_str().ok()).and_then(|list| list.rsplit(',').next());
    last.and_then(|ip| ip.trim().parse().ok()).unwrap_or(peer)
}

/// As whom an application service asks, and from which device (Application Service API, "Identity assertion"; MSC3202 for
/// the older name).
fn masquerade(query: Option<&str>) -> (Option<String>, Option<String>) {
    let (mut user, mut device, mut old) = (None, None, None);
    let pairs: Vec<(String, String)> = serde_html_form::from_str(query.unwrap_or_default()).unwrap_or_default();
    for (key, value) in pairs {
        match key.as_str() {
            "user_id" => user = Some(value),
            "device_id" => device = Some(value),
            "org.matrix.msc3202.device_id" => old = Some(value),
            _ => {}
        }
    }
    (user, device.or(old))
}

/// The access token, from `Authorization: Bearer` or, as older clients do, from the query string.
fn token(headers: &HeaderMap, query: Option<&str>) -> Result<Option<String>, Error> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let words = value.to_str().ok().and_then(|value| value.trim().split_once(' '));
        return match words {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim().to_owned())),
            // Some proxies and clients send other schemes along; the specification knows no other.
            _ => Err(Error::missing_token()),
        };
    }
    let pairs: Vec<(String, String)> = serde_html_form::from_str(query.unwrap_or_default()).unwrap_or_default();
    Ok(pairs.into_iter().find(|(key, _)| key == "access_token").map(|(_, token)| token))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn with(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), HeaderValue::from_static(value))])
    }

    #[test]
    fn the_token_is_found_where_clients_put_it() {
        let none = HeaderMap::new();
        assert_eq!(token(&with("authorization", "Bearer abc"), None), Ok(Some("abc".into())));
        assert_eq!(token(&with("authorization", "bearer  abc "), None), Ok(Some("abc".into())));
        assert_eq!(token(&none, Some("a=1&access_token=a%2Bc")), Ok(Some("a+c".into())));
        assert_eq!(token(&none, Some("a=1")), Ok(None));
        assert_eq!(token(&with("authorization", "Basic abc"), None), Err(Error::missing_token()));
    }

    #[test]
    fn services_say_as_whom_they_ask() {
        let both = masquerade(Some("user_id=%40a%3Ax&org.matrix.msc3202.device_id=OLD&device_id=NEW"));
        assert_eq!(both, (Some("@a:x".into()), Some("NEW".into())));
        assert_eq!(masquerade(Some("org.matrix.msc3202.device_id=OLD")), (None, Some("OLD".into())));
        assert_eq!(masquerade(None), (None, None));
    }

    #[test]
    fn only_a_proxy_here_is_believed() {
        let headers = with("x-forwarded-for", "1.2.3.4, 5.6.7.8");
        assert_eq!(client_ip("127.0.0.1".parse().unwrap(), &headers).to_string(), "5.6.7.8");
        assert_eq!(client_ip("::1".parse().unwrap(), &headers).to_string(), "5.6.7.8");
        assert_eq!(client_ip("9.9.9.9".parse().unwrap(), &headers).to_string(), "9.9.9.9");
        assert_eq!(client_ip("127.0.0.1".parse().unwrap(), &with("x-forwarded-for", "x")).to_string(), "127.0.0.1");
    }
}
