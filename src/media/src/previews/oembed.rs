//! oEmbed (<https://oembed.com/>): what a site says about a page beside the page.

use serde_json::Value;

use super::html;

/// What of it a preview shows.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Embed {
    pub(super) title: Option<String>,
    pub(super) site: Option<String>,
    pub(super) text: Option<String>,
    pub(super) picture: Option<String>,
    pub(super) kind: Option<&'static str>,
}

/// Reads an answer; what is not there, or is something else, is left out.
pub(super) fn read(body: &[u8]) -> Option<Embed> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let text = |name: &str| body.get(name)?.as_str().map(html::tidy).filter(|text| !text.is_empty());
    // Some write a number.
    match body.get("version") {
        None => {}
        Some(Value::String(version)) if version == "1.0" => {}
        Some(Value::Number(version)) if version.as_f64() == Some(1.0) => {}
        Some(_) => return None,
    }
    let kind = text("type")?;
    let of_html =
        || Some(html::read(body.get("html")?.as_str()?).text.trim().to_owned()).filter(|text| !text.is_empty());
    Some(Embed {
        title: text("title").or_else(|| text("author_name")),
        site: text("provider_name"),
        text: matches!(kind.as_str(), "rich" | "video").then(of_html).flatten(),
        picture: (kind == "photo").then(|| text("url")).flatten().or_else(|| text("thumbnail_url")),
        kind: match kind.as_str() {
            "video" => Some("video.other"),
            "link" => Some("website"),
            _ => None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_gives_what_it_has() {
        let rich = r#"{"version":"1.0","type":"rich","author_name":"Ann","provider_name":"Site",
                       "html":"<blockquote><p>Hello &amp; bye</p></blockquote><script>x</script>"}"#;
        let embed = read(rich.as_bytes()).unwrap();
        assert_eq!((embed.title.as_deref(), embed.site.as_deref()), (Some("Ann"), Some("Site")));
        assert_eq!(embed.text.as_deref(), Some("Hello & bye"));
        let photo = r#"{"version":1,"type":"photo","url":"https://a/p.png","thumbnail_url":"https://a/t.png"}"#;
        assert_eq!(read(photo.as_bytes()).unwrap().picture.as_deref(), Some("https://a/p.png"));
        let video = r#"{"type":"video","title":"T","thumbnail_url":"t.png","html":"<iframe src=x></iframe>"}"#;
        let embed = read(video.as_bytes()).unwrap();
        assert_eq!((embed.kind, embed.picture.as_deref(), embed.text), (Some("video.other"), Some("t.png"), None));
    }

    #[test]
    fn what_is_none_gives_nothing() {
        for bad in
            ["", "[]", "\"x\"", "{}", r#"{"version":"2.0","type":"link"}"#, r#"{"type":7}"#, "{\"type\":\"rich\""]
        {
            assert_eq!(read(bad.as_bytes()), None, "{bad}");
        }
        assert!(read(&[vec![b'['; 100_000], b"1".to_vec()].concat()).is_none());
        let odd = r#"{"type":"rich","title":["x"],"html":3,"thumbnail_url":{}}"#;
        assert_eq!(read(odd.as_bytes()), Some(Embed::default()));
    }
}
