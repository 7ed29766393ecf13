//! Looking for messages: what is asked for as a query, and the best or latest of what fits.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    fmt,
    sync::Arc,
};

use roaring::RoaringBitmap;
use stoa_store::{EventNo, Position, RoomNo, UserNo};
use tantivy::{
    DocId, Score, SegmentOrdinal, SegmentReader, Term,
    collector::{Collector, SegmentCollector},
    columnar::Column,
    query::{BooleanQuery, BoostQuery, ConstScoreQuery, Occur, PhraseQuery, Query, TermQuery},
    schema::{Field, IndexRecordOption},
};

use crate::{
    Error, Search,
    index::{Fields, parts},
    texts::Key,
    words::{Kind, Words},
};

/// How long what is looked for may be, in bytes, and of how many pieces.
const LONGEST: usize = 1024;
const MOST_PIECES: usize = 32;
/// Up to so many rooms are looked for by themselves; of more, what fits elsewhere is passed over.
const FEW_ROOMS: usize = 64;
/// How much more a word counts than another form of it.
const AS_WRITTEN: f32 = 2.0;

/// What is looked for: all of it must be in one text.
#[derive(Clone)]
pub struct Terms {
    pieces: Vec<Kind>,
    words: Words,
}

/// Where it is looked for.
#[derive(Clone, Debug, Default)]
pub struct Within {
    /// In these rooms; in those that were left, before that position.
    pub rooms: HashMap<RoomNo, Option<Position>>,
    /// In these keys.
    pub keys: Vec<Key>,
    /// Only what these say.
    pub senders: Option<RoaringBitmap>,
    /// Nothing that these say.
    pub not_senders: RoaringBitmap,
    /// Only with, or without, a `url`.
    pub url: Option<bool>,
}

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// What fits best.
    Rank,
    /// What was said last.
    Recent,
}

/// A place in the results: what comes after it is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(u64, u64, u64);

/// Something that fits.
#[derive(Clone, Copy, Debug)]
pub struct Hit {
    /// The room.
    pub room: RoomNo,
    /// The event.
    pub event: EventNo,
    /// Who sent it.
    pub sender: UserNo,
    /// How well it fits; only in that order.
    pub rank: f32,
    /// Its place in the results.
    pub place: Cursor,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// As many as were wanted, in order.
    pub hits: Vec<Hit>,
    /// How many there are behind the cursor, by room and by sender.
    pub by_room: HashMap<RoomNo, u64>,
    /// The same by sender.
    pub by_sender: HashMap<UserNo, u64>,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}-{:x}", self.0, self.1, self.2)
    }
}

impl Cursor {
    /// Reads one.
    pub fn parse(text: &str) -> Option<Cursor> {
        let mut numbers = text.split('-').map(|number| u64::from_str_radix(number, 16).ok());
        let cursor = Cursor(numbers.next()??, numbers.next()??, numbers.next()??);
        numbers.next().is_none().then_some(cursor)
    }
}

impl Terms {
    /// Whether nothing is looked for.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The words of a text that are looked for, as they stand there.
    pub fn words_in(&self, text: &str) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for piece in self.words.pieces(text) {
            let written = text.get(piece.at).unwrap_or_default();
            for wanted in &self.pieces {
                let word = match (wanted, &piece.kind) {
                    (Kind::Word(wanted), Kind::Word(forms)) if wanted.iter().any(|form| forms.contains(form)) => {
                        written.to_lowercase()
                    }
                    (Kind::Run(wanted), Kind::Run(run)) if run.windows(wanted.len()).any(|part| part == wanted) => {
                        wanted.concat()
                    }
                    _ => continue,
                };
                if !found.contains(&word) {
                    found.push(word);
                }
            }
        }
        found
    }

    fn query(&self, fields: &Fields, within: &Within) -> Box<dyn Query> {
        let keys = within.keys.iter().map(|key| (Occur::Should, self.in_field(fields.text(*key))));
        let text: Box<dyn Query> = Box::new(BooleanQuery::new(keys.collect()));
        if within.rooms.len() > FEW_ROOMS {
            return text;
        }
        let room = |room: &RoomNo| {
            let term = Term::from_field_u64(fields.room, room.0.into());
            (Occur::Should, Box::new(TermQuery::new(term, IndexRecordOption::Basic)) as Box<dyn Query>)
        };
        let rooms = BooleanQuery::new(within.rooms.keys().map(room).collect());
        let rooms = Box::new(ConstScoreQuery::new(Box::new(rooms), 0.0));
        Box::new(BooleanQuery::new(vec![(Occur::Must, text), (Occur::Must, rooms)]))
    }

    fn in_field(&self, field: Field) -> Box<dyn Query> {
        let pieces = self.pieces.iter().map(|piece| match piece {
            Kind::Word(forms) => (Occur::Must, any_form(field, forms)),
            Kind::Run(characters) => (Occur::Must, in_a_row(field, characters)),
        });
        Box::new(BooleanQuery::new(pieces.collect()))
    }
}

fn term(field: Field, text: &str) -> Box<dyn Query> {
    Box::new(TermQuery::new(Term::from_field_text(field, text), IndexRecordOption::WithFreqs))
}

fn any_form(field: Field, forms: &[String]) -> Box<dyn Query> {
    let forms = forms.iter().enumerate().map(|(i, form)| {
        let boost = if i == 0 { AS_WRITTEN } else { 1.0 };
        (Occur::Should, Box::new(BoostQuery::new(term(field, form), boost)) as Box<dyn Query>)
    });
    Box::new(BooleanQuery::new(forms.collect()))
}

