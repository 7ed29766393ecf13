//! Words of many languages, without dictionaries. Text is split by script: where words stand apart they are folded (case,
//! accents, widths) and stemmed by several languages at once; where they do not (Chinese, Japanese, Korean, Thai, ...) each
//! character and each pair of neighbours is a term; a sign such as an emoji is a term of its own.

use std::ops::Range;

use frostem::{Algorithm, Stemmer};
use icu_normalizer::{
    ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed, properties::CanonicalCombiningClassMapBorrowed,
};

use crate::Error;

/// The languages by which words are stemmed where the settings name none.
pub const LANGUAGES: [&str; 9] = ["en", "de", "fr", "es", "it", "nl", "pt", "ru", "ar"];
/// Longer words are not stemmed, and cut: they are keys, hashes and addresses.
const LONG: usize = 40;
const LONGEST: usize = 64;

/// Splits text into terms.
#[derive(Clone)]
pub struct Words {
    stemmers: Vec<(Script, Stemmer)>,
}

/// A piece of a text that can be searched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it stands in the text, in bytes.
    pub at: Range<usize>,
    /// What it is.
    pub kind: Kind,
}

/// What a piece is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A word: its folded form, then its stems as far as they differ.
    Word(Vec<String>),
    /// A run of characters without spaces between the words, character by character.
    Run(Vec<String>),
}

/// To what a character belongs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Dense,
    Sign,
    /// It goes with what is before it.
    Joined,
    Between,
}

/// The scripts that have stemmers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Script {
    Latin,
    Cyrillic,
    Greek,
    Arabic,
    Armenian,
    Hebrew,
    Devanagari,
    Tamil,
    Other,
}

impl Words {
    /// For these languages, each by its name or code (`german`, `de`).
    ///
    /// # Errors
    /// [`Error::Language`] for one that there is no stemmer for.
    pub fn new<S: AsRef<str>>(languages: &[S]) -> Result<Words, Error> {
        let mut stemmers = Vec::new();
        for language in languages {
            let unknown = |_| Error::Language(language.as_ref().to_owned());
            let algorithm = Algorithm::from_name(language.as_ref()).map_err(unknown)?;
            stemmers.push((written_in(algorithm), Stemmer::new(algorithm)));
        }
        Ok(Words { stemmers })
    }

    /// The pieces of a text, in order.
    pub fn pieces(&self, text: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        // The piece that is going on: where it began and what it is.
        let mut open: Option<(usize, Class)> = None;
        let mut close = |open: &mut Option<(usize, Class)>, end: usize| {
            if let Some((from, class)) = open.take() {
                pieces.extend(self.piece(text, from..end, class));
            }
        };
        for (at, c) in text.char_indices() {
            let class = class(c);
            match (open, class) {
                (_, Class::Joined) => {}
                (Some((_, going)), _) if going == class && class != Class::Sign => {}
                (_, Class::Between) => close(&mut open, at),
                _ => {
                    close(&mut open, at);
                    open = Some((at, class));
                }
            }
        }
        close(&mut open, text.len());
        pieces
    }

    fn piece(&self, text: &str, at: Range<usize>, class: Class) -> Option<Piece> {
        let folded = fold_width(text.get(at.clone())?);
        let kind = match class {
            Class::Dense => Kind::Run(clusters(&folded)),
            Class::Sign => Kind::Word(vec![folded.chars().next()?.to_string()]),
            _ => Kind::Word(self.forms(&folded)),
        };
        match &kind {
            Kind::Word(forms) if forms.iter().all(String::is_empty) => None,
            Kind::Run(characters) if characters.is_empty() => None,
            _ => Some(Piece { at, kind }),
        }
    }

    /// A word, without its accents; then its stems, as far as they differ from each other.
    fn forms(&self, word: &str) -> Vec<String> {
        let mut forms = vec![cut(&fold(word))];
        if word.len() <= LONG && !word.starts_with(|c: char| c.is_numeric()) {
            let script = word.chars().next().map_or(Script::Other, script);
            for (_, stemmer) in self.stemmers.iter().filter(|(of, _)| *of == script) {
                let stem = fold(&stemmer.stem(word));
                if !stem.is_empty() && !forms.contains(&stem) {
                    forms.push(stem);
                }
            }
        }
        forms
    }
}

