//! Thumbnails of pictures that move.

use std::io::Cursor;

use image::{
    AnimationDecoder, Delay, Frame, Rgba, RgbaImage,
    codecs::{
        gif::{GifDecoder, GifEncoder, Repeat},
        webp::WebPEncoder,
    },
};

use crate::{
    Error, Method, Thumbnail, ThumbnailRequest,
    tests::{NOW, World, world},
    thumbnail::Target,
};

/// A frame of one colour, another for each.
fn frame(n: u8, side: u32) -> RgbaImage {
    RgbaImage::from_pixel(side, side, Rgba([n * 40, 255 - n * 40, 0, 255]))
}

fn gif(frames: u8, side: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = GifEncoder::new(&mut out);
    encoder.set_repeat(Repeat::Infinite).unwrap();
    for n in 0..frames {
        let delay = Delay::from_numer_denom_ms(100, 1);
        encoder.encode_frame(Frame::from_parts(frame(n % 6, side), 0, 0, delay)).unwrap();
    }
    drop(encoder);
    out
}

fn apng(frames: u8, side: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, side, side);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_animated(u32::from(frames), 0).unwrap();
    encoder.set_frame_delay(1, 10).unwrap();
    let mut writer = encoder.write_header().unwrap();
    for n in 0..frames {
        writer.write_image_data(&frame(n, side)).unwrap();
    }
    writer.finish().unwrap();
    out
}

/// WebP Container Specification, "Animation": nothing here writes that, so the pieces are put together by hand.
fn webp(frames: u8, side: u32) -> Vec<u8> {
    let chunk = |name: &[u8; 4], data: &[u8]| -> Vec<u8> {
        let padding = vec![0; data.len() % 2];
        [name, &u32::try_from(data.len()).unwrap().to_le_bytes()[..], data, &padding].concat()
    };
    let three = |number: u32| number.to_le_bytes()[..3].to_vec();
    let mut body = b"WEBP".to_vec();
    body.extend(chunk(b"VP8X", &[vec![0x12, 0, 0, 0], three(side - 1), three(side - 1)].concat()));
    body.extend(chunk(b"ANIM", &[0; 6]));
    for n in 0..frames {
        let mut still = Vec::new();
        WebPEncoder::new_lossless(&mut still)
            .encode(&frame(n, side), side, side, image::ExtendedColorType::Rgba8)
            .unwrap();
        // Behind the header of the file: the chunk of the picture.
        let place = [three(0), three(0), three(side - 1), three(side - 1), three(100), vec![0]].concat();
        body.extend(chunk(b"ANMF", &[place, still[12..].to_vec()].concat()));
    }
    chunk(b"RIFF", &body)
}

async fn ask(world: &World, id: &str, side: u32, animated: bool) -> Result<Thumbnail, Error> {
    let request = ThumbnailRequest { width: side, height: side, method: Method::Crop, animated };
    world.media.thumbnail(&world.here, id, request, NOW).await
}

fn made(thumbnail: Thumbnail) -> (Vec<u8>, &'static str) {
    match thumbnail {
        Thumbnail::Made { bytes, content_type } => (bytes.to_vec(), content_type),
        Thumbnail::Original(_) => panic!("it is the picture itself"),
    }
}

#[tokio::test]
async fn who_wants_it_gets_all_frames() {
    let world = world().await;
    let pictures = [
        (gif(3, 200), "image/gif"),
        (apng(3, 200), "image/png"),
        (apng(3, 200), "image/apng"),
        (webp(3, 200), "image/webp"),
    ];
    for (bytes, kind) in pictures {
        let id = world.upload(&bytes, kind).await;
        for _ in 0..2 {
            let (small, content_type) = made(ask(&world, &id, 96, true).await.unwrap());
            assert_eq!(content_type, "image/gif", "{kind}");
            let frames = GifDecoder::new(Cursor::new(small)).unwrap().into_frames().collect_frames().unwrap();
            assert_eq!(frames.len(), 3, "{kind}");
            for (n, small) in (0..).zip(&frames) {
                assert_eq!(small.buffer().dimensions(), (96, 96), "{kind}");
                assert_eq!(small.delay().numer_denom_ms(), (100, 1), "{kind}");
                let (found, wanted) = (small.buffer().get_pixel(48, 48), frame(n, 1).get_pixel(0, 0).to_owned());
                assert!(found.0[0].abs_diff(wanted.0[0]) < 8 && found.0[1].abs_diff(wanted.0[1]) < 8, "{kind} {n}");
            }
        }
        // It is for who wants it only.
        let (_, content_type) = made(ask(&world, &id, 96, false).await.unwrap());
        assert_eq!(content_type, "image/png", "{kind}");
    }
}