fn in_a_row(field: Field, characters: &[String]) -> Box<dyn Query> {
    let pairs: Vec<String> = characters.windows(2).map(<[String]>::concat).collect();
    match (&pairs[..], characters) {
        ([], [character, ..]) => term(field, character),
        ([pair], _) => term(field, pair),
        (pairs, _) => Box::new(PhraseQuery::new(pairs.iter().map(|pair| Term::from_field_text(field, pair)).collect())),
    }
}

impl Search {
    /// What somebody typed, as what is looked for.
    ///
    /// # Errors
    /// [`Error::TooLong`]
    pub fn terms(&self, typed: &str) -> Result<Terms, Error> {
        if typed.len() > LONGEST {
            return Err(Error::TooLong("what is searched for is longer than 1024 bytes"));
        }
        let mut pieces: Vec<Kind> = Vec::new();
        for piece in self.inner.words.pieces(typed) {
            if !pieces.contains(&piece.kind) {
                pieces.push(piece.kind);
            }
        }
        if pieces.len() > MOST_PIECES {
            return Err(Error::TooLong("more than 32 words are searched for"));
        }
        Ok(Terms { pieces, words: self.inner.words.clone() })
    }

    /// Looks for what fits and comes after a place, at most `most`. With `count`, it is also counted by room and by sender.
    ///
    /// # Errors
    /// Where the index fails or is not open.
    pub async fn find(
        &self,
        terms: &Terms,
        within: &Arc<Within>,
        order: Order,
        after: Option<Cursor>,
        most: usize,
        count: bool,
    ) -> Result<Found, Error> {
        if terms.is_empty() || within.rooms.is_empty() || within.keys.is_empty() {
            return Ok(Found::default());
        }
        let (terms, within) = (terms.clone(), within.clone());
        self.with_index(move |index| {
            let query = terms.query(&index.fields, &within);
            let best = Best { within, order, after, most, count };
            Ok(index.reader.searcher().search(&query, &best)?)
        })
        .await
    }
}

/// Keeps the best of what fits.
struct Best {
    within: Arc<Within>,
    order: Order,
    after: Option<Cursor>,
    most: usize,
    count: bool,
}

/// The same in one segment of the index.
struct BestHere {
    within: Arc<Within>,
    order: Order,
    after: Option<Cursor>,
    most: usize,
    count: bool,
    columns: Option<[Column<u64>; 5]>,
    heap: BinaryHeap<Reverse<(Cursor, u32, u32)>>,
    found: Found,
}

impl Collector for Best {
    type Fruit = Found;
    type Child = BestHere;

    fn for_segment(&self, _: SegmentOrdinal, segment: &SegmentReader) -> tantivy::Result<BestHere> {
        let column = |name| segment.fast_fields().column_opt::<u64>(name);
        let columns = [column("event")?, column("sender")?, column("ts")?, column("at")?, column("url")?];
        // A segment without messages lacks them.
        let columns = match columns {
            [Some(event), Some(sender), Some(ts), Some(at), Some(url)] => Some([event, sender, ts, at, url]),
            _ => None,
        };
        Ok(BestHere {
            within: self.within.clone(),
            order: self.order,
            after: self.after,
            most: self.most,
            count: self.count,
            columns,
            heap: BinaryHeap::new(),
            found: Found::default(),
        })
    }

    fn requires_scoring(&self) -> bool {
        self.order == Order::Rank
    }

    fn merge_fruits(&self, fruits: Vec<Found>) -> tantivy::Result<Found> {
        let mut all = Found::default();
        for found in fruits {
            all.hits.extend(found.hits);
            found.by_room.into_iter().for_each(|(room, n)| *all.by_room.entry(room).or_default() += n);
            found.by_sender.into_iter().for_each(|(user, n)| *all.by_sender.entry(user).or_default() += n);
        }
        all.hits.sort_unstable_by_key(|hit| Reverse(hit.place));
        all.hits.truncate(self.most);
        Ok(all)
    }
}

impl SegmentCollector for BestHere {
    type Fruit = Found;

    fn collect(&mut self, doc: DocId, score: Score) {
        let Some(columns) = &self.columns else { return };
        let [event, sender, ts, at, url] = columns.each_ref().map(|column| column.first(doc).unwrap_or_default());
        let (room, _) = parts(event);
        let within = &*self.within;
        let Some(until) = within.rooms.get(&RoomNo(room)) else { return };
        let sender = sender as u32;
        if until.is_some_and(|until| at >= until.0)
            || within.senders.as_ref().is_some_and(|only| !only.contains(sender))
            || within.not_senders.contains(sender)
            || within.url.is_some_and(|wanted| wanted != (url != 0))
        {
            return;
        }
        let place = match self.order {
            // Bits of numbers that are not negative are ordered as the numbers are.
            Order::Rank => Cursor(score.max(0.0).to_bits().into(), ts, event),
            Order::Recent => Cursor(ts, 0, event),
        };
        if self.after.is_some_and(|after| place >= after) {
            return;
        }
        if self.count {
            *self.found.by_room.entry(RoomNo(room)).or_default() += 1;
            *self.found.by_sender.entry(UserNo(sender)).or_default() += 1;
        }
        self.heap.push(Reverse((place, score.to_bits(), sender)));
        if self.heap.len() > self.most {
            self.heap.pop();
        }
    }

    fn harvest(mut self) -> Found {
        let hits = self.heap.into_iter().map(|Reverse((place, score, sender))| {
            let (room, event) = parts(place.2);
            Hit {
                room: RoomNo(room),
                event: EventNo(event),
                sender: UserNo(sender),
                rank: f32::from_bits(score),
                place,
            }
        });
        self.found.hits = hits.collect();
        self.found
    }
}
