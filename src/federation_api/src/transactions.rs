//! What other servers send (Server-Server API, "Transactions").

use axum::{Router, extract::State, routing::put};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};
use stoa_federation::{Edu, Federation, Transaction};
use stoa_http::{
    Error, Json, Result, Segments,
    origin::{Origin, SignedBody},
};

use crate::Api;

/// The most events that one transaction may have.
const MAX_PDUS: usize = 50;
/// The most EDUs that one transaction may have.
const MAX_EDUS: usize = 100;

pub(crate) fn routes() -> Router<Api> {
    Router::new().route("/_matrix/federation/v1/send/{txnId}", put(send))
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, default)]
    pdus: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    edus: Vec<&'a RawValue>,
}

/// `PUT /_matrix/federation/v1/send/{txnId}`
async fn send(
    Origin(origin): Origin,
    State(federation): State<Federation>,
    Segments(id): Segments<String>,
    SignedBody(body): SignedBody,
) -> Result<Json<Value>> {
    let (pdus, edus) = read(&body)?;
    let received = federation.hear(&origin, Transaction { id, pdus, edus }).await?;
    let answer = received.iter().map(|(id, result)| match result {
        Ok(()) => (id.to_string(), json!({})),
        Err(why) => (id.to_string(), json!({ "error": why })),
    });
    Ok(Json(json!({ "pdus": answer.collect::<Map<_, _>>() })))
}

/// The events of a transaction and the number of its EDUs, if it can be read: for fuzzing.
#[doc(hidden)]
pub fn read_transaction(body: &Bytes) -> Option<(Vec<Bytes>, usize)> {
    read(body).ok().map(|(pdus, edus)| (pdus, edus.len()))
}

/// The events and EDUs of a transaction, as they stand in it. What is wrong with one of them is its own affair.
fn read(body: &Bytes) -> Result<(Vec<Bytes>, Vec<Edu>)> {
    let transaction: Body<'_> = serde_json::from_slice(body).map_err(|why| match why.classify() {
        serde_json::error::Category::Data => Error::bad_json(why.to_string()),
        _ => Error::not_json(why.to_string()),
    })?;
    // To serde a list is a struct without names.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(Error::bad_json("a transaction is an object"));
    }
    if transaction.pdus.len() > MAX_PDUS || transaction.edus.len() > MAX_EDUS {
        return Err(Error::invalid_param(format!("a transaction has at most {MAX_PDUS} PDUs and {MAX_EDUS} EDUs")));
    }
    let pdus = transaction.pdus.into_iter().map(|pdu| body.slice_ref(pdu.get().as_bytes()));
    let edus = transaction.edus.into_iter().filter_map(|edu| serde_json::from_str(edu.get()).ok());
    Ok((pdus.collect(), edus.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_bytes_that_came() {
        let body = Bytes::from(
            r#"{"origin":"x","pdus":[{ "a" : 1e3 }, [], "no event"],"edus":[{"edu_type":"m.typing","content":{}},{},1]}"#,
        );
        let (pdus, edus) = read(&body).unwrap();
        assert_eq!(pdus, [r#"{ "a" : 1e3 }"#, "[]", r#""no event""#]);
        assert_eq!(edus.iter().map(|edu| edu.edu_type.as_str()).collect::<Vec<_>>(), ["m.typing"]);
        assert!(read(&Bytes::from("{}")).is_ok_and(|(pdus, edus)| pdus.is_empty() && edus.is_empty()));
    }

    #[test]
    fn one_that_is_nested_deeply_does_not_spoil_the_others() {
        let deep = format!("{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let body = Bytes::from(format!(r#"{{"pdus":[{{}},{deep},{{}}]}}"#));
        assert_eq!(read(&body).unwrap().0.len(), 3);
    }

    #[test]
    fn what_is_no_transaction_is_refused() {
        for (body, errcode) in [("{", "M_NOT_JSON"), ("[]", "M_BAD_JSON"), (r#"{"pdus":{}}"#, "M_BAD_JSON")] {
            assert_eq!(read(&Bytes::from(body)).unwrap_err().errcode, errcode, "{body}");
        }
        for (name, most) in [("pdus", MAX_PDUS), ("edus", MAX_EDUS)] {
            let with = |n| Bytes::from(json!({ name: vec![json!({}); n] }).to_string());
            assert!(read(&with(most)).is_ok());
            assert_eq!(read(&with(most + 1)).unwrap_err().errcode, "M_INVALID_PARAM");
        }
    }
}
