//! Files in an S3-compatible bucket instead of the folder: uploads of this server, each under the name that it has on disk. Files of
//! other servers and thumbnails are kept on disk, for they can be had again.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use http::{HeaderValue, Method};
use object_store::{
    Attribute, Attributes, ClientOptions, GetOptions, GetRange, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path as Key,
    signer::{SignedUrlOptions, Signer},
};
use stoa_store::rows::media::File;
use tokio::{fs, io::AsyncReadExt};

use crate::{Error, disposition, files::shard};

/// What is larger is sent in parts, of this size: S3 takes at most 10,000, and none but the last may be smaller than 5 MiB.
const PART: usize = 8 << 20;
/// How long a connection may take, and how long nothing may come on it.
const CONNECT: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(60);
/// How often and how long a request that failed is tried again: somebody waits.
const RETRIES: usize = 3;
const RETRY_TIME: Duration = Duration::from_secs(30);

/// Where the bucket is.
#[derive(Clone, PartialEq, Eq)]
pub struct BucketConfig {
    /// Its name.
    pub name: String,
    /// The URL of the service; nothing for Amazon's.
    pub endpoint: Option<String>,
    /// The region.
    pub region: String,
    /// What the names of all objects begin with.
    pub prefix: String,
    /// The id of the key and the key; nothing where the environment says them (`AWS_*`, or the role of the machine).
    pub key: Option<(String, String)>,
    /// Whether the name of the bucket is part of the host instead of the path.
    pub virtual_host: bool,
    /// For how long a link is good that a client is sent to instead of getting the file from here; nothing where none is.
    pub links: Option<Duration>,
}

impl std::fmt::Debug for BucketConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BucketConfig")
            .field("name", &self.name)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// A handle to the bucket; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    objects: Arc<AmazonS3>,
    prefix: Key,
    links: Option<Duration>,
}

/// A file in the bucket.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    bucket: Bucket,
    key: Key,
}

impl Bucket {
    /// # Errors
    /// Where the settings contradict each other.
    pub(crate) fn new(config: &BucketConfig) -> Result<Bucket, Error> {
        let options = ClientOptions::new()
            .with_allow_http(config.endpoint.as_ref().is_some_and(|url| url.starts_with("http://")))
            .with_connect_timeout(CONNECT)
            // A large file may take as long as it needs, while something comes.
            .with_timeout_disabled()
            .with_read_timeout(SILENCE);
        let retry = RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_TIME, ..RetryConfig::default() };
        let mut builder = match &config.key {
            Some((id, key)) => AmazonS3Builder::new().with_access_key_id(id).with_secret_access_key(key),
            None => AmazonS3Builder::from_env(),
        };
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        let builder = builder.with_client_options(options).with_bucket_name(&config.name).with_region(&config.region);
        let objects =
            builder.with_retry(retry).with_virtual_hosted_style_request(config.virtual_host).build().map_err(failed)?;
        let prefix = Key::parse(config.prefix.trim_matches('/')).map_err(|why| Error::Bucket(why.to_string()))?;
        Ok(Bucket { objects: Arc::new(objects), prefix, links: config.links })
    }

    /// The file of that id, which must have been checked.
    pub(crate) fn object(&self, id: &str) -> Object {
        Object { bucket: self.clone(), key: self.key(id) }
    }

    fn key(&self, id: &str) -> Key {
        let parts = shard(id).join(id);
        let parts = parts.iter().filter_map(|part| part.to_str()).map(str::to_owned).collect::<Vec<_>>();
        parts.into_iter().fold(self.prefix.clone(), |key, part| key.join(part))
    }

    /// The objects after this one, in the order of their names: those that look like files of ours, by their ids.
    pub(crate) fn after(&self, last: Option<&str>) -> impl Stream<Item = Result<(String, ObjectMeta), Error>> + Send {
        let prefix = Some(&self.prefix).filter(|prefix| !prefix.as_ref().is_empty());
        let listed = match last.and_then(|last| Key::parse(last).ok()) {
            Some(last) => self.objects.list_with_offset(prefix, &last),
            None => self.objects.list(prefix),
        };
        listed.map_err(failed).try_filter_map(async |meta| {
            let id = meta.location.filename().unwrap_or_default().to_owned();
            let is_ours = crate::check_id(&id).is_ok() && self.key(&id) == meta.location;
            Ok(is_ours.then_some((id, meta)))
        })
    }
}

