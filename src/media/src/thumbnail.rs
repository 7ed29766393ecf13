//! Thumbnails (Client-Server API, "Thumbnails"): made when they are first asked for, in a few sizes, and kept on disk.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use stoa_event::ids::ServerName;
use tokio::fs;

use crate::{
    Download, Error, Media, files,
    moving::{self, Moving},
    resize,
};

/// The sides that thumbnails have: the sizes that the specification names. What is asked for is rounded up, so that nobody
/// can fill the disk with a thousand sizes of one picture.
const SCALE: [(u32, u32); 5] = [(32, 32), (96, 96), (320, 240), (640, 480), (800, 600)];
const CROP: [u32; 6] = [32, 96, 240, 320, 640, 800];
/// Files that a thumbnail can be made of.
const IMAGES: [&str; 5] = ["image/png", "image/apng", "image/jpeg", "image/gif", "image/webp"];

/// How a thumbnail fits its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// The whole picture, within the size.
    #[default]
    Scale,
    /// The middle of the picture, filling the size.
    Crop,
}

/// What somebody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThumbnailRequest {
    /// The width that is wished for.
    pub width: u32,
    /// The height that is wished for.
    pub height: u32,
    /// How it fits.
    pub method: Method,
    /// Whether it is to move where the picture does.
    pub animated: bool,
}

/// A thumbnail.
#[derive(Debug)]
pub enum Thumbnail {
    /// A small picture.
    Made {
        /// Its bytes.
        bytes: Bytes,
        /// `image/jpeg`, `image/png` where it is transparent, `image/gif` where it moves.
        content_type: &'static str,
    },
    /// The picture itself is no larger than what was asked for.
    Original(Download),
}

impl Thumbnail {
    /// The name of a file of that type.
    pub fn name(content_type: &str) -> &'static str {
        match content_type {
            "image/png" => "thumbnail.png",
            "image/gif" => "thumbnail.gif",
            _ => "thumbnail.jpg",
        }
    }
}

/// A size to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) method: Method,
}

impl ThumbnailRequest {
    /// The size to make; `None` where it would be so large that the picture itself serves as well.
    fn target(self) -> Option<Target> {
        let ThumbnailRequest { width, height, method, .. } = self;
        let (width, height) = match method {
            Method::Scale => SCALE.into_iter().find(|(w, h)| *w >= width && *h >= height)?,
            Method::Crop => {
                // The longer side is rounded up, the shorter one keeps the shape.
                let longer = width.max(height);
                let side = CROP.into_iter().find(|side| *side >= longer)?;
                let scaled = |part: u32| (part * side).div_ceil(longer).max(1);
                (scaled(width), scaled(height))
            }
        };
        Some(Target { width, height, method })
    }
}

impl Target {
    fn name(self, kind: &str) -> String {
        let method = match self.method {
            Method::Scale => "scale",
            Method::Crop => "crop",
        };
        format!("{}x{}-{method}.{kind}", self.width, self.height)
    }

    /// Whether it is kept: pictures are asked for in a few shapes, and others are made each time.
    fn is_usual(self) -> bool {
        self.method == Method::Scale || self.width == self.height
    }
}

impl Media {
    /// A small picture of a file.
    ///
    /// # Errors
    /// Those of [`Media::open`]; [`Error::NoThumbnail`], [`Error::ImageTooLarge`], [`Error::InvalidParam`]
    pub async fn thumbnail(
        &self,
        server: &ServerName,
        id: &str,
        request: ThumbnailRequest,
        wait: Duration,
    ) -> Result<Thumbnail, Error> {
        if request.width == 0 || request.height == 0 {
            return Err(Error::InvalidParam("a thumbnail has a width and a height"));
        }
        let found = self.find(server, id, wait).await?;
        let kind = found.file.content_type.as_deref().unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if !IMAGES.contains(&kind.as_str()) {
            return Err(Error::NoThumbnail);
        }
        let max_pixels = self.inner.config.max_pixels;
        let may_move = kind != "image/jpeg";
        let work = Work { target: request.target(), animated: request.animated && may_move, may_move };
        if work.target.is_none() && !may_move {
            return self.original(server, id).await;
        }
        if let Some(kept) = work.kept(&found.thumbnails).await {
            return Ok(kept);
        }
        // Everything below needs memory: a few at a time.
        let _turn = self.inner.resizing.acquire().await.map_err(|_| Error::NoThumbnail)?;
        if let Some(kept) = work.kept(&found.thumbnails).await {
            return Ok(kept);
        }
        let at_hand = self.at_hand(&found).await?;
        let made = blocking(move || work.make(at_hand.path(), max_pixels)).await.map_err(|why| match why {
            Error::ImageTooLarge if server != self.inner.server => Error::RemoteTooLarge,
            why => why,
        })?;
        let Some(made) = made else { return self.original(server, id).await };
        if let Err(why) = self.keep_thumbnail(&found.thumbnails, work, &made).await {
            tracing::warn!(%why, "cannot keep a thumbnail");
        }
        Ok(Thumbnail::Made { bytes: made.bytes, content_type: made.content_type })
    }

