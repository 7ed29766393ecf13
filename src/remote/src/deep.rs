//! The canonical form of bodies that are nested deeper than events may be.
//!
//! Other servers may know events that are deeper than this one reads. Such an event is refused alone; the transaction that it
//! comes in is signed as a whole all the same, and what else is in it must not be lost. So this reads without recursion.

use std::ops::Range;

use serde_json::value::RawValue;
use stoa_event::json::{self, Object, Value};

/// The most values that a body may have.
const MOST: usize = 2_000_000;

enum Node {
    Object(Vec<(String, usize)>),
    Array(Vec<usize>),
    /// A string, number, boolean or null: where it stands.
    Leaf(Range<usize>),
}

/// What is to be written next.
enum Step {
    Node(usize),
    Key(usize, usize),
    Byte(u8),
}

/// The canonical form of a body, however deep it is; `None` where it has none.
pub(crate) fn canonical(body: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(body).ok()?;
    // Looks at all of it without recursion. From here on it is JSON.
    serde_json::from_str::<&RawValue>(text).ok()?;
    let nodes = read(text)?;
    write(text, &nodes)
}

fn read(text: &str) -> Option<Vec<Node>> {
    let bytes = text.as_bytes();
    let mut nodes: Vec<Node> = Vec::new();
    // The containers that are open, each with the key whose value comes next.
    let mut open: Vec<(usize, Option<String>)> = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let from = at;
        at += 1;
        let node = match byte {
            b' ' | b'\t' | b'\r' | b'\n' | b',' | b':' => continue,
            b'}' | b']' => {
                open.pop()?;
                continue;
            }
            b'{' => Node::Object(Vec::new()),
            b'[' => Node::Array(Vec::new()),
            b'"' => {
                while *bytes.get(at)? != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
                if let Some((container, key @ None)) = open.last_mut()
                    && matches!(nodes[*container], Node::Object(_))
                {
                    *key = Some(serde_json::from_str(text.get(from..at)?).ok()?);
                    continue;
                }
                Node::Leaf(from..at)
            }
            _ => {
                let rest = bytes.get(at..)?;
                at += rest.iter().position(|byte| b",]} \t\r\n".contains(byte)).unwrap_or(rest.len());
                Node::Leaf(from..at)
            }
        };
        let (no, is_leaf) = (nodes.len(), matches!(node, Node::Leaf(_)));
        nodes.push(node);
        if no >= MOST {
            return None;
        }
        if let Some((container, key)) = open.last_mut() {
            match &mut nodes[*container] {
                Node::Object(fields) => fields.push((key.take()?, no)),
                Node::Array(items) => items.push(no),
                Node::Leaf(_) => return None,
            }
        }
        if !is_leaf {
            open.push((no, None));
        }
    }
    for node in &mut nodes {
        if let Node::Object(fields) = node {
            // Of a key that stands twice, readers everywhere take the last.
            fields.reverse();
            fields.sort_by(|(a, _), (b, _)| a.cmp(b));
            fields.dedup_by(|(later, _), (kept, _)| later == kept);
        }
    }
    Some(nodes)
}

fn write(text: &str, nodes: &[Node]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut steps = vec![Step::Node(0)];
    while let Some(step) = steps.pop() {
        match step {
            Step::Byte(byte) => out.push(byte),
            Step::Key(of, field) => {
                let Node::Object(fields) = nodes.get(of)? else { return None };
                Value::from(fields.get(field)?.0.as_str()).write_canonical(&mut out);
                out.push(b':');
            }
            Step::Node(no) => match nodes.get(no)? {
                Node::Leaf(range) => leaf(text.get(range.clone())?, &mut out)?,
                Node::Array(items) => {
                    out.push(b'[');
                    steps.push(Step::Byte(b']'));
                    for (n, item) in items.iter().enumerate().rev() {
                        steps.push(Step::Node(*item));
                        steps.extend((n > 0).then_some(Step::Byte(b',')));
                    }
                }
                Node::Object(fields) => {
                    out.push(b'{');
                    steps.push(Step::Byte(b'}'));
                    for (n, (_, value)) in fields.iter().enumerate().rev() {
                        steps.push(Step::Node(*value));
                        steps.push(Step::Key(no, n));
                        steps.extend((n > 0).then_some(Step::Byte(b',')));
                    }
                }
            },
        }
    }
    Some(out)
}

fn leaf(text: &str, out: &mut Vec<u8>) -> Option<()> {
    if let Ok(canonical) = json::canonical(text.as_bytes()) {
        out.extend_from_slice(&canonical);
        return Some(());
    }
    // A number that only old rooms allow; those are read as fields of an object.
    let wrapped = format!("{{\"a\":{text}}}");
    let canonical = Value::from(Object::parse_lenient(wrapped.as_bytes()).ok()?).to_canonical();
    out.extend_from_slice(canonical.strip_prefix(b"{\"a\":")?.strip_suffix(b"}")?);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_the_usual_way() {
        for body in [
            r#"{}"#,
            r#"{ "b" : [ ] , "a" : { "\u00e9\n" : -1, "x\"" : "\ud83d\ude00\/" } }"#,
            r#"{"a!":1,"a":2,"":3,"pdus":[[],{},[1,[2,{"z":null,"y":true}]],false,"\\"]}"#,
            r#"{"number":1.50,"large":1e3,"zero":-0}"#,
            "{\"control\":\"\u{7f}\\u0001\"}",
        ] {
            let usual = json::canonical_request(body.as_bytes()).unwrap();
            let deep = canonical(body.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(deep).unwrap(), String::from_utf8(usual).unwrap());
        }
    }

    #[test]
    fn depth_does_not_matter() {
        let nested =
            |open: &str, inside: &str, close: &str, n| format!("{}{inside}{}", open.repeat(n), close.repeat(n));
        for n in [10, 200, 1_000_000] {
            let body = format!(r#"{{"x":{}}}"#, nested("[", "", "]", n));
            assert_eq!(canonical(body.as_bytes()).unwrap(), body.as_bytes());
        }
        let body = nested(r#"{ "a" : "#, "1", "}", 100_000);
        assert_eq!(canonical(body.as_bytes()).unwrap(), nested(r#"{"a":"#, "1", "}", 100_000).as_bytes());
    }

    #[test]
    fn what_is_no_json_has_no_form() {
        for body in ["", "{", "{]", "[1,]", "{\"a\"}", "{\"a\":1}}", "\"\\ud800\"", "nul", "{\"a\":01}"] {
            assert!(canonical(body.as_bytes()).is_none(), "{body}");
        }
        assert!(canonical(b"\"\xff\"").is_none());
        let many = format!("[{}1]", "1,".repeat(MOST));
        assert!(canonical(many.as_bytes()).is_none());
    }

    #[test]
    fn the_last_of_a_key_counts() {
        assert_eq!(canonical(br#"{"a":1,"b":2,"a":[3]}"#).unwrap(), br#"{"a":[3],"b":2}"#);
    }
}
