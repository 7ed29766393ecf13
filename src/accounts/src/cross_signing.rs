//! Cross-signing (Client-Server API, "Cross-signing"): a user's three keys, and signatures on keys.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use stoa_event::{
    hash::base64_decode,
    ids::{OwnedUserId, UserId},
    json::canonical,
    sign::VerifyKey,
};
use stoa_store::{Snapshot, Tx, UserNo, rows, schema};

use crate::{
    Accounts, Error, Result, Who,
    keys::{are_signatures, merge_signatures, without_signatures},
    uia::{AuthData, Operation},
};

/// The keys that a user uploads.
#[derive(Clone, Debug, Default)]
pub struct CrossSigningUpload {
    /// `master_key`
    pub master: Option<Value>,
    /// `self_signing_key`
    pub self_signing: Option<Value>,
    /// `user_signing_key`
    pub user_signing: Option<Value>,
}

/// What was wrong with signatures: by user and key, an error as the specification words it.
pub type SignatureFailures = BTreeMap<String, BTreeMap<String, Value>>;

impl Accounts {
    /// Sets the cross-signing keys of who asks. Replacing them needs more authentication; setting the first does not.
    ///
    /// # Errors
    /// [`Error::Challenge`], [`Error::InvalidSignature`], [`Error::MissingParam`] without a master key
    pub async fn upload_cross_signing(
        &self,
        who: &Who,
        upload: CrossSigningUpload,
        auth: Option<&AuthData>,
    ) -> Result<()> {
        let snapshot = self.store().snapshot().await?;
        if self.replaces(&snapshot, who, &upload).await? {
            let proof = self.confirm(who, Operation::cross_signing(), auth).await?;
            let done = self.put_cross_signing(who, upload).await;
            return self.settle(proof, done);
        }
        self.put_cross_signing(who, upload).await
    }

