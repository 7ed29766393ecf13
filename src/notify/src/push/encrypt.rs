//! Message Encryption for Web Push (RFC 8291): one record of `aes128gcm` (RFC 8188) that only the browser can read.

use aws_lc_rs::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree},
    hmac,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use stoa_store::Env;

use super::Error;

/// A message with all that goes before it has at most so many bytes: push services need not take more (RFC 8030, 7.2).
const MOST: usize = 4096;
/// Salt, record size, length of the key, key.
const HEADER: usize = 16 + 4 + 1 + POINT;
/// An uncompressed point of P-256.
const POINT: usize = 65;
/// What a message may have before it is encrypted: a tag and a delimiter are added.
pub(super) const MAX_PLAINTEXT: usize = MOST - HEADER - 16 - 1;

/// Where a browser takes messages: its public key, and the secret that shows that a message is for it.
#[derive(Clone, Debug)]
pub(super) struct Subscription {
    key: Vec<u8>,
    auth: Vec<u8>,
}

impl Subscription {
    /// Reads the push key and `auth` of a pusher; `None`, if they are no subscription.
    pub(super) fn read(key: &str, auth: &str) -> Option<Subscription> {
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok();
        let (key, auth) = (bytes(key)?, bytes(auth)?);
        let sound = key.len() == POINT && key.first() == Some(&4) && auth.len() == 16;
        // Whether it is a point of the curve shows where it is used.
        let mine = PrivateKey::from_private_key(&ECDH_P256, &[1; 32]).ok()?;
        let fits = agree(&mine, UnparsedPublicKey::new(&ECDH_P256, &key), (), |_| Ok(()));
        (sound && fits.is_ok()).then_some(Subscription { key, auth })
    }

    /// Encrypts a message with a key and a salt for this message alone.
    pub(super) fn encrypt(&self, env: &Env, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        let mut salt = [0; 16];
        env.random.fill(&mut salt);
        self.encrypt_with(&private_key(env)?.0, &salt, plaintext)
    }

    fn encrypt_with(&self, private: &PrivateKey, salt: &[u8; 16], plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        let bad = |_| Error::Message("the encryption of Web Push fails".to_owned());
        let public = private.compute_public_key().map_err(bad)?;
        let peer = UnparsedPublicKey::new(&ECDH_P256, &self.key);
        let ikm = agree(private, peer, aws_lc_rs::error::Unspecified, |shared| {
            let info = [b"WebPush: info\0", &self.key[..], public.as_ref()].concat();
            Ok(expand(&extract(&self.auth, shared), &info))
        })
        .map_err(bad)?;
        let prk = extract(salt, ikm.as_ref());
        let key = expand(&prk, b"Content-Encoding: aes128gcm\0");
        let nonce = expand(&prk, b"Content-Encoding: nonce\0");
        let key = UnboundKey::new(&AES_128_GCM, &key.as_ref()[..16]).map_err(bad)?;
        let nonce = Nonce::try_assume_unique_for_key(&nonce.as_ref()[..12]).map_err(bad)?;
        // 2 ends the last record.
        let mut record = [plaintext, &[2]].concat();
        LessSafeKey::new(key).seal_in_place_append_tag(nonce, Aad::empty(), &mut record).map_err(bad)?;
        let mut out = Vec::with_capacity(HEADER + record.len());
        out.extend_from_slice(salt);
        out.extend_from_slice(&(MOST as u32).to_be_bytes());
        out.push(POINT as u8);
        out.extend_from_slice(public.as_ref());
        out.extend_from_slice(&record);
        Ok(out)
    }
}

/// A new private key of P-256, and its bytes.
pub(super) fn private_key(env: &Env) -> Result<(PrivateKey, [u8; 32]), Error> {
    let mut seed = [0; 32];
    // One in four billion is no key.
    for _ in 0..8 {
        env.random.fill(&mut seed);
        if let Ok(key) = PrivateKey::from_private_key(&ECDH_P256, &seed) {
            return Ok((key, seed));
        }
    }
    Err(Error::Message("no key of P-256 can be made".to_owned()))
}

/// HKDF-Extract.
fn extract(salt: &[u8], ikm: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, salt), ikm)
}

/// HKDF-Expand of at most 32 bytes.
fn expand(prk: &hmac::Tag, info: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, prk.as_ref()), &[info, &[1]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    const UA_PUBLIC: &str = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

    #[test]
    fn rfc_8291_section_5() {
        let private = PrivateKey::from_private_key(&ECDH_P256, &bytes("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"));
        let salt = bytes("DGv6ra1nlYgDCS1FRnbzlw").try_into().unwrap();
        let subscription = Subscription::read(UA_PUBLIC, AUTH).unwrap();
        let plaintext = b"When I grow up, I want to be a watermelon";
        let sealed = subscription.encrypt_with(&private.unwrap(), &salt, plaintext).unwrap();
        let expected = concat!(
            "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27ml",
            "mlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPT",
            "pK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN",
        );
        assert_eq!(URL_SAFE_NO_PAD.encode(sealed), expected);
    }

    #[test]
    fn the_largest_message_fits() {
        let private = PrivateKey::from_private_key(&ECDH_P256, &[7; 32]).unwrap();
        let subscription = Subscription::read(UA_PUBLIC, AUTH).unwrap();
        let sealed = subscription.encrypt_with(&private, &[1; 16], &[b'x'; MAX_PLAINTEXT]).unwrap();
        assert_eq!(sealed.len(), MOST);
    }

    #[test]
    fn what_is_no_subscription_is_refused() {
        let off_the_curve = format!("{}AA", &UA_PUBLIC[..UA_PUBLIC.len() - 2]);
        for (key, auth) in [
            (&UA_PUBLIC[..80], AUTH),
            (UA_PUBLIC, &AUTH[..20]),
            (off_the_curve.as_str(), AUTH),
            ("", ""),
            ("not base64!", AUTH),
        ] {
            assert!(Subscription::read(key, auth).is_none(), "{key} {auth}");
        }
        assert!(Subscription::read(&format!("{UA_PUBLIC}="), &format!("{AUTH}==")).is_some());
    }
}