/// Compatible forms as one (full and half width, ligatures, composed or not), in small letters.
fn fold_width(text: &str) -> String {
    ComposingNormalizerBorrowed::new_nfkc().normalize(&text.to_lowercase()).into_owned()
}

/// Without accents, and letters that have none as those that people type for them.
fn fold(word: &str) -> String {
    if word.is_ascii() {
        return word.to_owned();
    }
    let script = word.chars().next().map_or(Script::Other, script);
    let strips = !matches!(script, Script::Other | Script::Devanagari | Script::Tamil);
    let mut out = String::with_capacity(word.len());
    for c in DecomposingNormalizerBorrowed::new_nfd().normalize(word).chars() {
        match c {
            'ß' => out.push_str("ss"),
            'æ' => out.push_str("ae"),
            'œ' => out.push_str("oe"),
            'ø' => out.push('o'),
            'ł' => out.push('l'),
            'đ' | 'ð' => out.push('d'),
            'þ' => out.push_str("th"),
            'ı' => out.push('i'),
            // Those who write for others write the final sigma as any other.
            'ς' => out.push('σ'),
            '\u{200c}' | '\u{200d}' | '\u{ad}' | '\u{640}' => {}
            _ if strips && is_mark(c) => {}
            _ => out.push(c),
        }
    }
    out
}

fn cut(word: &str) -> String {
    word.chars().take(LONGEST).collect()
}

/// Characters with the marks that stand on them.
fn clusters(run: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for c in run.chars().filter(|c| !is_joiner(*c)) {
        match out.last_mut() {
            Some(last) if is_mark(c) => last.push(c),
            _ => out.push(c.to_string()),
        }
    }
    out
}

fn is_mark(c: char) -> bool {
    c > '\u{2ff}' && CanonicalCombiningClassMapBorrowed::new().get_u8(c) != 0
}

/// What joins characters or chooses how they are drawn, and is not written by everyone.
fn is_joiner(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200c}' | '\u{200d}' | '\u{20e3}' | '\u{fe00}'..='\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}')
}

fn class(c: char) -> Class {
    match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' => Class::Letter,
        '\0'..='\x7f' => Class::Between,
        _ if is_joiner(c) || is_mark(c) => Class::Joined,
        // The dot between foreign names.
        '\u{30fb}' | '\u{ff65}' => Class::Between,
        '\u{0e00}'..='\u{0fff}' // Thai, Lao, Tibetan
        | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' // Burmese, Khmer
        | '\u{1100}'..='\u{11ff}' | '\u{3130}'..='\u{318f}' | '\u{a960}'..='\u{a97f}' | '\u{ac00}'..='\u{d7ff}' // Hangul
        | '\u{3005}'..='\u{3007}' | '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' // Kana
        | '\u{ff66}'..='\u{ffdc}' // half width
        | '\u{3100}'..='\u{312f}' | '\u{31a0}'..='\u{31bf}' // Bopomofo
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}'
            if c.is_alphanumeric() =>
        {
            Class::Dense
        }
        _ if c.is_alphanumeric() => Class::Letter,
        '\u{2190}'..='\u{21ff}' | '\u{2300}'..='\u{27bf}' | '\u{2b00}'..='\u{2bff}' | '\u{1f000}'..='\u{1fbff}' => {
            Class::Sign
        }
        _ => Class::Between,
    }
}

fn script(c: char) -> Script {
    match c {
        'a'..='z' | 'A'..='Z' | '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}' => Script::Latin,
        '\u{370}'..='\u{3ff}' | '\u{1f00}'..='\u{1fff}' => Script::Greek,
        '\u{400}'..='\u{52f}' => Script::Cyrillic,
        '\u{530}'..='\u{58f}' => Script::Armenian,
        '\u{590}'..='\u{5ff}' => Script::Hebrew,
        '\u{600}'..='\u{6ff}' | '\u{750}'..='\u{77f}' => Script::Arabic,
        '\u{900}'..='\u{97f}' => Script::Devanagari,
        '\u{b80}'..='\u{bff}' => Script::Tamil,
        _ => Script::Other,
    }
}

