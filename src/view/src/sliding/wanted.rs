//! Which state of a room a client wants, made ready for asking; and what several wishes come to together (MSC4186,
//! "Combining room configs").

use super::request::{Element, RequiredState};

const MEMBER: &str = "m.room.member";

/// What is wanted of a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RoomConfig {
    /// How many events.
    pub(crate) timeline_limit: usize,
    /// Which state: what any of these wants.
    pub(super) wanted: Vec<Wanted>,
}

/// One wish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
    lazy: bool,
}

/// `None` matches all.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    kind: Option<String>,
    key: Option<String>,
}

impl Pattern {
    fn matches(&self, kind: &str, key: &str) -> bool {
        self.kind.as_deref().is_none_or(|it| it == kind) && self.key.as_deref().is_none_or(|it| it == key)
    }

    fn of(element: &Element) -> Pattern {
        Pattern { kind: element.kind.clone(), key: element.state_key.clone() }
    }

    fn of_pair(kind: &str, key: &str, me: &str) -> Pattern {
        let kind = (kind != "*").then(|| kind.to_owned());
        let key = match key {
            "*" => None,
            "$ME" => Some(me.to_owned()),
            _ => Some(key.to_owned()),
        };
        Pattern { kind, key }
    }
}

impl Wanted {
    pub(super) fn of(state: &RequiredState, me: &str) -> Wanted {
        match state {
            RequiredState::Pairs(pairs) => {
                let is_lazy = |(kind, key): &&(String, String)| kind == MEMBER && key == "$LAZY";
                let others = pairs.iter().filter(|pair| !is_lazy(pair));
                Wanted {
                    include: others.map(|(kind, key)| Pattern::of_pair(kind, key, me)).collect(),
                    exclude: Vec::new(),
                    lazy: pairs.iter().any(|pair| is_lazy(&pair)),
                }
            }
            RequiredState::Rules { include, exclude, lazy_members } => Wanted {
                include: include.iter().map(Pattern::of).collect(),
                exclude: exclude.iter().map(Pattern::of).collect(),
                lazy: *lazy_members,
            },
        }
    }

    fn matches(&self, kind: &str, key: &str) -> bool {
        // Whoever wants members lazily does not mean them by "everything".
        let meant = |it: &Pattern| it.matches(kind, key) && !(self.lazy && kind == MEMBER && it.kind.is_none());
        self.include.iter().any(meant) && !self.exclude.iter().any(|it| it.matches(kind, key))
    }

    fn wants_all_members(&self) -> bool {
        let all = |it: &Pattern| it.key.is_none() && it.kind.as_deref().map_or(!self.lazy, |kind| kind == MEMBER);
        self.include.iter().any(all)
    }
}

impl RoomConfig {
    /// Adds another wish: the answer has what either wants.
    pub(super) fn add(&mut self, other: RoomConfig) {
        self.timeline_limit = self.timeline_limit.max(other.timeline_limit);
        for wanted in other.wanted {
            if !self.wanted.contains(&wanted) {
                self.wanted.push(wanted);
            }
        }
    }

    /// Whether a state event is wanted for itself.
    pub(super) fn matches(&self, kind: &str, key: &str) -> bool {
        self.wanted.iter().any(|wanted| wanted.matches(kind, key))
    }

    /// Whether members are wanted as the timeline needs them.
    pub(super) fn lazy(&self) -> bool {
        self.wanted.iter().any(|wanted| wanted.lazy) && !self.wants_all_members()
    }

    /// Whether the whole list of members has to be looked through.
    pub(super) fn wants_all_members(&self) -> bool {
        self.wanted.iter().any(Wanted::wants_all_members)
    }

    /// The types and state keys that are named one by one; `None` if there are wishes that only looking at everything can
    /// answer, members apart.
    pub(super) fn exact(&self) -> Option<Vec<(&str, &str)>> {
        let all = self.wanted.iter().flat_map(|wanted| &wanted.include);
        let others = all.filter(|it| !(it.kind.as_deref() == Some(MEMBER) && it.key.is_none()));
        others.map(|it| Some((it.kind.as_deref()?, it.key.as_deref()?))).collect()
    }

    /// The members who are named one by one.
    pub(super) fn named_members(&self) -> impl Iterator<Item = &str> {
        let all = self.wanted.iter().flat_map(|wanted| &wanted.include);
        all.filter(|it| it.kind.as_deref().is_none_or(|kind| kind == MEMBER)).filter_map(|it| it.key.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> RoomConfig {
        let pairs = pairs.iter().map(|(kind, key)| ((*kind).to_owned(), (*key).to_owned())).collect();
        RoomConfig { timeline_limit: 1, wanted: vec![Wanted::of(&RequiredState::Pairs(pairs), "@me:a")] }
    }

    fn rules(json: serde_json::Value) -> RoomConfig {
        let state: RequiredState = serde_json::from_value(json).unwrap();
        RoomConfig { timeline_limit: 2, wanted: vec![Wanted::of(&state, "@me:a")] }
    }

    #[test]
    fn wildcards_match_a_type_a_key_or_all() {
        let config = pairs(&[("m.call.member", "*"), ("m.room.name", ""), ("*", "x")]);
        assert!(config.matches("m.call.member", "@a:b") && config.matches("m.room.name", ""));
        assert!(config.matches("any", "x") && !config.matches("m.room.topic", ""));
        assert_eq!(config.exact(), None);
        assert!(pairs(&[("*", "*")]).wants_all_members());
    }

    #[test]
    fn me_and_lazy_have_a_meaning() {
        let config = pairs(&[(MEMBER, "$LAZY"), (MEMBER, "$ME"), ("*", "*")]);
        assert!(config.lazy() && !config.wants_all_members());
        assert!(config.matches(MEMBER, "@me:a") && !config.matches(MEMBER, "@bob:a"));
        assert!(config.matches("m.room.topic", ""));
        assert_eq!(config.named_members().collect::<Vec<_>>(), ["@me:a"]);
    }

    #[test]
    fn the_accepted_spelling_includes_excludes_and_loads_lazily() {
        let config = rules(serde_json::json!({
            "include": [{}], "exclude": [{ "type": "m.room.create", "state_key": "" }], "lazy_members": true
        }));
        assert!(config.matches("m.room.topic", "") && !config.matches("m.room.create", ""));
        assert!(!config.matches(MEMBER, "@me:a") && config.lazy());
    }

    #[test]
    fn wishes_add_up_to_what_either_wants() {
        let mut config = pairs(&[(MEMBER, "$LAZY"), ("m.room.name", "")]);
        config.add(rules(serde_json::json!({ "include": [{ "type": MEMBER }] })));
        assert!(!config.lazy() && config.wants_all_members() && config.matches("m.room.name", ""));
        assert_eq!(config.timeline_limit, 2);
        assert_eq!(config.exact(), Some(vec![("m.room.name", "")]));
    }
}
