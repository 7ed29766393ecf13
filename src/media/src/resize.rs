//! Making a picture smaller. The formats are those that are compiled in: PNG, JPEG, GIF and WebP.

use std::{io::Cursor, path::Path};

use bytes::Bytes;
use fast_image_resize::{IntoImageView, ResizeOptions, Resizer, images::Image};
use image::{
    DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageReader, Limits,
    codecs::{jpeg::JpegEncoder, png::PngEncoder},
};

use crate::{
    Error,
    thumbnail::{Method, Target},
};

/// The longest side of a picture that is read.
const MAX_SIDE: u32 = 20_000;

/// A thumbnail that was made.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) bytes: Bytes,
    pub(crate) content_type: &'static str,
}

/// Makes a thumbnail of the picture in a file; `None` where the picture is no larger than the thumbnail would be.
pub(crate) fn resize(path: &Path, target: Target, max_pixels: u64) -> Result<Option<Made>, Error> {
    let image = decode(path, max_pixels)?;
    let Some((width, height)) = size(image.width(), image.height(), target) else { return Ok(None) };
    encode(image, width, height, target.method).map(Some)
}

/// Makes a picture stand still that is no larger than the thumbnail would be.
pub(crate) fn still(path: &Path, max_pixels: u64) -> Result<Made, Error> {
    let image = decode(path, max_pixels)?;
    let (width, height) = (image.width(), image.height());
    encode(image, width, height, Method::Scale)
}

fn decode(path: &Path, max_pixels: u64) -> Result<DynamicImage, Error> {
    let mut reader = ImageReader::open(path)?.with_guessed_format()?;
    reader.limits(limits(max_pixels));
    let mut decoder = reader.into_decoder().map_err(refused)?;
    check(decoder.dimensions(), max_pixels)?;
    let turned = decoder.orientation().map_err(refused)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(refused)?;
    image.apply_orientation(turned);
    Ok(image)
}

/// What a decoder may take.
pub(crate) fn limits(max_pixels: u64) -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(max_pixels.saturating_mul(8));
    limits
}

/// Whether a picture of that size is decoded.
pub(crate) fn check((width, height): (u32, u32), max_pixels: u64) -> Result<(), Error> {
    if u64::from(width) * u64::from(height) > max_pixels { Err(Error::ImageTooLarge) } else { Ok(()) }
}

/// The size of the thumbnail; `None` where the picture would have to grow for it.
pub(crate) fn size(width: u32, height: u32, target: Target) -> Option<(u32, u32)> {
    let (across, down) = (f64::from(target.width) / f64::from(width), f64::from(target.height) / f64::from(height));
    let factor = match target.method {
        Method::Scale => across.min(down),
        Method::Crop => across.max(down),
    };
    if factor >= 1.0 {
        return None;
    }
    let scaled = |side: u32| ((f64::from(side) * factor).round() as u32).max(1);
    Some(match target.method {
        Method::Scale => (scaled(width), scaled(height)),
        Method::Crop => (target.width, target.height),
    })
}

fn encode(image: DynamicImage, width: u32, height: u32, method: Method) -> Result<Made, Error> {
    let transparent = image.color().has_alpha();
    // Eight bits a channel are enough, and there are only two ways to encode then.
    let image = match transparent {
        true => DynamicImage::ImageRgba8(image.into_rgba8()),
        false => DynamicImage::ImageRgb8(image.into_rgb8()),
    };
    let small = scale(&image, width, height, method)?;
    drop(image);
    let mut out = Cursor::new(Vec::new());
    let (encoded, content_type) = match transparent {
        true => {
            let png = PngEncoder::new(&mut out);
            (png.write_image(small.buffer(), width, height, ExtendedColorType::Rgba8), "image/png")
        }
        false => {
            let jpeg = JpegEncoder::new_with_quality(&mut out, 85);
            (jpeg.write_image(small.buffer(), width, height, ExtendedColorType::Rgb8), "image/jpeg")
        }
    };
    encoded.map_err(|_| Error::NoThumbnail)?;
    Ok(Made { bytes: out.into_inner().into(), content_type })
}

/// The picture in another size.
pub(crate) fn scale(image: &DynamicImage, width: u32, height: u32, method: Method) -> Result<Image<'static>, Error> {
    let pixel = image.pixel_type().ok_or(Error::NoThumbnail)?;
    let mut small = Image::new(width, height, pixel);
    let options = match method {
        Method::Scale => ResizeOptions::new(),
        Method::Crop => ResizeOptions::new().fit_into_destination(None),
    };
    Resizer::new().resize(image, &mut small, &options).map_err(|_| Error::NoThumbnail)?;
    Ok(small)
}

pub(crate) fn refused(error: image::ImageError) -> Error {
    match error {
        image::ImageError::Limits(_) => Error::ImageTooLarge,
        image::ImageError::IoError(why) if why.kind() == std::io::ErrorKind::NotFound => Error::Disk(why),
        _ => Error::NoThumbnail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sized(from: (u32, u32), to: (u32, u32), method: Method) -> Option<(u32, u32)> {
        size(from.0, from.1, Target { width: to.0, height: to.1, method })
    }

    #[test]
    fn nothing_grows() {
        assert_eq!(sized((100, 50), (320, 240), Method::Scale), None);
        assert_eq!(sized((320, 100), (320, 240), Method::Scale), None);
        assert_eq!(sized((1000, 1000), (320, 240), Method::Scale), Some((240, 240)));
        assert_eq!(sized((20_000, 1), (320, 240), Method::Scale), Some((320, 1)));
        assert_eq!(sized((1000, 500), (96, 96), Method::Crop), Some((96, 96)));
        assert_eq!(sized((1000, 50), (96, 96), Method::Crop), None);
    }
}
