//! From what a page says to what a client is shown: OpenGraph, filled up from Twitter cards, oEmbed and the page itself.

use serde_json::{Map, Value};

use super::{html::Facts, oembed::Embed};

/// A preview without its picture.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Card {
    pub(super) fields: Map<String, Value>,
    /// Where pictures for it may be, the best first.
    pub(super) pictures: Vec<String>,
}

/// Whether a page says all that a preview shows, so that nobody else needs to be asked.
pub(super) fn is_whole(facts: &Facts) -> bool {
    let has = |name: &str| facts.properties.contains_key(name);
    has("og:title") && has("og:description") && (has("og:image") || has("og:image:url") || has("og:image:secure_url"))
}

/// Makes the preview of a page.
pub(super) fn make(facts: Facts, embed: Embed) -> Card {
    let Facts { mut properties, title, heading, description, text, picture, inline, .. } = facts;
    let mut twitter = |name: &str| properties.remove(name);
    let (twitter_title, twitter_text) = (twitter("twitter:title"), twitter("twitter:description"));
    let twitter_pictures = [twitter("twitter:image"), twitter("twitter:image:src")];
    let own = ["og:image:secure_url", "og:image", "og:image:url"].map(|name| properties.remove(name));
    let mut pictures: Vec<String> = Vec::new();
    for found in own.into_iter().chain([embed.picture]).chain(twitter_pictures).chain([picture, inline]).flatten() {
        if !pictures.contains(&found) {
            pictures.push(found);
        }
    }
    // What is said of the picture is said of another copy of it.
    properties.retain(|name, _| name.starts_with("og:") && !name.starts_with("og:image"));
    let mut fill = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|_| !properties.contains_key(name)) {
            properties.insert(name.to_owned(), value);
        }
    };
    fill("og:title", twitter_title.or(embed.title).or(title).or(heading));
    let text = Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    fill("og:description", twitter_text.or(description).or(embed.text).or(text));
    fill("og:site_name", embed.site);
    fill("og:type", embed.kind.map(str::to_owned));
    let fields = properties.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
    Card { fields, pictures }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::previews::html;

    #[test]
    fn a_page_without_opengraph_has_a_preview_too() {
        let card = make(html::read("<title>T</title><p>Some text.</p>"), Embed::default());
        assert_eq!(Value::Object(card.fields), serde_json::json!({ "og:title": "T", "og:description": "Some text." }));
    }

    #[test]
    fn opengraph_goes_first_and_its_pictures_are_ours() {
        let page =
            "<meta property=og:title content=O><meta name=twitter:title content=W><meta property=og:url content=u>
                    <meta property=og:image content=a.png><meta property=og:image:width content=9999>
                    <meta name=twitter:image content=b.png><meta name=twitter:description content=D>";
        let embed = Embed {
            title: Some("E".into()),
            site: Some("S".into()),
            picture: Some("e.png".into()),
            ..Embed::default()
        };
        let card = make(html::read(page), embed);
        let wanted = serde_json::json!({ "og:title": "O", "og:description": "D", "og:url": "u", "og:site_name": "S" });
        assert_eq!(Value::Object(card.fields), wanted);
        assert_eq!(card.pictures, ["a.png", "e.png", "b.png"]);
    }

    #[test]
    fn nobody_else_is_asked_about_a_page_that_says_all() {
        let whole = "<meta property=og:title content=a><meta property=og:description content=b><meta property=og:image content=c>";
        assert!(is_whole(&html::read(whole)));
        assert!(!is_whole(&html::read("<meta property=og:title content=a><title>b</title>")));
    }
}
