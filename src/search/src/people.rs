//! Looking for people (Client-Server API, "User Directory"): by the beginnings of the words of their names, or of their ids.
//!
//! An account of ours is found by its profile. Somebody of another server is found by the name in a room, once for each room,
//! so that a name that is told in one room is not found by those who are in another.

use std::{collections::HashMap, ops::Bound};

use roaring::RoaringBitmap;
use stoa_store::{RoomNo, UserNo};
use tantivy::{
    DocId, Score, SegmentOrdinal, SegmentReader, Term,
    collector::{Collector, SegmentCollector},
    columnar::Column,
    query::{BooleanQuery, ConstScoreQuery, Occur, Query, RangeQuery, TermQuery},
    schema::IndexRecordOption,
};

use crate::{
    Error, Search,
    index::{Fields, Index, NOWHERE, parts},
    words::{Kind, Words},
};

/// How many characters of the beginning of a word, and of a user id, can be looked for.
const WORD: usize = 32;
const ID: usize = 64;
/// How much of what somebody typed is looked at, and how much of a name.
const TYPED: usize = 256;
const PIECES: usize = 16;
/// How many people of one part of the index are compared with each other.
const COMPARED: usize = 50_000;
/// How much it counts that a word is whole, that the whole name is, that there is a room in common.
const WHOLE_WORD: f32 = 2.0;
const WHOLE_NAME: f32 = 8.0;
const IN_COMMON: f32 = 4.0;

/// Whom somebody may find.
#[derive(Clone, Debug)]
pub struct Sight {
    /// Who looks, and is not found.
    pub me: UserNo,
    /// The rooms whose members can be found.
    pub rooms: RoaringBitmap,
    /// The accounts of ours that can be found; those in rooms that are open to all are found in any case.
    pub users: RoaringBitmap,
    /// Whether all accounts of ours can be found.
    pub everybody: bool,
}

/// Somebody who was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Person {
    /// Who.
    pub user: UserNo,
    /// The room in which somebody of another server goes by the name that fits.
    pub room: Option<RoomNo>,
}

/// By what somebody is found.
pub(crate) fn terms(words: &Words, id: &str, name: Option<&str>) -> Vec<String> {
    let mut terms = Vec::new();
    beginnings(&mut terms, &id.to_lowercase(), ID);
    let localpart = id.strip_prefix('@').and_then(|id| id.split_once(':')).map_or(id, |(localpart, _)| localpart);
    for text in [Some(localpart), name].into_iter().flatten() {
        let text: String = text.chars().take(TYPED).collect();
        for piece in words.pieces(&text).into_iter().take(PIECES) {
            match piece.kind {
                Kind::Word(forms) => {
                    let Some(word) = forms.first() else { continue };
                    beginnings(&mut terms, word, WORD);
                    terms.push(format!("={word}"));
                }
                Kind::Run(characters) => {
                    terms.extend(characters.iter().map(|character| format!("<{character}")));
                    terms.extend(characters.windows(2).map(|pair| format!("<{}", pair.concat())));
                    terms.push(format!("={}", characters.concat()));
                }
            }
        }
        terms.extend(whole(words, &text));
    }
    terms.sort_unstable();
    terms.dedup();
    terms
}

fn beginnings(terms: &mut Vec<String>, word: &str, most: usize) {
    let mut beginning = "<".to_owned();
    for c in word.chars().take(most) {
        beginning.push(c);
        terms.push(beginning.clone());
    }
}

/// All of a name, as a term.
fn whole(words: &Words, text: &str) -> Option<String> {
    let mut term = "#".to_owned();
    for piece in words.pieces(text) {
        match piece.kind {
            Kind::Word(forms) => term.push_str(forms.first()?),
            Kind::Run(characters) => characters.iter().for_each(|character| term.push_str(character)),
        }
        term.push(' ');
    }
    (term.len() > 1).then_some(term)
}

