//! The section `[media.bucket]`: uploads in an S3-compatible bucket instead of the data folder.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;
use stoa_media::BucketConfig as Bucket;

use super::{Error, Secret};

/// The longest time for which Amazon signs a link.
const MAX_LINK_MINUTES: u64 = 7 * 24 * 60;

/// A bucket.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BucketConfig {
    /// Its name; without one there is none.
    pub name: String,
    /// The URL of the service; without it Amazon's.
    pub endpoint: Option<String>,
    /// The region.
    pub region: String,
    /// What the names of all objects begin with.
    pub prefix: String,
    /// The id of the key. Without one, the environment says it (`AWS_ACCESS_KEY_ID` and its like), or the role of the machine.
    pub access_key: Option<String>,
    /// The key itself.
    pub secret_key: Option<Secret>,
    /// The file in which the key stands.
    pub secret_key_file: Option<PathBuf>,
    /// Whether the name of the bucket is part of the host (`name.s3.example.org`) instead of the path.
    pub virtual_host: bool,
    /// For how many minutes a link to the bucket is good that clients which can be sent there get instead of the file; `0`:
    /// none are.
    pub link_minutes: u64,
}

impl Default for BucketConfig {
    fn default() -> Self {
        BucketConfig {
            name: String::new(),
            endpoint: None,
            region: "us-east-1".to_owned(),
            prefix: String::new(),
            access_key: None,
            secret_key: None,
            secret_key_file: None,
            virtual_host: false,
            link_minutes: 0,
        }
    }
}

impl BucketConfig {
    pub(super) fn check(&self) -> Result<(), Error> {
        let bad = |option, why: &str| Err(Error::Value { option, why: why.to_owned() });
        if self.name.is_empty() {
            return match *self == BucketConfig::default() {
                true => Ok(()),
                false => bad("media.bucket.name", "there is no name of a bucket"),
            };
        }
        if self.endpoint.as_ref().is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
            return bad("media.bucket.endpoint", "it must begin with http:// or https://");
        }
        if self.access_key.is_some() != (self.secret_key.is_some() || self.secret_key_file.is_some()) {
            return bad("media.bucket.access_key", "access_key and secret_key (or secret_key_file) need each other");
        }
        if self.secret_key.is_some() && self.secret_key_file.is_some() {
            return bad("media.bucket.secret_key_file", "there is a secret_key too");
        }
        if self.link_minutes > MAX_LINK_MINUTES {
            return bad("media.bucket.link_minutes", "links are signed for a week at most");
        }
        Ok(())
    }

    /// What this means for files.
    ///
    /// # Errors
    /// Where the file with the key cannot be read.
    pub(super) fn bucket(&self) -> Result<Option<Bucket>, Error> {
        if self.name.is_empty() {
            return Ok(None);
        }
        let secret = super::secret(self.secret_key.as_ref(), self.secret_key_file.as_deref())?;
        Ok(Some(Bucket {
            name: self.name.clone(),
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            prefix: self.prefix.clone(),
            key: self.access_key.clone().zip(secret),
            virtual_host: self.virtual_host,
            links: Some(Duration::from_secs(self.link_minutes.saturating_mul(60))).filter(|time| !time.is_zero()),
        }))
    }
}
