//! Push rules (Client-Server API, "Push Rules: API").

use axum::{Router, extract::State, routing::get};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use stoa_accounts::{Accounts, push_rules::NewRule};
use stoa_http::{Body, Empty, Error, Json, Params, Result, Segments, Who};
use stoa_store::rows::push_rules::global;

use crate::{Api, paths::Paths};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .v3("/pushrules", get(all))
        .v3("/pushrules/", get(all))
        .v3("/pushrules/{scope}", get(scope))
        .v3("/pushrules/{scope}/", get(scope))
        .v3("/pushrules/{scope}/{kind}", get(kind))
        .v3("/pushrules/{scope}/{kind}/", get(kind))
        .v3("/pushrules/{scope}/{kind}/{ruleId}", get(one).put(put).delete(delete))
        .v3("/pushrules/{scope}/{kind}/{ruleId}/enabled", get(enabled).put(set_enabled))
        .v3("/pushrules/{scope}/{kind}/{ruleId}/actions", get(actions).put(set_actions))
}

/// Scope, kind and id of a rule.
type Rule = (String, String, String);

/// The only scope.
fn only_global(scope: &str) -> Result<()> {
    if scope == "global" { Ok(()) } else { Err(Error::invalid_param("The only scope is global")) }
}

/// `GET /_matrix/client/v3/pushrules/`
async fn all(State(accounts): State<Accounts>, who: Who) -> Result<Json<Value>> {
    Ok(Json(json!({ "global": global(&accounts.push_rules(&who).await?) })))
}

/// `GET /_matrix/client/v3/pushrules/global/`
async fn scope(State(accounts): State<Accounts>, who: Who, Segments(scope): Segments<String>) -> Result<Json<Value>> {
    only_global(&scope)?;
    Ok(Json(global(&accounts.push_rules(&who).await?)))
}

/// `GET /_matrix/client/v3/pushrules/global/{kind}`, which older clients ask.
async fn kind(
    State(accounts): State<Accounts>,
    who: Who,
    Segments((scope, kind)): Segments<(String, String)>,
) -> Result<Json<Value>> {
    only_global(&scope)?;
    let rules = global(&accounts.push_rules(&who).await?);
    let rules = rules.get(&kind).ok_or_else(|| Error::invalid_param("There is no such kind of rules"))?;
    Ok(Json(rules.clone()))
}

/// `GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
async fn one(
    State(accounts): State<Accounts>,
    who: Who,
    Segments((scope, kind, id)): Segments<Rule>,
) -> Result<Json<Map<String, Value>>> {
    only_global(&scope)?;
    Ok(Json(accounts.push_rule(&who, &kind, &id).await?))
}

#[derive(Deserialize)]
struct Place {
    before: Option<String>,
    after: Option<String>,
}

/// `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
async fn put(
    State(accounts): State<Accounts>,
    who: Who,
    Segments((scope, kind, id)): Segments<Rule>,
    Params(place): Params<Place>,
    Body(rule): Body<NewRule>,
) -> Result<Empty> {
    only_global(&scope)?;
    let (before, after) = (place.before.as_deref(), place.after.as_deref());
    accounts.put_push_rule(&who, &kind, &id, &rule, before, after).await?;
    Ok(Empty {})
}

/// `DELETE /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
async fn delete(
    State(accounts): State<Accounts>,
    who: Who,
    Segments((scope, kind, id)): Segments<Rule>,
) -> Result<Empty> {
    only_global(&scope)?;
    accounts.delete_push_rule(&who, &kind, &id).await?;
    Ok(Empty {})
}

/// One field of a rule.
async fn field(accounts: &Accounts, who: &Who, (scope, kind, id): Rule, name: &str) -> Result<Json<Value>> {
    only_global(&scope)?;
    let mut rule = accounts.push_rule(who, &kind, &id).await?;
    Ok(Json(json!({ name: rule.remove(name) })))
}

/// `GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled`
async fn enabled(State(accounts): State<Accounts>, who: Who, Segments(rule): Segments<Rule>) -> Result<Json<Value>> {
    field(&accounts, &who, rule, "enabled").await
}

/// `GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions`
async fn actions(State(accounts): State<Accounts>, who: Who, Segments(rule): Segments<Rule>) -> Result<Json<Value>> {
    field(&accounts, &who, rule, "actions").await
}

#[derive(Deserialize)]
struct Enabled {
    enabled: bool,
}

/// `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled`
async fn set_enabled(
    State(accounts): State<Accounts>,
    who: Who,
    Segments((scope, kind, id)): Segments<Rule>,
    Body(body): Body<Enabled>,
) -> Result<Empty> {
    only_global(&scope)?;
    accounts.enable_push_rule(&who, &kind, &id, body.enabled).await?;
    Ok(Empty {})
}

#[derive(Deserialize)]
struct Actions {
    actions: Vec<Value>,
}

/// `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions`
async fn set_actions(
    State(accounts): State<Accounts>,
    who: Who,
    Segments((scope, kind, id)): Segments<Rule>,
    Body(body): Body<Actions>,
) -> Result<Empty> {
    only_global(&scope)?;
    accounts.set_push_rule_actions(&who, &kind, &id, &body.actions).await?;
    Ok(Empty {})
}