/// What somebody typed: all of it must fit, and what fits better counts more. `None` where nothing is looked for.
fn query(words: &Words, fields: &Fields, typed: &str) -> Option<Box<dyn Query>> {
    let term = |text: &str| -> Box<dyn Query> {
        Box::new(TermQuery::new(Term::from_field_text(fields.person, text), IndexRecordOption::Basic))
    };
    let worth = |query: Box<dyn Query>, worth: f32| -> Box<dyn Query> { Box::new(ConstScoreQuery::new(query, worth)) };
    let typed: String = typed.trim().chars().take(TYPED).collect();
    if typed.starts_with('@') || typed.contains(':') {
        let id: String = typed.trim_start_matches('@').to_lowercase();
        let id: String = format!("@{id}").chars().take(ID).collect();
        return (id.len() > 1).then(|| worth(term(&format!("<{id}")), 1.0));
    }
    let mut all: Vec<(Occur, Box<dyn Query>)> = Vec::new();
    for piece in words.pieces(&typed).into_iter().take(PIECES) {
        let word = match piece.kind {
            Kind::Word(forms) => {
                let word = forms.into_iter().next()?;
                let beginning: String = word.chars().take(WORD).collect();
                all.push((Occur::Must, worth(term(&format!("<{beginning}")), 1.0)));
                word
            }
            Kind::Run(characters) => {
                let each = characters.windows(characters.len().min(2));
                all.extend(each.map(|part| (Occur::Must, worth(term(&format!("<{}", part.concat())), 1.0))));
                characters.concat()
            }
        };
        all.push((Occur::Should, worth(term(&format!("={word}")), WHOLE_WORD)));
    }
    let name = whole(words, &typed)?;
    all.push((Occur::Should, worth(term(&name), WHOLE_NAME)));
    Some(Box::new(BooleanQuery::new(all)))
}

impl Search {
    /// Looks for people by what somebody typed, at most `most`, those that fit best first.
    ///
    /// # Errors
    /// Where the index fails or is not open.
    pub async fn people(&self, typed: &str, mut sight: Sight, most: usize) -> Result<Vec<Person>, Error> {
        let (words, typed, store) = (self.inner.words.clone(), typed.to_owned(), self.inner.store.clone());
        self.with_index(move |index| {
            let Some(query) = query(&words, &index.fields, &typed) else { return Ok(Vec::new()) };
            let open = open_rooms(index)?;
            let mut in_open = RoaringBitmap::new();
            for room in &open {
                in_open |= store.who().local(RoomNo(room));
            }
            let known = std::mem::take(&mut sight.users);
            let everyone = Everyone { sight, open, in_open, known };
            let mut found: Vec<(UserNo, Fit)> =
                index.reader.searcher().search(&query, &everyone)?.into_iter().collect();
            found.sort_unstable_by(|(a, of_a), (b, of_b)| of_b.score.total_cmp(&of_a.score).then(a.cmp(b)));
            found.truncate(most);
            let person =
                |(user, fit): (UserNo, Fit)| Person { user, room: Some(fit.room).filter(|room| *room != NOWHERE) };
            Ok(found.into_iter().map(person).collect())
        })
        .await
    }
}

/// The rooms whose members anybody may find.
fn open_rooms(index: &Index) -> Result<RoaringBitmap, Error> {
    let some = RangeQuery::new(Bound::Included(Term::from_field_u64(index.fields.open, 0)), Bound::Unbounded);
    Ok(index.reader.searcher().search(&some, &OpenRooms)?)
}

/// Gathers the numbers of open rooms.
struct OpenRooms;

struct OpenRoomsHere(Option<Column<u64>>, RoaringBitmap);

impl Collector for OpenRooms {
    type Fruit = RoaringBitmap;
    type Child = OpenRoomsHere;

    fn for_segment(&self, _: SegmentOrdinal, segment: &SegmentReader) -> tantivy::Result<OpenRoomsHere> {
        Ok(OpenRoomsHere(segment.fast_fields().column_opt("open")?, RoaringBitmap::new()))
    }

    fn requires_scoring(&self) -> bool {
        false
    }