impl Object {
    /// Puts a file there. One that is not sent whole is not there.
    ///
    /// # Errors
    /// Where the bucket does not take it.
    pub(crate) async fn put(&self, from: &Path, file: &File) -> Result<(), Error> {
        let mut source = fs::File::open(from).await?;
        let attributes = attributes(file);
        let objects = &self.bucket.objects;
        if file.size <= PART as u64 {
            let bytes = piece(&mut source).await?;
            let options = PutOptions { attributes, ..PutOptions::default() };
            objects.put_opts(&self.key, bytes.into(), options).await.map_err(failed)?;
            return Ok(());
        }
        let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
        let mut parts = objects.put_multipart_opts(&self.key, options).await.map_err(failed)?;
        let sent = send(&mut source, parts.as_mut()).await;
        if sent.is_err() {
            let _ = parts.abort().await;
        }
        sent
    }

    /// The bytes from `from` on, `length` of them.
    ///
    /// # Errors
    /// [`Error::NotFound`] where the bucket lost it; where the bucket does not answer.
    pub(crate) async fn bytes(
        &self,
        from: u64,
        length: u64,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, Error> {
        if length == 0 {
            return Ok(stream::empty().left_stream());
        }
        let range = Some(GetRange::Bounded(from..from.saturating_add(length)));
        let options = GetOptions { range, ..GetOptions::default() };
        let got = self.bucket.objects.get_opts(&self.key, options).await.map_err(failed)?;
        Ok(got.into_stream().map_err(io::Error::other).right_stream())
    }

    /// # Errors
    /// Where the bucket does not answer.
    pub(crate) async fn delete(&self) -> Result<(), Error> {
        match self.bucket.objects.delete(&self.key).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(why) => Err(failed(why)),
        }
    }

    /// Where anybody can have it for a while, and for how long, if the settings want that.
    ///
    /// # Errors
    /// Where it cannot be signed.
    pub(crate) async fn link(
        &self,
        content_type: &str,
        name: Option<&str>,
    ) -> Result<Option<(String, Duration)>, Error> {
        let Some(good_for) = self.bucket.links else { return Ok(None) };
        // What a browser does with it must not hang on what its uploader said.
        let options = SignedUrlOptions::default()
            .with_query([("response-content-disposition", disposition(content_type, name))])
            .with_query([("response-content-type", safe_type(content_type))]);
        let link = self.bucket.objects.signed_url_opts(Method::GET, &self.key, good_for, &options).await;
        Ok(Some((link.map_err(failed)?.to_string(), good_for)))
    }
}

async fn send(source: &mut fs::File, parts: &mut dyn MultipartUpload) -> Result<(), Error> {
    loop {
        let bytes = piece(source).await?;
        if bytes.is_empty() {
            break;
        }
        parts.put_part(bytes.into()).await.map_err(failed)?;
    }
    parts.complete().await.map_err(failed)?;
    Ok(())
}

/// The next bytes of a file, as many as a part has; none at its end.
async fn piece(source: &mut fs::File) -> Result<Bytes, Error> {
    let mut bytes = Vec::new();
    source.take(PART as u64).read_to_end(&mut bytes).await?;
    Ok(bytes.into())
}

/// What the bucket says of a file to who has a link to it.
fn attributes(file: &File) -> Attributes {
    let content_type = file.content_type.as_deref().unwrap_or_default();
    Attributes::from_iter([
        (Attribute::ContentType, safe_type(content_type)),
        (Attribute::ContentDisposition, disposition(content_type, None)),
    ])
}

fn safe_type(content_type: &str) -> String {
    match HeaderValue::from_str(content_type) {
        Ok(value) if !value.is_empty() => content_type.to_owned(),
        _ => "application/octet-stream".to_owned(),
    }
}

fn failed(why: object_store::Error) -> Error {
    match why {
        object_store::Error::NotFound { .. } => Error::NotFound("the bucket does not have this file any more"),
        why => Error::Bucket(why.to_string()),
    }
}

/// Where the bytes of a file are.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Disk(PathBuf),
    Bucket(Object),
}
