//! Logging in by a JSON Web Token that somebody else signed (`org.matrix.login.jwt`, as Synapse has it): for organisations whose
//! own system knows who somebody is.

use std::str::FromStr;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde_json::{Map, Value};
use stoa_event::ids::OwnedUserId;
use stoa_store::{Tx, rows::users};

use crate::{Accounts, Error, Jwt, LoggedIn, NewDevice, Result, login::check_device, users::NewRow};

/// The longest token that is looked at.
const LONGEST: usize = 16 * 1024;

impl Jwt {
    /// Why these settings cannot be, if they cannot.
    ///
    /// # Errors
    /// The reason, for people.
    pub fn check(&self) -> std::result::Result<(), String> {
        if self.secret.is_empty() {
            return Err("the secret is empty: everybody could sign".to_owned());
        }
        self.key().map(drop)
    }

    fn key(&self) -> std::result::Result<(Algorithm, DecodingKey), String> {
        use Algorithm as A;
        let algorithm =
            A::from_str(&self.algorithm).map_err(|_| format!("the algorithm {} is unknown", self.algorithm))?;
        let pem = self.secret.as_bytes();
        let key = match algorithm {
            A::HS256 | A::HS384 | A::HS512 => Ok(DecodingKey::from_secret(pem)),
            A::ES256 | A::ES384 => DecodingKey::from_ec_pem(pem),
            A::EdDSA => DecodingKey::from_ed_pem(pem),
            A::RS256 | A::RS384 | A::RS512 | A::PS256 | A::PS384 | A::PS512 => DecodingKey::from_rsa_pem(pem),
            _ => return Err(format!("the algorithm {} is not supported", self.algorithm)),
        };
        Ok((algorithm, key.map_err(|why| format!("the key cannot be read: {why}"))?))
    }

    /// The claims of a token that is signed and in force.
    fn claims(&self, token: &str, now_ms: u64) -> Result<Map<String, Value>> {
        let refused = Error::Forbidden("the token is not valid");
        let Ok((algorithm, key)) = self.key() else { return Err(refused) };
        let mut validation = Validation::new(algorithm);
        validation.required_spec_claims.clear();
        // By the clock of this house, below.
        (validation.validate_exp, validation.validate_nbf) = (false, false);
        validation.validate_aud = !self.audiences.is_empty();
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        if !self.audiences.is_empty() {
            validation.set_audience(&self.audiences);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        let Ok(token) = decode::<Map<String, Value>>(token, &key, &validation) else { return Err(refused) };
        let claims = token.claims;
        let now = now_ms as f64 / 1000.0;
        let ends = claims.get("exp").map(|exp| exp.as_f64().is_none_or(|exp| exp <= now));
        let begins = claims.get("nbf").map(|nbf| nbf.as_f64().is_none_or(|nbf| nbf > now));
        match ends.unwrap_or(false) || begins.unwrap_or(false) {
            true => Err(Error::Forbidden("the token has ended, or does not count yet")),
            false => Ok(claims),
        }
    }
}

impl Accounts {
    /// Logs in with a token of the one who is believed; makes the account if there is none.
    ///
    /// # Errors
    /// [`Error::Unknown`] where nobody is believed, [`Error::Forbidden`], [`Error::UserDeactivated`], [`Error::UserLocked`],
    /// [`Error::InvalidUsername`], [`Error::InvalidParam`]
    pub async fn login_by_jwt(&self, token: &str, device: &NewDevice) -> Result<LoggedIn> {
        let Some(jwt) = &self.config().jwt else {
            return Err(Error::Unknown("this server does not know that way to log in"));
        };
        check_device(device)?;
        if token.len() > LONGEST {
            return Err(Error::Forbidden("the token is not valid"));
        }
        let claims = jwt.claims(token, self.env().now_ms())?;
        let Some(name) = claims.get(&jwt.subject_claim).and_then(Value::as_str) else {
            return Err(Error::Forbidden("the token does not say who it is for"));
        };
        let user = self.new_user_id(name)?;
        if self.account(&user).await?.is_none() {
            let shown = jwt.display_name_claim.as_ref().and_then(|claim| claims.get(claim)?.as_str());
            self.make_trusted(&user, shown).await?;
        }
        self.login_trusted(&user, device).await
    }

    /// An account without a password. That somebody else just made it is as good.
    async fn make_trusted(&self, user: &OwnedUserId, shown: Option<&str>) -> Result<()> {
        let _guard = self.lock_name(user).await;
        let snapshot = self.store().snapshot().await?;
        let mut tx = Tx::new();
        let no = match self.add_user(&snapshot, &mut tx, user, NewRow::default()).await {
            Err(Error::UserInUse) => return Ok(()),
            other => other?,
        };
        if let Some(shown) = shown.filter(|shown| shown.len() <= 256) {
            users::put_profile_field(&mut tx, no, crate::DISPLAYNAME, Some(&Value::from(shown).to_string().into()));
        }
        match self.commit_new(tx).await {
            Err(Error::UserInUse) => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    fn jwt(fields: Value) -> Jwt {
        serde_json::from_value(fields).unwrap()
    }

    fn signed(claims: Value, algorithm: Algorithm, secret: &str) -> String {
        encode(&Header::new(algorithm), &claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    }

    #[test]
    fn only_what_is_signed_as_agreed_and_in_force_counts() {
        let jwt = jwt(json!({ "secret": "s3cret", "issuer": "us", "audiences": ["a", "b"] }));
        let good = json!({ "sub": "alice", "iss": "us", "aud": "b", "exp": 100, "nbf": 50 });
        let claims = |claims: &Value| jwt.claims(&signed(claims.clone(), Algorithm::HS256, "s3cret"), 99_000);
        assert_eq!(claims(&good).unwrap()["sub"], "alice");
        for (field, value) in [
            ("iss", json!("them")),
            ("iss", Value::Null),
            ("aud", json!("c")),
            ("aud", Value::Null),
            ("exp", json!(99)),
            ("exp", json!("never")),
            ("nbf", json!(100)),
        ] {
            let mut bad = good.clone();
            bad[field] = value.clone();
            assert!(claims(&bad).is_err(), "{field} {value}");
        }
        assert!(jwt.claims(&signed(good.clone(), Algorithm::HS512, "s3cret"), 99_000).is_err(), "another algorithm");
        assert!(jwt.claims(&signed(good.clone(), Algorithm::HS256, "other"), 99_000).is_err(), "another secret");
        let unsigned = signed(good, Algorithm::HS256, "s3cret");
        let (head, _) = unsigned.rsplit_once('.').unwrap();
        assert!(jwt.claims(&format!("{head}."), 99_000).is_err());
        assert!(jwt.claims("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.", 99_000).is_err(), "signed by nobody");
    }

    #[test]
    fn settings_that_cannot_be_are_told() {
        assert!(jwt(json!({ "secret": "x" })).check().is_ok());
        assert!(jwt(json!({ "secret": "" })).check().is_err());
        assert!(jwt(json!({ "secret": "x", "algorithm": "none" })).check().is_err());
        assert!(jwt(json!({ "secret": "no key", "algorithm": "RS256" })).check().is_err());
    }
}
