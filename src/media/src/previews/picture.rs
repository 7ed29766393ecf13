//! The picture of a preview: it is kept with the files of other servers, so that it goes when nobody looks at it any more,
//! under an id of ours that follows from its content.

use std::io::Cursor;

use futures_util::StreamExt;
use image::{ImageFormat, ImageReader};
use serde_json::{Map, Value};
use stoa_event::{hash, ids::ServerName};
use stoa_remote::{Pieces, outside::Url};

use super::{Previews, Why};
use crate::{Media, fetch::hash_of, upload::About};

/// How many of those that a page names are tried.
const TRIES: usize = 3;
/// What is kept as a picture, whatever its server says that it is.
const FORMATS: [ImageFormat; 5] =
    [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP, ImageFormat::Avif];

/// A picture that is here.
pub(super) struct Picture {
    id: String,
    pub(super) hash: String,
    kind: &'static str,
    bytes: u64,
    size: Option<(u32, u32)>,
}

impl Picture {
    /// Says it in OpenGraph, with what Matrix has beside it.
    pub(super) fn describe(&self, server: &ServerName, fields: &mut Map<String, Value>) {
        fields.insert("og:image".to_owned(), format!("mxc://{server}/{}", self.id).into());
        fields.insert("og:image:type".to_owned(), self.kind.into());
        fields.insert("matrix:image:size".to_owned(), self.bytes.into());
        if let Some((width, height)) = self.size {
            fields.insert("og:image:width".to_owned(), width.into());
            fields.insert("og:image:height".to_owned(), height.into());
        }
    }
}

/// What a file turned out to be.
struct Seen {
    id: String,
    kind: &'static str,
    size: Option<(u32, u32)>,
}

impl Media {
    /// The first of these pictures that can be had.
    pub(super) async fn find_picture(&self, previews: &Previews, page: &Url, names: Vec<String>) -> Option<Picture> {
        for name in names.into_iter().take(TRIES) {
            let Ok(url) = page.join(&name) else { continue };
            let Ok(answer) = previews.get(&url, "image/*").await else { continue };
            if let Ok(picture) = self.keep_picture(previews, answer.response.into_body()).await {
                return Some(picture);
            }
        }
        None
    }

    /// Takes a picture as it comes.
    pub(super) async fn keep_picture(&self, previews: &Previews, mut body: Pieces) -> Result<Picture, Why> {
        let mut upload = self.receive(previews.config.max_picture).await?;
        while let Some(piece) = body.next().await {
            upload.write(&piece?).await?;
        }
        let path = upload.written().await?;
        let Some(seen) = previews.reading(move || look(&std::fs::read(path).ok()?)).await? else {
            return Err(Why::NoPage);
        };
        let Seen { id, kind, size } = seen;
        let hash = hash_of(self.server(), &id);
        let about = About { content_type: Some(kind.to_owned()), name: None };
        let row = self.cache(upload, &hash, (self.server().as_str(), &id), about).await?;
        Ok(Picture { id, hash, kind, bytes: row.file.size, size })
    }
}

/// Looks at the head of a picture; nothing where it is none. No pixel is decoded.
fn look(bytes: &[u8]) -> Option<Seen> {
    let format = image::guess_format(bytes).ok().filter(|format| FORMATS.contains(format))?;
    let size = ImageReader::with_format(Cursor::new(bytes), format).into_dimensions();
    // Those of AVIF cannot be read here.
    if size.is_err() && format != ImageFormat::Avif {
        return None;
    }
    let id = hash::base64_encode(&hash::sha256(bytes)).replace('+', "-").replace('/', "_");
    Some(Seen { id, kind: format.to_mime_type(), size: size.ok() })
}
