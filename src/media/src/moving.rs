//! Thumbnails that move (Client-Server API, "Thumbnails", `animated`): of GIF, WebP and PNG, each as a GIF, which every client
//! can show.

use std::{
    io::{BufRead, Cursor, Seek},
    path::Path,
};

use image::{
    AnimationDecoder, DynamicImage, Frame, Frames, ImageDecoder, ImageFormat, ImageReader, ImageResult, RgbaImage,
    codecs::{
        gif::{GifDecoder, GifEncoder, Repeat},
        png::PngDecoder,
        webp::WebPDecoder,
    },
};

use crate::{
    Error,
    resize::{self, Made},
    thumbnail::{Method, Target},
};

/// The most frames of a moving thumbnail; what has more stands still.
const FRAMES: usize = 300;
/// How many times as many pixels as in a still picture are decoded for one.
const WORK: u64 = 8;
/// How carefully colours are chosen: from 1, the best, to 30.
const SPEED: i32 = 10;

/// Whether the picture in a file moves. What cannot be read does not.
pub(crate) fn moves(path: &Path, max_pixels: u64) -> Result<bool, Error> {
    let reader = ImageReader::open(path)?.with_guessed_format()?;
    let format = reader.format();
    Ok(look(reader.into_inner(), format, max_pixels).unwrap_or(false))
}

fn look(reader: impl BufRead + Seek, format: Option<ImageFormat>, max_pixels: u64) -> Result<bool, Error> {
    Ok(match format {
        Some(ImageFormat::Png) => PngDecoder::new(reader).map_err(resize::refused)?.is_apng().unwrap_or(false),
        Some(ImageFormat::WebP) => WebPDecoder::new(reader).map_err(resize::refused)?.has_animation(),
        Some(ImageFormat::Gif) => {
            frames(reader, format, max_pixels)?.is_some_and(|(_, frames)| frames.take(2).count() == 2)
        }
        _ => false,
    })
}

/// What became of a moving picture.
pub(crate) enum Moving {
    /// It is no larger than the thumbnail would be.
    Original,
    Made(Made),
    /// It has too many frames, or a broken one, so that a still one must do.
    Still,
}

/// Makes a thumbnail that moves.
pub(crate) fn resize(path: &Path, target: Target, max_pixels: u64) -> Result<Moving, Error> {
    let reader = ImageReader::open(path)?.with_guessed_format()?;
    let format = reader.format();
    let Some((dimensions, frames)) = frames(reader.into_inner(), format, max_pixels)? else { return Ok(Moving::Still) };
    let Some(size) = resize::size(dimensions.0, dimensions.1, target) else { return Ok(Moving::Original) };
    let mut out = Cursor::new(Vec::new());
    let whole = encode(&mut out, frames, (size, target.method), max_pixels.saturating_mul(WORK))?;
    Ok(match whole {
        true => Moving::Made(Made { bytes: out.into_inner().into(), content_type: "image/gif" }),
        false => Moving::Still,
    })
}

type Shape = ((u32, u32), Method);

/// Says whether all frames were made.
fn encode(out: &mut Cursor<Vec<u8>>, frames: Frames<'_>, shape: Shape, mut work: u64) -> Result<bool, Error> {
    let mut encoder = GifEncoder::new_with_speed(out, SPEED);
    encoder.set_repeat(Repeat::Infinite).map_err(resize::refused)?;
    for (n, frame) in frames.enumerate() {
        let Ok(frame) = frame else { return Ok(false) };
        let pixels = u64::from(frame.buffer().width()) * u64::from(frame.buffer().height());
        if n == FRAMES || pixels > work {
            return Ok(false);
        }
        work -= pixels;
        encoder.encode_frame(shrink(frame, shape)?).map_err(resize::refused)?;
    }
    Ok(true)
}

fn shrink(frame: Frame, ((width, height), method): Shape) -> Result<Frame, Error> {
    let delay = frame.delay();
    let picture = DynamicImage::ImageRgba8(frame.into_buffer());
    let small = resize::scale(&picture, width, height, method)?;
    let small = RgbaImage::from_raw(width, height, small.into_vec()).ok_or(Error::NoThumbnail)?;
    Ok(Frame::from_parts(small, 0, 0, delay))
}

/// The size of a picture that can move, and its frames, each whole; they are decoded one by one.
type Reel<'a> = ((u32, u32), Frames<'a>);

fn frames<'a>(
    reader: impl BufRead + Seek + 'a,
    format: Option<ImageFormat>,
    max_pixels: u64,
) -> Result<Option<Reel<'a>>, Error> {
    fn limited<D: ImageDecoder>(decoder: ImageResult<D>, max_pixels: u64) -> Result<D, Error> {
        let mut decoder = decoder.map_err(resize::refused)?;
        decoder.set_limits(resize::limits(max_pixels)).map_err(resize::refused)?;
        resize::check(decoder.dimensions(), max_pixels)?;
        Ok(decoder)
    }
    Ok(match format {
        Some(ImageFormat::Gif) => {
            let decoder = limited(GifDecoder::new(reader), max_pixels)?;
            Some((decoder.dimensions(), decoder.into_frames()))
        }
        Some(ImageFormat::WebP) => {
            let decoder = limited(WebPDecoder::new(reader), max_pixels)?;
            Some((decoder.dimensions(), decoder.into_frames()))
        }
        Some(ImageFormat::Png) => {
            let decoder = limited(PngDecoder::with_limits(reader, resize::limits(max_pixels)), max_pixels)?;
            Some((decoder.dimensions(), decoder.apng().map_err(resize::refused)?.into_frames()))
        }
        _ => None,
    })
}
