//! The file that a backup of the engine in memory is: a line that says so, then space, key and value of each entry, and
//! at the end the number of entries, so that half a file is not taken for a whole one.

use std::path::Path;

use bytes::{Buf as _, BufMut as _, Bytes};

use crate::{Error, Op, Result, Space};

const HEAD: &[u8] = b"stoa memory 1\n";
const END: u8 = 0xFF;

pub(super) fn write(path: &Path, entries: Vec<(Space, Bytes, Bytes)>) -> Result<()> {
    let mut out = HEAD.to_vec();
    for (space, key, value) in &entries {
        out.put_u8(*space as u8);
        for part in [key, value] {
            out.put_u64(part.len() as u64);
            out.extend_from_slice(part);
        }
    }
    out.put_u8(END);
    out.put_u64(entries.len() as u64);
    let write = || {
        std::fs::create_dir_all(path.parent().unwrap_or(path))?;
        std::fs::write(path, out)
    };
    write().map_err(|error: std::io::Error| failed(path, &error.to_string()))
}

pub(super) fn read(path: &Path) -> Result<Vec<Op>> {
    let bytes = std::fs::read(path).map_err(|error| failed(path, &error.to_string()))?;
    parse(&bytes).ok_or_else(|| failed(path, "it is not a whole backup of an engine in memory"))
}

fn parse(bytes: &[u8]) -> Option<Vec<Op>> {
    let mut rest = bytes.strip_prefix(HEAD)?;
    let mut ops = Vec::new();
    loop {
        let space = rest.try_get_u8().ok()?;
        if space == END {
            let whole = rest.try_get_u64().ok()? == ops.len() as u64 && rest.is_empty();
            return whole.then_some(ops);
        }
        let space = *Space::ALL.get(usize::from(space))?;
        let (key, value) = (part(&mut rest)?, part(&mut rest)?);
        ops.push(Op::Put { space, key, value });
    }
}

fn part(rest: &mut &[u8]) -> Option<Bytes> {
    let length = usize::try_from(rest.try_get_u64().ok()?).ok()?;
    let (part, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(Bytes::copy_from_slice(part))
}

fn failed(path: &Path, why: &str) -> Error {
    Error::Failed(format!("{}: {why}", path.display()))
}