    /// Whether a key is there already that would become another.
    async fn replaces(&self, snapshot: &Snapshot, who: &Who, upload: &CrossSigningUpload) -> Result<bool> {
        for (usage, key) in parts(upload) {
            let old = self.cross_signing_key(snapshot, who.user_no, usage).await?;
            if old.is_some_and(|old| without_signatures(&old) != without_signatures(key)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn put_cross_signing(&self, who: &Who, upload: CrossSigningUpload) -> Result<()> {
        let _guard = self.lock(who.user_no).await;
        let snapshot = self.store().snapshot().await?;
        let master = match &upload.master {
            Some(master) => Some(master.clone()),
            None => self.cross_signing_key(&snapshot, who.user_no, "master").await?,
        };
        let master = master.ok_or(Error::MissingParam("master_key"))?;
        let master_key = check(&who.user, "master", &master)?.1;
        let mut tx = Tx::new();
        for (usage, key) in parts(&upload) {
            let (name, _) = check(&who.user, usage, key)?;
            let id = name.trim_start_matches("ed25519:").to_owned();
            if snapshot.has(&schema::DEVICES, &(who.user_no, id)).await? {
                return Err(Error::Forbidden("a cross-signing key may not be named like a device"));
            }
            if usage != "master" && !is_signed(key, &who.user, &master_key) {
                return Err(Error::InvalidSignature(format!("the {usage} key is not signed by the master key")));
            }
            let mut key = key.clone();
            if let Some(old) = self.cross_signing_key(&snapshot, who.user_no, usage).await?
                && without_signatures(&old) == without_signatures(&key)
            {
                merge_signatures(&mut key, &old);
                if key == old {
                    continue;
                }
            }
            rows::keys::put_cross_signing_key(&mut tx, who.user_no, usage, &key.to_string().into());
        }
        if tx.is_empty() {
            return Ok(());
        }
        self.note_devices_changed(&snapshot, &mut tx, who.user_no).await?;
        self.store().commit(tx).await?;
        Ok(())
    }

    async fn cross_signing_key(&self, snapshot: &Snapshot, user: UserNo, usage: &str) -> Result<Option<Value>> {
        let row = snapshot.get(&schema::CROSS_SIGNING_KEYS, &(user, usage.to_owned())).await?;
        Ok(row.and_then(|json| serde_json::from_slice(&json).ok()))
    }

    /// Whether a cross-signing key of a user has that id, so that no device may.
    pub(crate) async fn is_cross_signing_key(&self, snapshot: &Snapshot, user: UserNo, id: &str) -> Result<bool> {
        for usage in ["master", "self_signing", "user_signing"] {
            let key = self.cross_signing_key(snapshot, user, usage).await?;
            if key.as_ref().and_then(key_of).is_some_and(|(name, _)| name.strip_prefix("ed25519:") == Some(id)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes signatures that who asks made on keys: own devices, the own master key, master keys of others. Each is
    /// verified; what was wrong is the answer, and nothing of it is kept.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn upload_signatures(
        &self,
        who: &Who,
        signed: &BTreeMap<OwnedUserId, Map<String, Value>>,
    ) -> Result<SignatureFailures> {
        let _guard = self.lock(who.user_no).await;
        let snapshot = self.store().snapshot().await?;
        let mut tx = Tx::new();
        let mut failures = SignatureFailures::new();
        let mut own = false;
        for (user, objects) in signed {
            for (id, object) in objects {
                let done = if *user == who.user {
                    own = true;
                    self.sign_own(&snapshot, &mut tx, who, id, object).await?
                } else {
                    self.sign_other(&snapshot, &mut tx, who, user, id, object).await?
                };
                if let Err((errcode, error)) = done {
                    let failure = json!({ "errcode": errcode, "error": error });
                    failures.entry(user.to_string()).or_default().insert(id.clone(), failure);
                }
            }
        }
        if !tx.is_empty() {
            // A signature on somebody else's key is shown only to who made it, and told to nobody else.
            if own {
                self.note_devices_changed(&snapshot, &mut tx, who.user_no).await?;
            }
            self.store().commit(tx).await?;
        }
        Ok(failures)
    }

    /// A signature on an own device by the self-signing key, or on the own master key by an own device.
    async fn sign_own(&self, snapshot: &Snapshot, tx: &mut Tx, who: &Who, id: &str, object: &Value) -> Result<Verdict> {
        let device = snapshot.get(&schema::DEVICE_KEYS, &(who.user_no, id.to_owned())).await?;
        let master = self.cross_signing_key(snapshot, who.user_no, "master").await?;
        let (stored, is_device) = match (device.and_then(|json| serde_json::from_slice::<Value>(&json).ok()), master) {
            (Some(device), _) => (device, true),
            (None, Some(master)) if key_of(&master).is_some_and(|(name, _)| name == format!("ed25519:{id}")) => {
                (master, false)
            }
            _ => return Ok(Err(("M_NOT_FOUND", "there is no such key".into()))),
        };
        let signatures = match given(who, object, &stored) {
            Ok(signatures) => signatures,
            Err(failure) => return Ok(Err(failure)),
        };
        let mut merged = stored.clone();
        for (key_id, signature) in signatures {
            let Some(key) = self.signer(snapshot, who, &key_id, is_device).await? else {
                return Ok(Err(("M_INVALID_SIGNATURE", format!("{key_id} may not sign this key"))));
            };
            if !verifies(&stored, &signature, &key) {
                return Ok(Err(("M_INVALID_SIGNATURE", format!("the signature by {key_id} is wrong"))));
            }
            merged["signatures"][who.user.as_str()][key_id.as_str()] = signature.into();
        }
        if merged != stored {
            let json = merged.to_string().into();
            match is_device {
                true => rows::keys::put_device_keys(tx, who.user_no, id, &json),
                false => rows::keys::put_cross_signing_key(tx, who.user_no, "master", &json),
            }
        }
        Ok(Ok(()))
    }

    /// The key of the user who asks that may sign: the self-signing key (and the device itself) signs devices, a device
    /// signs the master key.
    async fn signer(&self, snapshot: &Snapshot, who: &Who, key_id: &str, devices: bool) -> Result<Option<VerifyKey>> {
        let Some(id) = key_id.strip_prefix("ed25519:") else { return Ok(None) };
        if devices
            && let Some(key) = self.cross_signing_key(snapshot, who.user_no, "self_signing").await?
            && let Some((name, key)) = key_of(&key)
            && name == key_id
        {
            return Ok(Some(key));
        }
        let row = snapshot.get(&schema::DEVICE_KEYS, &(who.user_no, id.to_owned())).await?;
        let device = row.and_then(|json| serde_json::from_slice::<Value>(&json).ok());
        Ok(device.and_then(|device| VerifyKey::parse(device["keys"][key_id].as_str()?).ok()))
    }

    /// A signature on somebody else's master key by the user-signing key.
    async fn sign_other(
        &self,
        snapshot: &Snapshot,
        tx: &mut Tx,
        who: &Who,
        user: &UserId,
        id: &str,
        object: &Value,
    ) -> Result<Verdict> {
        let missing = || ("M_NOT_FOUND", "there is no such key".to_owned());
        let Some(target) = self.store().names().user(snapshot, user.as_str()).await? else { return Ok(Err(missing())) };
        let Some(master) = self.cross_signing_key(snapshot, target, "master").await? else { return Ok(Err(missing())) };
        if key_of(&master).is_none_or(|(name, _)| name != format!("ed25519:{id}")) {
            return Ok(Err(missing()));
        }
        let Some(own) = self.cross_signing_key(snapshot, who.user_no, "user_signing").await? else {
            return Ok(Err(("M_INVALID_SIGNATURE", "you have no user-signing key".into())));
        };
        let signatures = match given(who, object, &master) {
            Ok(signatures) => signatures,
            Err(failure) => return Ok(Err(failure)),
        };
        let before = rows::keys::signed_at(snapshot, who.user_no, target).await?;
        for (key_id, signature) in signatures {
            let right = key_of(&own).is_some_and(|(name, key)| name == key_id && verifies(&master, &signature, &key));
            if !right {
                return Ok(Err(("M_INVALID_SIGNATURE", format!("the signature by {key_id} is wrong"))));
            }
            let slot = tx.slot();
            rows::keys::put_own_signature(tx, slot, (who.user_no, target), &key_id, &signature, &before);
        }
        Ok(Ok(()))
    }
}

/// An errcode and a sentence, for one key.
type Failure = (&'static str, String);
type Verdict = std::result::Result<(), Failure>;

fn parts(upload: &CrossSigningUpload) -> impl Iterator<Item = (&'static str, &Value)> {
    [("master", &upload.master), ("self_signing", &upload.self_signing), ("user_signing", &upload.user_signing)]
        .into_iter()
        .filter_map(|(usage, key)| Some((usage, key.as_ref()?)))
}

/// The name and the key of a cross-signing key object, which has just one.
fn key_of(object: &Value) -> Option<(String, VerifyKey)> {
    let keys = object.get("keys")?.as_object().filter(|keys| keys.len() == 1)?;
    let (name, key) = keys.iter().next()?;
    Some((name.clone(), VerifyKey::parse(key.as_str()?).ok()?))
}

fn check(user: &UserId, usage: &str, object: &Value) -> Result<(String, VerifyKey)> {
    if object.get("user_id").and_then(Value::as_str) != Some(user.as_str()) {
        return Err(Error::InvalidParam(format!("the {usage} key is for another user")));
    }
    let usages = object.get("usage").and_then(Value::as_array);
    if !usages.is_some_and(|usages| usages.iter().any(|it| it.as_str() == Some(usage))) {
        return Err(Error::InvalidParam(format!("the {usage} key does not say that usage")));
    }
    if object.get("signatures").is_some_and(|signatures| !are_signatures(signatures)) {
        return Err(Error::BadJson(format!("the signatures of the {usage} key are none")));
    }
    key_of(object).ok_or_else(|| Error::InvalidParam(format!("the {usage} key must have one ed25519 key")))
}

fn is_signed(object: &Value, user: &UserId, by: &VerifyKey) -> bool {
    let signatures = object["signatures"][user.as_str()].as_object();
    signatures
        .is_some_and(|all| all.values().filter_map(Value::as_str).any(|signature| verifies(object, signature, by)))
}

fn verifies(object: &Value, signature: &str, key: &VerifyKey) -> bool {
    let Ok(message) = canonical(without_signatures(object).to_string().as_bytes()) else { return false };
    let signature = base64_decode(signature).and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
    signature.is_some_and(|signature| key.verify(&message, &signature))
}

/// The signatures of who asks on an object that must be the stored one.
fn given(who: &Who, object: &Value, stored: &Value) -> std::result::Result<Vec<(String, String)>, Failure> {
    if without_signatures(object) != without_signatures(stored) {
        return Err(("M_INVALID_SIGNATURE", "the signed key is not the one that is known".into()));
    }
    let known = &stored["signatures"][who.user.as_str()];
    let signatures = object["signatures"][who.user.as_str()].as_object();
    let all = signatures.ok_or_else(|| ("M_INVALID_SIGNATURE", "there is no signature of yours".to_owned()))?;
    // Those that are there already were verified when they came, or are the device's own.
    let new = all.iter().filter(|(key_id, signature)| known[key_id.as_str()] != **signature);
    let text = |(key_id, signature): (&String, &Value)| match signature.as_str() {
        Some(signature) => Ok((key_id.clone(), signature.to_owned())),
        None => Err(("M_INVALID_SIGNATURE", format!("the signature by {key_id} is no string"))),
    };
    new.map(text).collect()
}