    fn merge_fruits(&self, fruits: Vec<RoaringBitmap>) -> tantivy::Result<RoaringBitmap> {
        Ok(fruits.into_iter().fold(RoaringBitmap::new(), |all, some| all | some))
    }
}

impl SegmentCollector for OpenRoomsHere {
    type Fruit = RoaringBitmap;

    fn collect(&mut self, doc: DocId, _: Score) {
        if let Some(room) = self.0.as_ref().and_then(|column| column.first(doc)) {
            self.1.insert(room as u32);
        }
    }

    fn harvest(self) -> RoaringBitmap {
        self.1
    }
}

/// How well somebody fits, and by the name of which room.
#[derive(Clone, Copy)]
struct Fit {
    score: f32,
    open: bool,
    room: RoomNo,
}

impl Fit {
    /// What is told to all comes first among equals.
    fn is_better(&self, other: &Fit) -> bool {
        (self.score, self.open) > (other.score, other.open)
    }
}

type Fits = HashMap<UserNo, Fit>;

/// Gathers who fits and can be found, each once.
struct Everyone {
    sight: Sight,
    open: RoaringBitmap,
    in_open: RoaringBitmap,
    known: RoaringBitmap,
}

struct EveryoneHere {
    seats: Option<Column<u64>>,
    me: UserNo,
    everybody: bool,
    rooms: RoaringBitmap,
    open: RoaringBitmap,
    in_open: RoaringBitmap,
    known: RoaringBitmap,
    fits: Fits,
}

fn keep(fits: &mut Fits, user: UserNo, fit: Fit) {
    let known = fits.get(&user);
    if known.map_or(fits.len() < COMPARED, |known| fit.is_better(known)) {
        fits.insert(user, fit);
    }
}

impl Collector for Everyone {
    type Fruit = Fits;
    type Child = EveryoneHere;

    fn for_segment(&self, _: SegmentOrdinal, segment: &SegmentReader) -> tantivy::Result<EveryoneHere> {
        Ok(EveryoneHere {
            seats: segment.fast_fields().column_opt("seat")?,
            me: self.sight.me,
            everybody: self.sight.everybody,
            rooms: self.sight.rooms.clone(),
            open: self.open.clone(),
            in_open: self.in_open.clone(),
            known: self.known.clone(),
            fits: Fits::new(),
        })
    }

    fn requires_scoring(&self) -> bool {
        true
    }

    fn merge_fruits(&self, fruits: Vec<Fits>) -> tantivy::Result<Fits> {
        let mut all = Fits::new();
        for (user, fit) in fruits.into_iter().flatten() {
            keep(&mut all, user, fit);
        }
        Ok(all)
    }
}

impl SegmentCollector for EveryoneHere {
    type Fruit = Fits;

    fn collect(&mut self, doc: DocId, score: Score) {
        let Some(seat) = self.seats.as_ref().and_then(|column| column.first(doc)) else { return };
        let (user, room) = parts(seat);
        let (user, room) = (UserNo(user), RoomNo(room));
        if user == self.me {
            return;
        }
        let (in_common, open) = match room == NOWHERE {
            true => (self.known.contains(user.0), self.everybody || self.in_open.contains(user.0)),
            false => (self.rooms.contains(room.0), self.open.contains(room.0)),
        };
        if in_common || open {
            let score = score + if in_common { IN_COMMON } else { 0.0 };
            keep(&mut self.fits, user, Fit { score, open, room });
        }
    }

    fn harvest(self) -> Fits {
        self.fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::LANGUAGES;

    #[test]
    fn people_are_found_by_what_their_names_begin_with() {
        let words = Words::new(&LANGUAGES).unwrap();
        let terms = terms(&words, "@j.smith:example.org", Some("Jörg 山田太郎"));
        for wanted in
            ["<@j.sm", "<smi", "=smith", "<jor", "=jorg", "<山田", "<太", "=山田太郎", "#j smith ", "#jorg 山田太郎 "]
        {
            assert!(terms.iter().any(|term| term == wanted), "{wanted}: {terms:?}");
        }
        assert!(!terms.iter().any(|term| term == "<mith"));
    }
}
