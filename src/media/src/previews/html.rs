//! What a page says about itself. It is read as a row of tags and texts and no tree is ever made of it, so however deep it
//! is nested costs nothing (CVE-2022-31052).

use std::collections::BTreeMap;

use html5gum::{DefaultEmitter, Spanned, StartTag, StringReader, Token, Tokenizer};

/// How many properties of a page are looked at, and how long one may be.
const PROPERTIES: usize = 50;
const VALUE: usize = 1000;
/// How much of the text is gathered, for pages that do not describe themselves.
const TEXT: usize = 500;
/// How large a picture in the text must say it is, each way, to stand for the page.
const SIDE: u32 = 100;
/// What is not the text of a page.
const ASIDE: [&str; 17] = [
    "aside", "button", "dialog", "footer", "form", "header", "iframe", "menu", "nav", "noscript", "object", "script",
    "select", "style", "svg", "template", "textarea",
];
/// Where a line of text ends.
const BLOCKS: [&str; 17] = [
    "article",
    "blockquote",
    "br",
    "dd",
    "div",
    "dt",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "li",
    "p",
    "section",
    "td",
    "tr",
];

/// What a page says about itself.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Facts {
    /// The OpenGraph properties and those of Twitter cards, without what is empty; the first of each.
    pub(super) properties: BTreeMap<String, String>,
    /// `<title>`.
    pub(super) title: Option<String>,
    /// The first heading.
    pub(super) heading: Option<String>,
    /// `<meta name=description>`.
    pub(super) description: Option<String>,
    /// How its text begins.
    pub(super) text: String,
    /// A picture that is named beside OpenGraph.
    pub(super) picture: Option<String>,
    /// A picture in the text.
    pub(super) inline: Option<String>,
    /// Where it can be had as oEmbed.
    pub(super) oembed: Option<String>,
    /// What its links are relative to.
    pub(super) base: Option<String>,
}

/// Reads a page.
pub(super) fn read(page: &str) -> Facts {
    let mut reader = Reader::default();
    for token in tokens(page) {
        match token {
            Token::StartTag(tag) => reader.start(&tag),
            Token::EndTag(tag) => reader.end(&String::from_utf8_lossy(&tag.name)),
            Token::String(text) => reader.text(&String::from_utf8_lossy(&text)),
            Token::Comment(_) | Token::Doctype(_) | Token::Error(_) => {}
        }
    }
    reader.close();
    reader.facts
}

/// The encoding that the beginning of a page names.
pub(super) fn charset(head: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(head);
    if let Some(xml) = head.trim_start().strip_prefix("<?xml") {
        let declaration = xml.split('>').next().unwrap_or_default();
        let (_, value) = declaration.split_once("encoding")?;
        return value.split(['"', '\'']).nth(1).map(str::to_owned);
    }
    tokens(&head).find_map(|token| match token {
        Token::StartTag(tag) if &tag.name[..] == b"meta" => {
            let in_type = || Some(super::text::charset(&attribute(&tag, "content")?)?.name().to_owned());
            attribute(&tag, "charset").or_else(in_type)
        }
        _ => None,
    })
}

fn tokens(page: &str) -> impl Iterator<Item = Token> {
    let mut emitter = DefaultEmitter::default();
    emitter.naively_switch_states(true);
    let tokens: Tokenizer<StringReader<'_>, _> = Tokenizer::new_with_emitter(page, emitter);
    tokens.map(|token| match token {
        Ok(token) => token,
    })
}

fn attribute(tag: &StartTag<()>, name: &str) -> Option<String> {
    let value: &Spanned<_, _> = tag.attributes.get(name.as_bytes())?;
    let value = tidy(&String::from_utf8_lossy(value));
    (!value.is_empty()).then_some(value)
}

/// Without needless white space, and not longer than a preview needs.
pub(super) fn tidy(text: &str) -> String {
    let mut out = String::new();
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
        if out.len() >= VALUE {
            out.truncate(out.floor_char_boundary(VALUE));
            break;
        }
    }
    out
}

/// A text of its own, which ends with its tag.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Title,
    Heading,
}

#[derive(Default)]
struct Reader {
    facts: Facts,
    /// What is not looked at now, and how many of the same name are open within.
    aside: Option<(String, usize)>,
    /// What is gathered now.
    part: Option<(Part, String)>,
}

