//! Files of this server (Server-Server API, "Content Repository"): a body of two parts, of which the second is the file.

use std::{io, time::Duration};

use axum::{Router, body::Body, extract::State, response::Response, routing::get};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderValue, header};
use serde::Deserialize;
use stoa_http::{Error, Params, Result, Segments, origin::Origin};
use stoa_media::{Download, Media, Method, Thumbnail, ThumbnailRequest, disposition};
use stoa_store::Env;

use crate::Api;

/// How long an answer waits for a file that is still to come, where the other server does not say.
const WAIT_MS: u64 = 20_000;

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/_matrix/federation/v1/media/download/{mediaId}", get(download))
        .route("/_matrix/federation/v1/media/thumbnail/{mediaId}", get(thumbnail))
}

#[derive(Deserialize)]
struct Wait {
    timeout_ms: Option<u64>,
}

impl Wait {
    fn time(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.unwrap_or(WAIT_MS))
    }
}

#[derive(Deserialize)]
struct Size {
    width: u32,
    height: u32,
    method: Option<Fit>,
    animated: Option<bool>,
    timeout_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Fit {
    Scale,
    Crop,
}

/// `GET /_matrix/federation/v1/media/download/{mediaId}`
async fn download(
    _: Origin,
    State(media): State<Media>,
    State(env): State<Env>,
    Segments(id): Segments<String>,
    Params(wait): Params<Wait>,
) -> Result<Response> {
    whole(media.open(media.server(), &id, wait.time()).await?, &env).await
}

/// `GET /_matrix/federation/v1/media/thumbnail/{mediaId}`
async fn thumbnail(
    _: Origin,
    State(media): State<Media>,
    State(env): State<Env>,
    Segments(id): Segments<String>,
    Params(size): Params<Size>,
) -> Result<Response> {
    let wait = Wait { timeout_ms: size.timeout_ms };
    let method = match size.method {
        Some(Fit::Crop) => Method::Crop,
        Some(Fit::Scale) | None => Method::Scale,
    };
    let request =
        ThumbnailRequest { width: size.width, height: size.height, method, animated: size.animated.unwrap_or(false) };
    match media.thumbnail(media.server(), &id, request, wait.time()).await? {
        Thumbnail::Original(file) => whole(file, &env).await,
        Thumbnail::Made { bytes, content_type } => {
            let length = bytes.len() as u64;
            two_parts(stream::iter([Ok(bytes)]), length, content_type, Some(Thumbnail::name(content_type)), &env)
        }
    }
}

async fn whole(file: Download, env: &Env) -> Result<Response> {
    let (size, name) = (file.size, file.name.clone());
    let content_type = file.content_type.clone().unwrap_or_default();
    two_parts(file.bytes(0, size).await?, size, &content_type, name.as_deref(), env)
}

/// RFC 2046, "Multipart Media Type": the metadata, of which there are none yet, and the file.
fn two_parts(
    file: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    size: u64,
    content_type: &str,
    name: Option<&str>,
    env: &Env,
) -> Result<Response> {
    // Uploaders choose the type; it must stay one line.
    let content_type = match HeaderValue::from_str(content_type) {
        Ok(value) if !value.is_empty() => content_type,
        _ => "application/octet-stream",
    };
    // Nobody can know it beforehand, so no file can hold it.
    let boundary = env.token(32);
    let head = format!(
        "--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\nContent-Type: {content_type}\r\n\
         Content-Disposition: {}\r\n\r\n",
        disposition(content_type, name),
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    let length = head.len() as u64 + size + tail.len() as u64;
    let once = |text: String| stream::iter([Ok::<_, io::Error>(Bytes::from(text))]);
    let mut response = Response::new(Body::from_stream(once(head).chain(file).chain(once(tail))));
    let kind = HeaderValue::from_str(&format!("multipart/mixed; boundary={boundary}"));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, kind.map_err(Error::internal)?);
    headers.insert(header::CONTENT_LENGTH, length.into());
    Ok(response)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt;
    use ruma_common::api::IncomingResponseExt;
    use ruma_federation_api::authenticated_media::{FileOrLocation, get_content::v1::Response as Read};
    use stoa_store::{Clock, Random};

    use super::*;

    struct Still;

    impl Clock for Still {
        fn now_ms(&self) -> u64 {
            0
        }
    }

    impl Random for Still {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.iter_mut().zip(0..).for_each(|(byte, n)| *byte = n);
        }
    }

    /// What is sent, and what a client that others wrote reads of it: the file, its type and its name.
    async fn sent(kind: &str, name: Option<&str>, file: &[u8]) -> (Vec<u8>, String, Option<String>, Vec<u8>) {
        let env = Env { clock: Arc::new(Still), random: Arc::new(Still) };
        let pieces: Vec<_> = file.chunks(7).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let response = two_parts(stream::iter(pieces), file.len() as u64, kind, name, &env).unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        assert_eq!(parts.headers["content-length"], body.len().to_string());
        let read = Read::try_from_http_response(http::Response::from_parts(parts, &body[..])).unwrap();
        let FileOrLocation::File(content) = read.content else { panic!("no file") };
        let name = content.content_disposition.and_then(|disposition| disposition.filename);
        (content.file, content.content_type.unwrap(), name, body.to_vec())
    }

    #[tokio::test]
    async fn others_can_read_what_we_send() {
        let file = b"\r\n--\r\n\r\n{}\r\n--AB".repeat(100);
        let (read, kind, name, body) = sent("image/png", Some("a \"b\" \u{e4}.png"), &file).await;
        assert_eq!((read, kind.as_str(), name.as_deref()), (file, "image/png", Some("a \"b\" \u{e4}.png")));
        // As the specification has it: the metadata first, and a type that Synapse compares with these very bytes.
        let text = String::from_utf8_lossy(&body).into_owned();
        let boundary = text.split("\r\n").next().unwrap();
        assert!(
            text.starts_with(&format!("{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n{boundary}\r\n"))
        );
        assert!(text.ends_with(&format!("\r\n{boundary}--\r\n")));
        let (read, kind, name, _) = sent("", None, b"").await;
        assert_eq!((read.len(), kind.as_str(), name), (0, "application/octet-stream", None));
    }

    #[tokio::test]
    async fn a_type_or_a_name_cannot_add_a_head() {
        for (kind, name) in
            [("a/b\r\nLocation: https://evil.example", "x"), ("a/b", "x\r\nLocation: https://evil.example")]
        {
            let (read, _, _, body) = sent(kind, Some(name), b"file").await;
            assert_eq!(read, b"file");
            assert!(!String::from_utf8_lossy(&body).contains("\nLocation"));
        }
    }
}