#[tokio::test]
async fn what_shall_not_move_does_not_even_where_it_is_small() {
    let world = world().await;
    for (bytes, kind) in [(gif(3, 20), "image/gif"), (apng(3, 20), "image/png"), (webp(3, 20), "image/webp")] {
        let id = world.upload(&bytes, kind).await;
        for side in [96, 4000] {
            let (still, content_type) = made(ask(&world, &id, side, false).await.unwrap());
            assert_eq!(content_type, "image/png", "{kind}");
            let decoder = image::codecs::png::PngDecoder::new(Cursor::new(&still)).unwrap();
            assert!(!decoder.is_apng().unwrap());
            assert_eq!(image::load_from_memory(&still).unwrap().width(), 20, "{kind}");
            assert!(matches!(ask(&world, &id, side, true).await, Ok(Thumbnail::Original(_))), "{kind}");
        }
    }
    // What cannot move is served as it is.
    let id = world.upload(&gif(1, 20), "image/gif").await;
    for (side, animated) in [(96, false), (4000, false), (96, true), (4000, true)] {
        assert!(matches!(ask(&world, &id, side, animated).await, Ok(Thumbnail::Original(_))));
    }
}

#[tokio::test]
async fn d3_39_too_many_frames_stand_still_and_none_is_decoded_that_is_too_large() {
    let mut world = world().await;
    let id = world.upload(&gif(40, 40), "image/gif").await;
    // Eight times as many pixels as a still picture may have are decoded: 32 frames of this.
    world.reopen(|config| config.max_pixels = 40 * 40 * 4);
    let (_, content_type) = made(ask(&world, &id, 32, true).await.unwrap());
    assert_eq!(content_type, "image/png");
    world.reopen(|config| config.max_pixels = 40 * 40 - 1);
    assert!(matches!(ask(&world, &id, 96, true).await, Err(Error::ImageTooLarge)));
    let cut = gif(3, 200);
    let id = world.upload(&cut[..cut.len() / 2], "image/gif").await;
    world.reopen(|config| config.max_pixels = 1_000_000);
    assert!(ask(&world, &id, 96, true).await.is_ok_and(|thumbnail| made(thumbnail).1 == "image/png"));
}

#[tokio::test]
async fn d3_39_nothing_else_is_decoded_whatever_it_is_called() {
    let world = world().await;
    let others: [&[u8]; 8] = [
        b"BM\x1a\0\0\0\0\0\0\0\x1a\0\0\0\x0c\0\0\0\x01\0\x01\0\x01\0\x18\0\0\0\0\0",
        b"II*\0\x08\0\0\0\0\0\0\0\0\0",
        b"P6 1 1 255 \0\0\0",
        b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"push graphic-context\nimage over 0,0 0,0 'https://a.example/x'\n",
        b"\0\0\x01\0\x01\0\x01\x01\0\0\x01\0\x18\0",
    ];
    for bytes in others {
        for kind in ["image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp", "image/tiff", "image/svg+xml"] {
            let id = world.upload(bytes, kind).await;
            for animated in [false, true] {
                assert!(matches!(ask(&world, &id, 32, animated).await, Err(Error::NoThumbnail)), "{kind} {bytes:?}");
            }
        }
    }
}

/// A picture that is broken in any way is an error, or another picture; never a panic, which would show here.
#[test]
fn d3_41_broken_pictures_break_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("picture");
    let mut jpeg = Cursor::new(Vec::new());
    image::DynamicImage::ImageRgba8(frame(1, 40)).into_rgb8().write_to(&mut jpeg, image::ImageFormat::Jpeg).unwrap();
    let target = Target { width: 32, height: 32, method: Method::Crop };
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    let mut dice = |sides: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % sides as u64) as usize
    };
    let rounds = if std::env::var_os("STOA_LONG").is_some() { 20_000 } else { 300 };
    for whole in [gif(3, 40), apng(3, 40), webp(3, 40), jpeg.into_inner()] {
        for _ in 0..rounds {
            let mut bytes = whole.clone();
            for _ in 0..=dice(4) {
                let at = dice(bytes.len());
                match dice(4) {
                    0 => bytes[at] = dice(256) as u8,
                    1 => bytes[at] ^= 1 << dice(8),
                    2 => bytes.truncate(at.max(16)),
                    _ => drop(bytes.splice(at..at, vec![0xff; 1 + dice(8)])),
                }
            }
            std::fs::write(&path, &bytes).unwrap();
            let _ = crate::moving::moves(&path, 100_000);
            let _ = crate::moving::resize(&path, target, 100_000);
            let _ = crate::resize::resize(&path, target, 100_000);
        }
    }
}