    async fn original(&self, server: &ServerName, id: &str) -> Result<Thumbnail, Error> {
        self.open(server, id, Duration::ZERO).await.map(Thumbnail::Original)
    }

    async fn keep_thumbnail(&self, folder: &Path, work: Work, made: &resize::Made) -> Result<(), Error> {
        let places = work.places(folder);
        let Some((place, _)) = places.into_iter().find(|(_, kind)| *kind == made.content_type) else { return Ok(()) };
        let unfinished = self.inner.files.unfinished(&self.inner.env.token(24));
        fs::write(&unfinished, &made.bytes).await?;
        files::move_to(&unfinished, &place).await
    }
}

/// What is to be made of a picture.
#[derive(Clone, Copy, Debug)]
struct Work {
    /// Nothing where it keeps its size.
    target: Option<Target>,
    /// Whether it shall move if it does.
    animated: bool,
    /// Whether it may move although it shall not.
    may_move: bool,
}

impl Work {
    /// Makes it; nothing where the picture itself serves as well.
    fn make(self, path: &Path, max_pixels: u64) -> Result<Option<resize::Made>, Error> {
        let moves = self.animated && moving::moves(path, max_pixels)?;
        if let Some(target) = self.target {
            if moves {
                match moving::resize(path, target, max_pixels)? {
                    Moving::Original => return Ok(None),
                    Moving::Made(made) => return Ok(Some(made)),
                    Moving::Still => {}
                }
            }
            if let Some(made) = resize::resize(path, target, max_pixels)? {
                return Ok(Some(made));
            }
        }
        if self.target.is_none() && moves {
            return Ok(None);
        }
        // What shall stand still must not be the picture that moves.
        match self.may_move && moving::moves(path, max_pixels)? {
            true => resize::still(path, max_pixels).map(Some),
            false => Ok(None),
        }
    }

    /// Where it may be, and of which type it is then: nowhere where it is not kept.
    fn places(self, folder: &Path) -> Vec<(PathBuf, &'static str)> {
        let Some(target) = self.target.filter(|target| target.is_usual()) else { return Vec::new() };
        let kinds: &[(&str, &str)] = match self.animated {
            // Where it does not move, or has too many frames, it stands still all the same.
            true => &[("moving.gif", "image/gif"), ("moving.jpg", "image/jpeg"), ("moving.png", "image/png")],
            false => &[("jpg", "image/jpeg"), ("png", "image/png")],
        };
        kinds.iter().map(|(name, kind)| (folder.join(target.name(name)), *kind)).collect()
    }

    async fn kept(self, folder: &Path) -> Option<Thumbnail> {
        for (path, content_type) in self.places(folder) {
            if let Ok(bytes) = fs::read(path).await {
                return Some(Thumbnail::Made { bytes: bytes.into(), content_type });
            }
        }
        None
    }
}

/// Does something that needs a core for a while.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::NoThumbnail)?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(width: u32, height: u32, method: Method) -> Option<(u32, u32)> {
        ThumbnailRequest { width, height, method, animated: false }.target().map(|target| (target.width, target.height))
    }

    #[test]
    fn sizes_are_rounded_up_to_a_few() {
        assert_eq!(target(1, 1, Method::Scale), Some((32, 32)));
        assert_eq!(target(320, 240, Method::Scale), Some((320, 240)));
        assert_eq!(target(100, 241, Method::Scale), Some((640, 480)));
        assert_eq!(target(801, 1, Method::Scale), None);
        assert_eq!(target(64, 64, Method::Crop), Some((96, 96)));
        assert_eq!(target(100, 50, Method::Crop), Some((240, 120)));
        assert_eq!(target(1, 800, Method::Crop), Some((1, 800)));
        assert_eq!(target(4000, 4000, Method::Crop), None);
    }
}
