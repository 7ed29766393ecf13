//! Ed25519 keys that sign JSON (Appendices, "Signing JSON"), for device keys and cross-signing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};

/// One key pair.
pub struct Keys(SigningKey);

impl Keys {
    /// The key pair of this seed.
    pub fn new(seed: u8) -> Self {
        Self(SigningKey::from_bytes(&[seed; 32]))
    }

    /// The public key in unpadded base64.
    pub fn public(&self) -> String {
        STANDARD_NO_PAD.encode(self.0.verifying_key().as_bytes())
    }

    /// The key ID of a cross-signing key, which is named after itself.
    pub fn id(&self) -> String {
        format!("ed25519:{}", self.public())
    }

    /// A cross-signing key of this usage.
    pub fn cross_signing(&self, user: &str, usage: &str) -> Value {
        json!({ "user_id": user, "usage": [usage], "keys": { self.id(): self.public() } })
    }

    /// The keys of a device, signed by the device itself.
    pub fn device(&self, user: &str, device: &str) -> Value {
        let keys = json!({
            "user_id": user,
            "device_id": device,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": {
                format!("curve25519:{device}"): self.public(),
                format!("ed25519:{device}"): self.public(),
            },
        });
        self.sign(user, &format!("ed25519:{device}"), keys)
    }

    /// Adds a signature under this key ID.
    pub fn sign(&self, user: &str, key_id: &str, mut object: Value) -> Value {
        let mut bare = object.clone();
        if let Some(fields) = bare.as_object_mut() {
            fields.remove("signatures");
            fields.remove("unsigned");
        }
        let signature = self.0.sign(canonical(&bare).as_bytes());
        object["signatures"][user][key_id] = json!(STANDARD_NO_PAD.encode(signature.to_bytes()));
        object
    }
}

/// Canonical JSON of values without control characters, which is all that is signed here.
pub(crate) fn canonical(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut keys: Vec<&String> = fields.keys().collect();
            keys.sort();
            let parts: Vec<String> =
                keys.into_iter().map(|key| format!("{}:{}", json!(key), canonical(&fields[key]))).collect();
            format!("{{{}}}", parts.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}
