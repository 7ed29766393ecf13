//! What is read of pages, the strange ones too.

use std::time::Duration;

use tokio::time::Instant;

use super::*;

#[test]
fn a_page_as_it_should_be() {
    let facts = read(
        "<!doctype html><html><head><title> A  &amp; B </title>
        <meta property='og:title' content='It&#39;s'><meta property=og:title content=second>
        <meta name=description content='About'><meta name='twitter:card' content=summary>
        <link rel=alternate type='application/json+oembed' href='/oembed?a=1&amp;b=2'><base href=https://b.example/>
        </head><body><h1>Heading</h1><p>One<b>d</b> two</p><p>three</body>",
    );
    assert_eq!(facts.title.as_deref(), Some("A & B"));
    assert_eq!(facts.properties["og:title"], "It's");
    assert_eq!(facts.properties["twitter:card"], "summary");
    assert_eq!(facts.description.as_deref(), Some("About"));
    assert_eq!(facts.oembed.as_deref(), Some("/oembed?a=1&b=2"));
    assert_eq!(facts.base.as_deref(), Some("https://b.example/"));
    assert_eq!(facts.heading.as_deref(), Some("Heading"));
    assert_eq!(facts.text, "Oned two\nthree");
}

#[test]
fn scripts_and_what_stands_around_is_no_text() {
    let facts = read(
        "<body><header><title>no</title>Menu</header><nav><nav>x</nav>y</nav><script>if (a<b) '<title>bad</title>'</script>
         <style>p{}</style><noscript><p>Turn it on</p></noscript><svg><title>Icon</title></svg><!-- <title>c</title> -->
         <p>Text</p><title>Late</title>",
    );
    assert_eq!((facts.text.trim(), facts.title.as_deref()), ("Text", Some("Late")));
}

#[test]
fn the_text_and_the_values_are_cut() {
    let long = "wörd ".repeat(10_000);
    let facts = read(&format!("<title>{long}</title><meta property=og:x content='{long}'><p>{long}</p>"));
    assert!(facts.text.len() <= TEXT + 10 && facts.text.starts_with("wörd wörd"), "{}", facts.text.len());
    assert!(facts.title.unwrap().len() <= VALUE && facts.properties["og:x"].len() <= VALUE);
    let many: String = (0..1000).map(|n| format!("<meta property=og:{n} content=x>")).collect();
    assert_eq!(read(&many).properties.len(), PROPERTIES);
}

#[test]
fn pictures_in_the_text_must_be_large() {
    let facts = read("<img src=dot width=1 height=1><img src=unknown><img src=good width=640 height=480>");
    assert_eq!(facts.inline.as_deref(), Some("good"));
    assert_eq!(read("<link rel='image_src' href=a><meta itemprop=image content=b>").picture.as_deref(), Some("a"));
}

/// Each is a page that makes parsers of trees slow, or ends them.
#[test]
fn d3_35_deep_nesting_and_endless_tags_cost_nothing() {
    const MANY: usize = 1 << 18;
    let fill = |piece: &str| piece.repeat(MANY / piece.len());
    let attributes: String = (0..MANY / 8).map(|n| format!(" a{n}")).collect();
    let pages = [
        fill("<div>"),
        fill("<b><i>"),
        fill("<nav>"),
        fill("<table><tr><td>"),
        fill("</p>"),
        fill("<title>"),
        fill("<!--"),
        fill("<a href='"),
        fill("&"),
        fill("&#x10ffff;"),
        fill("<h1>x"),
        format!("<div{attributes}>"),
        format!("<meta content='{}'>", fill("&amp;")),
        fill("\0"),
    ];
    for page in pages {
        let start = Instant::now();
        let _ = read(&format!("{page}<title>end</title>"));
        assert!(start.elapsed() < Duration::from_secs(5), "{:?} for {}..", start.elapsed(), &page[..20]);
    }
    let facts = read(&format!("{}<title>end</title>", fill("<div>")));
    assert_eq!(facts.title.as_deref(), Some("end"));
}
