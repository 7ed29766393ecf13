//! Files (Client-Server API, "Content repository").

use std::{fmt::Display, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use ruma_common::{OwnedServerName, ServerName};
use serde::{Deserialize, Serialize};
use stoa_http::{Empty, Error, Ip, Json, JsonBytes, Limits, Params, Result, Segments, Who, body, limit::Kind};
use stoa_media::{About, Download, Media, Method, Thumbnail, ThumbnailRequest, Upload, disposition};

use crate::{Api, paths::Paths, throttle};

/// How long a download waits for a file that is still to come, where the client does not say.
const WAIT_MS: u64 = 20_000;
/// What a browser may do with a file that it opens: nothing.
const POLICY: &str = "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; \
                      style-src 'unsafe-inline'; object-src 'self';";

pub(crate) fn routes() -> Router<Api> {
    let mut router = Router::new()
        .v1("/media/config", get(config))
        .v1("/media/download/{serverName}/{mediaId}", get(download))
        .v1("/media/download/{serverName}/{mediaId}/{fileName}", get(download_as))
        .v1("/media/thumbnail/{serverName}/{mediaId}", get(thumbnail))
        .v1("/media/preview_url", get(preview))
        .route("/_matrix/media/v1/create", post(create));
    for version in ["v3", "r0", "v1"] {
        let path = |rest: &str| format!("/_matrix/media/{version}{rest}");
        router = router
            .route(&path("/config"), get(config))
            .route(&path("/preview_url"), get(preview))
            .route(&path("/upload"), post(upload))
            .route(&path("/upload/{serverName}/{mediaId}"), put(upload_to))
            .route(&path("/download/{serverName}/{mediaId}"), get(old_download))
            .route(&path("/download/{serverName}/{mediaId}/{fileName}"), get(old_download_as))
            .route(&path("/thumbnail/{serverName}/{mediaId}"), get(old_thumbnail));
    }
    router
}

#[derive(Serialize)]
struct Uploaded {
    content_uri: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    unused_expires_at: Option<u64>,
}

#[derive(Deserialize)]
struct UploadParams {
    filename: Option<String>,
}

#[derive(Deserialize)]
struct DownloadParams {
    timeout_ms: Option<u64>,
    #[serde(default)]
    allow_redirect: bool,
    /// Of the old endpoints only.
    allow_remote: Option<bool>,
}

/// `ts` is not read: there are no versions of a preview to choose from.
#[derive(Deserialize)]
struct PreviewParams {
    url: String,
}

#[derive(Deserialize)]
struct ThumbnailParams {
    width: u32,
    height: u32,
    method: Option<Fit>,
    animated: Option<bool>,
    timeout_ms: Option<u64>,
    #[serde(default)]
    allow_redirect: bool,
    allow_remote: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Fit {
    Scale,
    Crop,
}

type Path2 = Segments<(OwnedServerName, String)>;
type Path3 = Segments<(OwnedServerName, String, String)>;

/// `GET /_matrix/client/v1/media/config`
async fn config(_: Who, State(media): State<Media>) -> Json<serde_json::Value> {
    Json(serde_json::json!({ "m.upload.size": media.config().max_upload }))
}

/// `POST /_matrix/media/v3/upload`
async fn upload(
    who: Who,
    State(media): State<Media>,
    State(limits): State<Limits>,
    Params(params): Params<UploadParams>,
    request: Request,
) -> Result<Json<Uploaded>> {
    throttle::take(&limits, Kind::Upload, &who)?;
    let about = about(request.headers(), params);
    let file = receive(&media, &who, request).await?;
    let id = media.keep(file, who.user_no, about).await?;
    Ok(Json(Uploaded { content_uri: uri(&media, &id), unused_expires_at: None }))
}

/// `POST /_matrix/media/v1/create`
async fn create(who: Who, State(media): State<Media>, State(limits): State<Limits>) -> Result<Json<Uploaded>> {
    throttle::take(&limits, Kind::Upload, &who)?;
    let pending = media.reserve(who.user_no).await?;
    Ok(Json(Uploaded { content_uri: uri(&media, &pending.id), unused_expires_at: Some(pending.expires) }))
}

/// `PUT /_matrix/media/v3/upload/{serverName}/{mediaId}`
async fn upload_to(
    who: Who,
    State(media): State<Media>,
    Segments((server, id)): Path2,
    Params(params): Params<UploadParams>,
    request: Request,
) -> Result<Empty> {
    media.may_fill(&server, &id, who.user_no).await?;
    let about = about(request.headers(), params);
    let file = receive(&media, &who, request).await?;
    media.fill(file, &id, who.user_no, about).await?;
    Ok(Empty {})
}

/// `GET /_matrix/client/v1/media/download/{serverName}/{mediaId}`
async fn download(
    who: Who,
    State(media): State<Media>,
    State(limits): State<Limits>,
    Segments((server, id)): Path2,
    Params(params): Params<DownloadParams>,
    headers: HeaderMap,
) -> Result<Response> {
    count_for(&media, &limits, &server, &id, &who).await?;
    let file = media.open(&server, &id, wait(params.timeout_ms)).await?;
    whole(file, params.allow_redirect, &headers).await
}

/// `GET /_matrix/client/v1/media/download/{serverName}/{mediaId}/{fileName}`
async fn download_as(
    who: Who,
    State(media): State<Media>,
    State(limits): State<Limits>,
    Segments((server, id, name)): Path3,
    Params(params): Params<DownloadParams>,
    headers: HeaderMap,
) -> Result<Response> {
    count_for(&media, &limits, &server, &id, &who).await?;
    let file = media.open(&server, &id, wait(params.timeout_ms)).await?;
    send(file, Some(name), &headers).await
}

/// `GET /_matrix/client/v1/media/thumbnail/{serverName}/{mediaId}`
async fn thumbnail(
    who: Who,
    State(media): State<Media>,
    State(limits): State<Limits>,
    Segments((server, id)): Path2,
    Params(params): Params<ThumbnailParams>,
    headers: HeaderMap,
) -> Result<Response> {
    count_for(&media, &limits, &server, &id, &who).await?;
    small(&media, &server, &id, params, &headers).await
}

/// `GET /_matrix/media/v3/download/{serverName}/{mediaId}`: frozen, as the specification wants it since 1.12.
async fn old_download(
    Ip(ip): Ip,
    State(limits): State<Limits>,
    State(media): State<Media>,
    Segments((server, id)): Path2,
    Params(params): Params<DownloadParams>,
    headers: HeaderMap,
) -> Result<Response> {
    thawed(&media, &server, params.allow_remote)?;
    count(&media, &limits, &server, &id, ip).await?;
    let file = media.open(&server, &id, wait(params.timeout_ms)).await?;
    whole(file, params.allow_redirect, &headers).await
}

/// `GET /_matrix/media/v3/download/{serverName}/{mediaId}/{fileName}`
async fn old_download_as(
    Ip(ip): Ip,
    State(limits): State<Limits>,
    State(media): State<Media>,
    Segments((server, id, name)): Path3,
    Params(params): Params<DownloadParams>,
    headers: HeaderMap,
) -> Result<Response> {
    thawed(&media, &server, params.allow_remote)?;
    count(&media, &limits, &server, &id, ip).await?;
    let file = media.open(&server, &id, wait(params.timeout_ms)).await?;
    send(file, Some(name), &headers).await
}

/// `GET /_matrix/media/v3/thumbnail/{serverName}/{mediaId}`
async fn old_thumbnail(
    Ip(ip): Ip,
    State(limits): State<Limits>,
    State(media): State<Media>,
    Segments((server, id)): Path2,
    Params(params): Params<ThumbnailParams>,
    headers: HeaderMap,
) -> Result<Response> {
    thawed(&media, &server, params.allow_remote)?;
    count(&media, &limits, &server, &id, ip).await?;
    small(&media, &server, &id, params, &headers).await
}

/// `GET /_matrix/client/v1/media/preview_url`
async fn preview(
    who: Who,
    State(media): State<Media>,
    State(limits): State<Limits>,
    Params(params): Params<PreviewParams>,
) -> Result<JsonBytes> {
    if !media.has_preview(&params.url).await {
        throttle::take(&limits, Kind::Preview, &who)?;
    }
    Ok(JsonBytes(media.preview(&params.url).await?))
}

/// Whether the old endpoints serve that.
fn thawed(media: &Media, server: &ServerName, allow_remote: Option<bool>) -> Result<()> {
    if !media.config().allow_unauthenticated {
        return Err(Error::not_found("Files are served to logged-in users only: /_matrix/client/v1/media"));
    }
    match allow_remote {
        Some(false) if server != media.server() => Err(Error::not_found("That is a file of another server")),
        _ => Ok(()),
    }
}

/// Counts what must be fetched from another server first.
async fn count(media: &Media, limits: &Limits, server: &ServerName, id: &str, whose: impl Display) -> Result<()> {
    if media.is_far(server, id).await? { limits.take(Kind::RemoteMedia, whose) } else { Ok(()) }
}

/// The same for who has a token.
async fn count_for(media: &Media, limits: &Limits, server: &ServerName, id: &str, who: &Who) -> Result<()> {
    if who.is_unlimited() { Ok(()) } else { count(media, limits, server, id, &who.user).await }
}

fn uri(media: &Media, id: &str) -> String {
    format!("mxc://{}/{id}", media.server())
}

fn wait(timeout_ms: Option<u64>) -> Duration {
    Duration::from_millis(timeout_ms.unwrap_or(WAIT_MS))
}

fn about(headers: &HeaderMap, params: UploadParams) -> About {
    About { content_type: body::content_type(headers).map(str::to_owned), name: params.filename }
}

/// Takes the body to disk as it comes.
async fn receive(media: &Media, who: &Who, request: Request) -> Result<Upload> {
    let mut pieces = body::Pieces::of(request.into_body());
    let mut file = media.begin(who.user_no, pieces.length()).await?;
    while let Some(piece) = pieces.next().await? {
        file.write(&piece).await?;
    }
    Ok(file)
}

async fn small(
    media: &Media,
    server: &OwnedServerName,
    id: &str,
    params: ThumbnailParams,
    headers: &HeaderMap,
) -> Result<Response> {
    let ThumbnailParams { width, height, method, animated, timeout_ms, allow_redirect, .. } = params;
    let method = match method {
        Some(Fit::Crop) => Method::Crop,
        Some(Fit::Scale) | None => Method::Scale,
    };
    let request = ThumbnailRequest { width, height, method, animated: animated.unwrap_or(false) };
    match media.thumbnail(server, id, request, wait(timeout_ms)).await? {
        Thumbnail::Original(file) => whole(file, allow_redirect, headers).await,
        Thumbnail::Made { bytes, content_type } => {
            let mut response = Response::new(Body::from(bytes));
            harmless(response.headers_mut(), content_type, Some(Thumbnail::name(content_type)));
            Ok(response)
        }
    }
}

/// Sends a file, or sends the client to where it is if both want that ("Content repository", `allow_redirect`).
async fn whole(file: Download, allow_redirect: bool, headers: &HeaderMap) -> Result<Response> {
    let link = if allow_redirect { file.link().await? } else { None };
    let Some((link, good_for)) = link else { return send(file, None, headers).await };
    let mut response = StatusCode::TEMPORARY_REDIRECT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::from_str(&link).map_err(Error::internal)?);
    // Kept for as long as what it leads to can be had then for a while still.
    set(headers, header::CACHE_CONTROL, &format!("private, max-age={}", good_for.as_secs() / 2));
    Ok(response)
}

/// Sends a file, or the part of it that was asked for.
async fn send(file: Download, name: Option<String>, request: &HeaderMap) -> Result<Response> {
    let size = file.size;
    let content_type = file.content_type.clone().unwrap_or_default();
    let name = name.or_else(|| file.name.clone());
    let (status, from, length) = match range(request, size) {
        Asked::Whole => (StatusCode::OK, 0, size),
        Asked::Part(from, to) => (StatusCode::PARTIAL_CONTENT, from, to - from + 1),
        Asked::Outside => {
            let mut response = StatusCode::RANGE_NOT_SATISFIABLE.into_response();
            set(response.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{size}"));
            return Ok(response);
        }
    };
    let mut response = Response::new(Body::from_stream(file.bytes(from, length).await?));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    harmless(headers, &content_type, name.as_deref());
    headers.insert(header::CONTENT_LENGTH, length.into());
    set(headers, header::ACCEPT_RANGES, "bytes");
    if status == StatusCode::PARTIAL_CONTENT {
        set(headers, header::CONTENT_RANGE, &format!("bytes {from}-{}/{size}", from + length - 1));
    }
    Ok(response)
}

/// What every file is sent with, so that none can do harm in a browser.
fn harmless(headers: &mut HeaderMap, content_type: &str, name: Option<&str>) {
    let content_type = match HeaderValue::from_str(content_type) {
        Ok(value) if !value.is_empty() => value,
        _ => HeaderValue::from_static("application/octet-stream"),
    };
    set(headers, header::CONTENT_DISPOSITION, &disposition(content_type.to_str().unwrap_or_default(), name));
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("cross-origin"));
    // A file never changes; only its users may keep it.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=31536000, immutable"));
}

fn set(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// What part of a file a client asks for.
#[derive(Debug, PartialEq)]
enum Asked {
    Whole,
    /// From a byte to another, both included.
    Part(u64, u64),
    Outside,
}

/// RFC 9110, "Range": one range of bytes. Several at once, or what cannot be read, get the whole file, as that allows.
fn range(headers: &HeaderMap, size: u64) -> Asked {
    let value = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let Some((from, to)) = value.and_then(|value| value.strip_prefix("bytes=")?.split_once('-')) else {
        return Asked::Whole;
    };
    let (from, to) = match (from.parse::<u64>(), to.parse::<u64>()) {
        (Ok(from), Ok(to)) if from <= to => (from, to),
        (Ok(from), Err(_)) if to.is_empty() => (from, u64::MAX),
        (Err(_), Ok(0)) if from.is_empty() => return Asked::Outside,
        (Err(_), Ok(last)) if from.is_empty() => (size.saturating_sub(last), u64::MAX),
        _ => return Asked::Whole,
    };
    if from >= size { Asked::Outside } else { Asked::Part(from, to.min(size - 1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let asked = |value: &str| {
            let headers = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_str(value).unwrap())]);
            range(&headers, 100)
        };
        assert_eq!(asked("bytes=0-9"), Asked::Part(0, 9));
        assert_eq!(asked("bytes=90-"), Asked::Part(90, 99));
        assert_eq!(asked("bytes=-10"), Asked::Part(90, 99));
        assert_eq!(asked("bytes=-1000"), Asked::Part(0, 99));
        assert_eq!(asked("bytes=50-1000"), Asked::Part(50, 99));
        assert_eq!(asked("bytes=100-"), Asked::Outside);
        assert_eq!(asked("bytes=-0"), Asked::Outside);
        assert_eq!(asked("bytes=9-1"), Asked::Whole);
        assert_eq!(asked("bytes=0-1,5-6"), Asked::Whole);
        assert_eq!(asked("lines=0-1"), Asked::Whole);
        assert_eq!(range(&HeaderMap::new(), 100), Asked::Whole);
    }

    #[test]
    fn files_are_harmless_whatever_they_say_they_are() {
        for (kind, disposition) in [("text/html", "attachment"), ("TEXT/HTML", "attachment"), ("image/png", "inline")] {
            let mut headers = HeaderMap::new();
            harmless(&mut headers, kind, None);
            assert_eq!(headers["content-disposition"], disposition);
            assert!(headers["content-security-policy"].to_str().unwrap().starts_with("sandbox; default-src 'none'"));
            assert_eq!(headers["x-content-type-options"], "nosniff");
        }
        let mut headers = HeaderMap::new();
        harmless(&mut headers, "a\r\nb", None);
        assert_eq!(headers["content-type"], "application/octet-stream");
    }
}
