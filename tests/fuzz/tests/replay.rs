//! The short form of fuzzing: every file of the corpora, and some thousand changes of each corpus that follow from a seed.
//! `STOA_SEED` is the seed (0 by default), `STOA_SEEDS` how many changes there are of each corpus.

use std::{
    fs,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

use stoa_fuzz::{TARGETS, Target, target};
use tokio::time::{Duration, Instant};

/// How many changes there are of each corpus.
const CHANGES: u64 = 3_000;
/// How long one input may take, on a machine that has other things to do.
const LONGEST: Duration = Duration::from_secs(5);
/// The longest input.
const MAX_BYTES: usize = 16 << 10;

/// What means something to the parsers.
const WORDS: [&[u8]; 44] = [
    b"{}",
    b"[]",
    b"null",
    b"true",
    b"0",
    b"-0",
    b"1.5",
    b"1e400",
    b"9007199254740991",
    b"9007199254740992",
    b"-1",
    b"\"\"",
    b"\"type\":",
    b"\"content\":{",
    b"\"prev_events\":[",
    b"\"auth_events\":[",
    b"\"room_id\":\"!x:y.example\"",
    b"\"sender\":\"@u:y.example\"",
    b"\"state_key\":\"\"",
    b"\"depth\":",
    b"\"hashes\":{\"sha256\":\"",
    b"\"signatures\":{",
    b"\"unsigned\":{",
    b"\"redacts\":\"$x\"",
    b"\"event_id\":\"$x:y.example\"",
    b"\"membership\":\"join\"",
    b"\"third_party_invite\":{\"signed\":{",
    b"\\u0000",
    b"\\ud800",
    b"\xff",
    b"\xf0\x9f\x98\x80",
    b"\\\"",
    b"*",
    b"?",
    b",",
    b"origin=\"",
    b"destination=",
    b"X-Matrix ",
    b"ed25519:a",
    b"\r\n--",
    b"\r\n\r\n",
    b"--",
    b"Location: ",
    b"max-age=",
];

/// Repeatable chance (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % (n.max(1) as u64)).unwrap()
    }
}

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(&folder)
        .unwrap_or_else(|why| panic!("{}: {why}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// One change of an input, or a mixture of two.
fn change(dice: &mut Dice, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = dice.below(bytes.len() + 1);
    let end = (at + dice.below(20)).min(bytes.len());
    match dice.below(8) {
        0 => drop(bytes.drain(at..end)),
        1 => drop(bytes.splice(at..at, WORDS[dice.below(WORDS.len())].iter().copied())),
        2 => drop(bytes.splice(at..end, WORDS[dice.below(WORDS.len())].iter().copied())),
        3 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
        4 if at < bytes.len() => bytes[at] = u8::try_from(dice.below(256)).unwrap(),
        5 => {
            let again = bytes[at..end].repeat(1 + dice.below(40));
            bytes.splice(at..at, again);
        }
        6 => {
            let from = dice.below(other.len());
            let to = (from + dice.below(60)).min(other.len());
            bytes.splice(at..end, other[from..to].iter().copied());
        }
        _ => bytes.truncate(at),
    }
    bytes.truncate(MAX_BYTES);
}

/// Gives an input to a target; where it falls or takes long, keeps it and says where.
fn give(name: &str, target: Target, input: &[u8], what: &str) {
    let begin = Instant::now();
    let fell = catch_unwind(AssertUnwindSafe(|| target(input))).is_err();
    if fell || begin.elapsed() > LONGEST {
        let kept = std::env::temp_dir().join(format!("stoa-fuzz-{name}"));
        fs::File::create(&kept).unwrap().write_all(input).unwrap();
        panic!("{name}: {what}, {:?}; the input is in {}", begin.elapsed(), kept.display());
    }
}

fn replay(name: &str) {
    let target = target(name).unwrap();
    let files = corpus(name);
    assert!(files.len() >= 3, "the corpus of {name} is too small to begin from");
    for (file, bytes) in &files {
        give(name, target, bytes, file);
    }
    let number = |name: &str, usual| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    let mut dice = Dice(number("STOA_SEED", 0));
    for n in 0..number("STOA_SEEDS", CHANGES) {
        let (mut bytes, other) = (files[dice.below(files.len())].1.clone(), &files[dice.below(files.len())].1);
        for _ in 0..=dice.below(6) {
            change(&mut dice, &mut bytes, other);
        }
        give(name, target, &bytes, &format!("change {n}"));
    }
}

/// A test for each target.
macro_rules! replays {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        #[test]
        fn every_target_has_a_test() {
            assert_eq!(TARGETS.map(|(name, _)| name), [$(stringify!($name)),*]);
        }
    };
}

replays!(pdu json acl transaction x_matrix well_known keys multipart);
