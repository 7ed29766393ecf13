//! Voluntary Application Server Identification (RFC 8292): browsers let only the server push that they were told of. Its key is
//! made at the first start and kept in the store.

use aws_lc_rs::{
    agreement::{ECDH_P256, PrivateKey},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde_json::json;
use stoa_remote::outside::Url;
use stoa_store::{Env, Store, Tx, rows};

use super::{Error, encrypt};

/// Under which name the key is kept.
const NAME: &str = "vapid_key";
/// How long a token holds; a day is the most that is allowed.
const LIFE_S: u64 = 12 * 60 * 60;

/// The key, and whom to ask about it.
pub(super) struct Vapid {
    pair: EcdsaKeyPair,
    public: String,
    contact: String,
}

impl Vapid {
    /// The key of this server; a new one, if it has none.
    pub(super) async fn open(store: &Store, env: &Env, contact: String) -> Result<Vapid, Error> {
        let kept = rows::server::get(&store.snapshot().await?, NAME).await?;
        let seed = match kept {
            Some(kept) => kept,
            None => {
                let (_, seed) = encrypt::private_key(env)?;
                let seed = Bytes::copy_from_slice(&seed);
                let mut tx = Tx::new();
                rows::server::put(&mut tx, NAME, &seed);
                store.commit(tx).await?;
                seed
            }
        };
        Vapid::of(&seed, contact)
    }

    fn of(seed: &[u8], contact: String) -> Result<Vapid, Error> {
        let bad = |_| Error::Message("the key of Web Push in the database is damaged".to_owned());
        let key = PrivateKey::from_private_key(&ECDH_P256, seed).map_err(bad)?;
        let public = key.compute_public_key().map_err(|why| bad(why.into()))?;
        let pair =
            EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_FIXED_SIGNING, seed, public.as_ref());
        Ok(Vapid { pair: pair.map_err(bad)?, public: URL_SAFE_NO_PAD.encode(public.as_ref()), contact })
    }

    /// The public key, an uncompressed point in URL-safe base64.
    pub(super) fn public(&self) -> &str {
        &self.public
    }

    /// `Authorization` for a push service.
    pub(super) fn authorization(&self, url: &Url, now_ms: u64) -> Result<String, Error> {
        let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let audience = url.origin().ascii_serialization();
        let claims = json!({ "aud": audience, "exp": now_ms / 1000 + LIFE_S, "sub": self.contact });
        let signed = format!("{}.{}", part(json!({ "typ": "JWT", "alg": "ES256" })), part(claims));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = signature.map_err(|_| Error::Message("a token of Web Push cannot be signed".to_owned()))?;
        Ok(format!("vapid t={signed}.{}, k={}", URL_SAFE_NO_PAD.encode(signature.as_ref()), self.public))
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;

    #[test]
    fn a_token_is_for_one_service_and_signed() {
        let vapid = Vapid::of(&[9; 32], "mailto:a@example.org".to_owned()).unwrap();
        let url = Url::parse("https://push.example.org:8443/wpush/v2/abc").unwrap();
        let header = vapid.authorization(&url, 1_000_000).unwrap();
        let (token, key) = header.strip_prefix("vapid t=").unwrap().split_once(", k=").unwrap();
        assert_eq!(key, vapid.public());
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, bytes(key));
        public.verify(signed.as_bytes(), &bytes(signature)).unwrap();
        let parts: Vec<serde_json::Value> =
            signed.split('.').map(|part| serde_json::from_slice(&bytes(part)).unwrap()).collect();
        assert_eq!(parts[0], json!({ "typ": "JWT", "alg": "ES256" }));
        let expected =
            json!({ "aud": "https://push.example.org:8443", "exp": 1000 + LIFE_S, "sub": "mailto:a@example.org" });
        assert_eq!(parts[1], expected);
        assert!(Vapid::of(&[0; 32], String::new()).is_err());
    }
}