fn written_in(algorithm: Algorithm) -> Script {
    match algorithm.name() {
        "russian" => Script::Cyrillic,
        "greek" => Script::Greek,
        "arabic" => Script::Arabic,
        "armenian" => Script::Armenian,
        "yiddish" => Script::Hebrew,
        "hindi" | "nepali" => Script::Devanagari,
        "tamil" => Script::Tamil,
        _ => Script::Latin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Words {
        Words::new(&LANGUAGES).unwrap()
    }

    fn forms(text: &str) -> Vec<String> {
        let pieces = words().pieces(text);
        pieces
            .into_iter()
            .flat_map(|piece| match piece.kind {
                Kind::Word(forms) | Kind::Run(forms) => forms,
            })
            .collect()
    }

    /// Whether what is written in one way is found by another.
    fn meet(a: &str, b: &str) -> bool {
        let b = forms(b);
        forms(a).iter().any(|form| b.contains(form))
    }

    #[test]
    fn inflected_words_meet() {
        for (a, b) in [
            ("Häuser", "Haus"),
            ("Häusern", "hauses"),
            ("Katzen", "Katze"),
            ("ging", "GING"),
            ("running", "runs"),
            ("libraries", "library"),
            ("chevaux", "cheval"),
            ("gatos", "gato"),
            ("книги", "книга"),
            ("كتاب", "الكتاب"),
        ] {
            assert!(meet(a, b), "{a} {b}: {:?} {:?}", forms(a), forms(b));
        }
        assert!(!meet("Haus", "Hund"));
        assert!(!meet("cat", "dog"));
    }

    #[test]
    fn case_accents_and_widths_do_not_matter() {
        for (a, b) in [
            ("café", "CAFE"),
            ("cafe\u{301}", "café"),
            ("Straße", "STRASSE"),
            ("Ｈｅｌｌｏ", "hello"),
            ("ﬁsh", "fish"),
            ("ΣΊΣΥΦΟΣ", "σισυφος"),
            ("Ångström", "angstrom"),
            ("Łódź", "lodz"),
            ("שָׁלוֹם", "שלום"),
            ("ｶﾞｷﾞ", "ガギ"),
            ("한글", "\u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af}"),
        ] {
            assert_eq!(forms(a)[0], forms(b)[0], "{a} {b}");
        }
        // What is another letter is another letter.
        assert!(!meet("か", "が"));
        assert!(!meet("й", "к"));
    }

    #[test]
    fn scripts_without_spaces_are_runs() {
        let run = |text: &str| match &words().pieces(text)[..] {
            [Piece { kind: Kind::Run(characters), .. }] => characters.join("|"),
            other => panic!("{other:?}"),
        };
        assert_eq!(run("東京都"), "東|京|都");
        assert_eq!(run("カメラ"), "カ|メ|ラ");
        assert_eq!(run("か\u{3099}く"), "が|く");
        assert_eq!(run("학교에서"), "학|교|에|서");
        assert_eq!(run("ดี"), "ด|ี");
        let mixed = words().pieces("Rust と 東京 Tower2");
        let kinds: Vec<_> = mixed.iter().map(|piece| matches!(piece.kind, Kind::Run(_))).collect();
        assert_eq!(kinds, [false, true, true, false]);
    }

    #[test]
    fn emoji_are_words() {
        assert_eq!(forms("gut👍🏽👍"), ["gut", "👍", "👍"]);
        assert_eq!(forms("❤️"), forms("❤"));
        assert_eq!(forms("👨\u{200d}👩\u{200d}👧"), ["👨", "👩", "👧"]);
    }

    #[test]
    fn pieces_say_where_they_stand() {
        let text = "«Die Häuser» 日本, naïve!";
        let found: Vec<&str> = words().pieces(text).into_iter().map(|piece| &text[piece.at]).collect();
        assert_eq!(found, ["Die", "Häuser", "日本", "naïve"]);
        assert_eq!(forms("don't l'homme foo_bar.example.org")[0], "don");
        assert!(words().pieces(" .,;-_'\u{200d}\u{301}").is_empty());
    }

    #[test]
    fn long_words_are_cut_and_languages_must_be_known() {
        let long = "x".repeat(10_000);
        assert_eq!(forms(&long), ["x".repeat(LONGEST)]);
        assert!(Words::new(&["klingon"]).is_err());
        assert_eq!(Words::new::<&str>(&[]).unwrap().pieces("Häuser")[0].kind, Kind::Word(vec!["hauser".into()]));
    }
}