impl Reader {
    fn start(&mut self, tag: &StartTag<()>) {
        let name = String::from_utf8_lossy(&tag.name);
        if let Some((aside, open)) = &mut self.aside {
            *open += usize::from(*aside == name);
            return;
        }
        match &*name {
            "meta" => self.meta(tag),
            "link" => self.link(tag),
            "base" => keep(&mut self.facts.base, attribute(tag, "href")),
            "img" => self.image(tag),
            "title" => self.begin(Part::Title),
            "h1" | "h2" | "h3" => self.begin(Part::Heading),
            name if ASIDE.contains(&name) && !tag.self_closing => self.aside = Some((name.to_owned(), 1)),
            _ => {}
        }
        self.block(&name);
    }

    fn end(&mut self, name: &str) {
        if let Some((aside, open)) = &mut self.aside {
            *open -= usize::from(aside == name);
            if *open == 0 {
                self.aside = None;
            }
            return;
        }
        if matches!(name, "title" | "h1" | "h2" | "h3") {
            self.close();
        }
        self.block(name);
    }

    fn text(&mut self, text: &str) {
        if self.aside.is_some() {
            return;
        }
        match &mut self.part {
            Some((_, part)) if part.len() < VALUE => push(part, text, VALUE),
            Some(_) => {}
            None => push(&mut self.facts.text, text, TEXT),
        }
    }

    fn begin(&mut self, part: Part) {
        self.close();
        self.part = Some((part, String::new()));
    }

    fn close(&mut self) {
        let Some((part, text)) = self.part.take() else { return };
        let text = Some(tidy(&text)).filter(|text| !text.is_empty());
        match part {
            Part::Title => keep(&mut self.facts.title, text),
            Part::Heading => keep(&mut self.facts.heading, text),
        }
    }

    fn block(&mut self, name: &str) {
        let text = &mut self.facts.text;
        if BLOCKS.contains(&name) && !text.is_empty() && !text.ends_with('\n') {
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
    }

    fn meta(&mut self, tag: &StartTag<()>) {
        let Some(value) = attribute(tag, "content") else { return };
        if attribute(tag, "itemprop").is_some_and(|name| name == "image") {
            keep(&mut self.facts.picture, Some(value.clone()));
        }
        // Pages mix them up.
        let Some(name) = attribute(tag, "property").or_else(|| attribute(tag, "name")) else { return };
        let name = name.to_ascii_lowercase();
        if name == "description" {
            keep(&mut self.facts.description, Some(value));
        } else if (name.starts_with("og:") || name.starts_with("twitter:"))
            && name.len() <= 100
            && self.facts.properties.len() < PROPERTIES
        {
            self.facts.properties.entry(name).or_insert(value);
        }
    }

    fn link(&mut self, tag: &StartTag<()>) {
        let (Some(rel), Some(href)) = (attribute(tag, "rel"), attribute(tag, "href")) else { return };
        let is = |kind: &str| rel.split_ascii_whitespace().any(|word| word.eq_ignore_ascii_case(kind));
        let of_oembed =
            || attribute(tag, "type").is_some_and(|kind| kind.eq_ignore_ascii_case("application/json+oembed"));
        if is("image_src") {
            keep(&mut self.facts.picture, Some(href));
        } else if (is("alternate") || is("alternative")) && of_oembed() {
            keep(&mut self.facts.oembed, Some(href));
        }
    }

    fn image(&mut self, tag: &StartTag<()>) {
        let side = |name| attribute(tag, name).and_then(|value| value.parse().ok()).unwrap_or(0u32);
        if side("width") >= SIDE && side("height") >= SIDE {
            keep(&mut self.facts.inline, attribute(tag, "src"));
        }
    }
}

/// The first counts.
fn keep(place: &mut Option<String>, value: Option<String>) {
    if place.is_none() {
        *place = value;
    }
}

/// Appends words, up to a length.
fn push(place: &mut String, text: &str, most: usize) {
    let mut separate = text.starts_with(char::is_whitespace);
    for word in text.split_whitespace() {
        if place.len() >= most {
            return;
        }
        if separate && !place.is_empty() && !place.ends_with(char::is_whitespace) {
            place.push(' ');
        }
        place.push_str(&word[..word.floor_char_boundary(most)]);
        separate = true;
    }
    if text.ends_with(char::is_whitespace) && !place.is_empty() && !place.ends_with(char::is_whitespace) {
        place.push(' ');
    }
}

#[cfg(test)]
#[path = "html_tests.rs"]
mod tests;
