//! A browser that takes Web Push: it has a key of its own and reads what was encrypted for it (RFC 8291, RFC 8188), with another
//! hand than that of the server.

use aws_lc_rs::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree},
    hkdf::{HKDF_SHA256, KeyType, Prk, Salt},
    signature::{self, ECDSA_P256_SHA256_FIXED},
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::gateway::Pushed;

/// A browser, or one subscription of it.
pub struct Browser {
    key: PrivateKey,
    auth: [u8; 16],
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand(prk: &Prk, info: &[&[u8]], length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    prk.expand(info, Length(length)).and_then(|okm| okm.fill(&mut out)).expect("so many bytes can be had");
    out
}

impl Browser {
    /// A new subscription, whose secret is made of this byte.
    ///
    /// # Panics
    /// If no key can be made.
    pub fn new(auth: u8) -> Browser {
        Browser { key: PrivateKey::generate(&ECDH_P256).expect("a key"), auth: [auth; 16] }
    }

    fn public(&self) -> Vec<u8> {
        self.key.compute_public_key().expect("a public key").as_ref().to_vec()
    }

    /// `p256dh`: the push key.
    pub fn p256dh(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.public())
    }

    /// The secret of the subscription.
    pub fn auth(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.auth)
    }

    /// What a push says; `None`, if it is not for this subscription.
    pub fn read(&self, pushed: &Pushed) -> Option<Value> {
        let body = &pushed.body;
        let (salt, rest) = body.split_at_checked(16)?;
        let (size, rest) = rest.split_at_checked(4)?;
        let (length, rest) = rest.split_first()?;
        let (sender, record) = rest.split_at_checked(usize::from(*length))?;
        let size = u32::from_be_bytes(size.try_into().ok()?) as usize;
        if record.len() > size || body.len() > 4096 {
            return None;
        }
        let ikm = agree(&self.key, UnparsedPublicKey::new(&ECDH_P256, sender), (), |secret| {
            let prk = Salt::new(HKDF_SHA256, &self.auth).extract(secret);
            Ok(expand(&prk, &[b"WebPush: info\0", &self.public(), sender], 32))
        });
        let prk = Salt::new(HKDF_SHA256, salt).extract(&ikm.ok()?);
        let key = expand(&prk, &[b"Content-Encoding: aes128gcm\0"], 16);
        let nonce = expand(&prk, &[b"Content-Encoding: nonce\0"], 12);
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).ok()?);
        let mut record = record.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(&nonce).ok()?;
        let plain = key.open_in_place(nonce, Aad::empty(), &mut record).ok()?;
        let end = plain.iter().rposition(|byte| *byte != 0)?;
        if plain[end] != 2 {
            return None;
        }
        serde_json::from_slice(&plain[..end]).ok()
    }

    /// The claims of the server that pushes, if it has signed them with the key that the browser was told of (RFC 8292).
    pub fn claims(pushed: &Pushed, vapid: &str) -> Option<Value> {
        let (token, key) = pushed.header("authorization")?.strip_prefix("vapid t=")?.split_once(", k=")?;
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        let (signed, by) = token.rsplit_once('.')?;
        let public = signature::UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, bytes(vapid)?);
        public.verify(signed.as_bytes(), &bytes(by)?).ok()?;
        let (header, claims) = signed.split_once('.')?;
        let header: Value = serde_json::from_slice(&bytes(header)?).ok()?;
        let sound = key == vapid && header["alg"] == "ES256" && header["typ"] == "JWT";
        serde_json::from_slice(&bytes(claims)?).ok().filter(|_| sound)
    }
}
