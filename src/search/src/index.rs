//! The index on disk: its fields, what is written to it, and how far it is. A commit holds documents and place together,
//! so the index never says that it knows what it does not.

use std::{path::Path, sync::Arc};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use stoa_store::{EventNo, Position, RoomNo, UserNo};
use tantivy::{
    Index as Tantivy, IndexReader, IndexWriter, ReloadPolicy, TantivyDocument, TantivyError, Term,
    directory::MmapDirectory,
    indexer::IndexWriterOptions,
    schema::{FAST, Field, INDEXED, IndexRecordOption, Schema, TextFieldIndexing, TextOptions},
    tokenizer::{PreTokenizedString, Token},
};

use crate::{
    Error,
    texts::{Key, Text},
    words::{Kind, Piece, Words},
};

/// Changed whenever an index of before cannot be read, or should be made anew.
const FORMAT: u32 = 1;

/// How far an index is. It is kept in the commit itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    format: u32,
    languages: Vec<String>,
    messages: bool,
    /// Everything that the feed told up to here is in it.
    pub position: u64,
    /// How far what was there before is in it; `None` where all is.
    pub scan: Option<Scan>,
}

/// How far the store has been read, table after table. A place stands for what comes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scan {
    /// The accounts.
    Users(Option<u32>),
    /// The rooms.
    Rooms(Option<u32>),
    /// The members of rooms.
    Members(Option<(u32, u32)>),
    /// The events of rooms.
    Events(Option<(u32, u32)>),
}

impl Progress {
    /// Of an empty index: everything is still to be read.
    pub fn begin(config: &crate::Config, position: Position) -> Progress {
        let scan = Some(Scan::Users(None));
        let (languages, messages) = (config.languages.clone(), config.messages);
        Progress { format: FORMAT, languages, messages, position: position.0, scan }
    }

    /// Whether it was made as the settings want it.
    pub fn fits(&self, config: &crate::Config) -> bool {
        self.format == FORMAT && self.languages == config.languages && self.messages == config.messages
    }
}

/// The fields of documents. A document is an event, an account of ours, somebody in a room, or a room that is open to all.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    /// Room and event in one number.
    pub event: Field,
    pub room: Field,
    pub sender: Field,
    pub ts: Field,
    /// The event's position.
    pub at: Field,
    pub url: Field,
    body: Field,
    name: Field,
    topic: Field,
    /// User and room in one number.
    pub seat: Field,
    /// Beginnings and wholes of names.
    pub person: Field,
    /// The number of a room whose members anybody may find.
    pub open: Field,
}

impl Fields {
    pub fn text(&self, key: Key) -> Field {
        match key {
            Key::Body => self.body,
            Key::Name => self.name,
            Key::Topic => self.topic,
        }
    }
}

fn schema() -> (Schema, Fields) {
    let mut schema = Schema::builder();
    // Tokens come ready made: no tokenizer is ever asked.
    let text = TextFieldIndexing::default().set_index_option(IndexRecordOption::WithFreqsAndPositions);
    let text = TextOptions::default().set_indexing_options(text);
    let person = TextFieldIndexing::default().set_index_option(IndexRecordOption::Basic).set_fieldnorms(false);
    let person = TextOptions::default().set_indexing_options(person);
    let fields = Fields {
        event: schema.add_u64_field("event", INDEXED | FAST),
        room: schema.add_u64_field("room", INDEXED),
        sender: schema.add_u64_field("sender", FAST),
        ts: schema.add_u64_field("ts", FAST),
        at: schema.add_u64_field("at", FAST),
        url: schema.add_u64_field("url", FAST),
        body: schema.add_text_field("body", text.clone()),
        name: schema.add_text_field("name", text.clone()),
        topic: schema.add_text_field("topic", text),
        seat: schema.add_u64_field("seat", INDEXED | FAST),
        person: schema.add_text_field("person", person),
        open: schema.add_u64_field("open", INDEXED | FAST),
    };
    (schema.build(), fields)
}

/// Two numbers in one, the first one first.
pub fn pair(first: u32, second: u32) -> u64 {
    u64::from(first) << 32 | u64::from(second)
}

/// The two numbers of [`pair`].
pub fn parts(pair: u64) -> (u32, u32) {
    ((pair >> 32) as u32, pair as u32)
}

/// Stands for no room, in the seat of an account of ours.
pub const NOWHERE: RoomNo = RoomNo(u32::MAX);

/// An open index, for those who look.
pub struct Index {
    pub reader: IndexReader,
    pub fields: Fields,
}

/// An open index, for the one who writes. It alone holds the lock of the folder.
pub struct Writer {
    pub index: Arc<Index>,
    writer: Mutex<IndexWriter>,
}

/// What becomes different in the index. What stood there before is taken away in any case, so that doing it again changes
/// nothing.
pub enum Change {
    /// An event, as it is now; `None` if it is not searched (any more).
    Event { room: RoomNo, event: EventNo, said: Option<Said> },
    /// Somebody in a room, or an account of ours, with the terms by which it is found; `None` if it is not (any more).
    Person { user: UserNo, room: RoomNo, terms: Option<Vec<String>> },
    /// Whether the members of a room can be found by anybody.
    Open { room: RoomNo, open: bool },
}

/// What somebody said.
pub struct Said {
    pub sender: UserNo,
    pub ts: u64,
    pub at: Position,
    pub text: Text,
}

/// Throws an index away.
///
/// # Errors
/// Where the folder refuses.
pub fn wipe(folder: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(folder) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => Err(why.into()),
        _ => Ok(()),
    }
}

impl Writer {
    /// Opens the index in a folder. One that cannot be read is thrown away: everything in it can be had again.
    ///
    /// # Errors
    /// Where the folder refuses, or somebody else writes there.
    pub fn open(folder: &Path, memory: usize) -> Result<Writer, Error> {
        match Self::try_open(folder, memory) {
            Err(Error::Index(why)) if !matches!(why, TantivyError::LockFailure(..)) => {
                tracing::warn!(%why, "the index of the search cannot be read; it is made anew");
                wipe(folder)?;
                Self::try_open(folder, memory)
            }
            other => other,
        }
    }

    fn try_open(folder: &Path, memory: usize) -> Result<Writer, Error> {
        std::fs::create_dir_all(folder)?;
        let (schema, fields) = schema();
        let directory = MmapDirectory::open(folder).map_err(TantivyError::from)?;
        let index = Tantivy::open_or_create(directory, schema)?;
        let options =
            IndexWriterOptions::builder().num_worker_threads(1).num_merge_threads(1).memory_budget_per_thread(memory);
        let writer = index.writer_with_options(options.build())?;
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        Ok(Writer { index: Arc::new(Index { reader, fields }), writer: Mutex::new(writer) })
    }

    /// How far it is; `None` for a new one.
    pub fn progress(&self) -> Result<Option<Progress>, Error> {
        let metas = self.writer.lock().index().load_metas()?;
        Ok(metas.payload.and_then(|payload| serde_json::from_str(&payload).ok()))
    }

    /// Makes everything that was changed durable, with how far it is, and lets searches see it.
    pub fn commit(&self, progress: &Progress) -> Result<(), Error> {
        let payload = serde_json::to_string(progress).map_err(|why| Error::Task(why.to_string()))?;
        let mut writer = self.writer.lock();
        let mut commit = writer.prepare_commit()?;
        commit.set_payload(&payload);
        commit.commit()?;
        drop(writer);
        Ok(self.index.reader.reload()?)
    }

    /// Makes changes. They are seen, and durable, after the next commit.
    ///
    /// # Errors
    /// Where the index failed before.
    pub fn apply(&self, words: &Words, changes: Vec<Change>) -> Result<(), Error> {
        let (writer, fields) = (self.writer.lock(), &self.index.fields);
        for change in changes {
            let (key, document) = match change {
                Change::Event { room, event, said } => {
                    let key = pair(room.0, event.0);
                    let document = said.map(|said| self.message(words, key, room, &said));
                    (Term::from_field_u64(fields.event, key), document)
                }
                Change::Person { user, room, terms } => {
                    let key = pair(user.0, room.0);
                    (Term::from_field_u64(fields.seat, key), terms.map(|terms| self.person(key, terms)))
                }
                Change::Open { room, open } => {
                    let document = || {
                        let mut document = TantivyDocument::new();
                        document.add_u64(fields.open, room.0.into());
                        document
                    };
                    (Term::from_field_u64(fields.open, room.0.into()), open.then(document))
                }
            };
            writer.delete_term(key);
            if let Some(document) = document {
                writer.add_document(document)?;
            }
        }
        Ok(())
    }

    fn message(&self, words: &Words, key: u64, room: RoomNo, said: &Said) -> TantivyDocument {
        let fields = &self.index.fields;
        let mut document = TantivyDocument::new();
        document.add_u64(fields.event, key);
        document.add_u64(fields.room, room.0.into());
        document.add_u64(fields.sender, said.sender.0.into());
        document.add_u64(fields.ts, said.ts);
        document.add_u64(fields.at, said.at.0);
        document.add_u64(fields.url, said.text.url.into());
        let tokens = tokens(&words.pieces(&said.text.text));
        document.add_pre_tokenized_text(fields.text(said.text.key), tokens);
        document
    }

    fn person(&self, key: u64, terms: Vec<String>) -> TantivyDocument {
        let mut document = TantivyDocument::new();
        document.add_u64(self.index.fields.seat, key);
        let tokens = terms.into_iter().map(|text| Token { text, position: 0, ..Token::default() }).collect();
        document.add_pre_tokenized_text(self.index.fields.person, PreTokenizedString { text: String::new(), tokens });
        document
    }
}

/// The tokens of a text: all forms of a word at one place; of a run each character and each pair of neighbours.
fn tokens(pieces: &[Piece]) -> PreTokenizedString {
    let mut tokens = Vec::with_capacity(pieces.len() * 2);
    let mut position = 0;
    let mut add = |text: &str, position| tokens.push(Token { text: text.to_owned(), position, ..Token::default() });
    for piece in pieces {
        match &piece.kind {
            Kind::Word(forms) => {
                forms.iter().for_each(|form| add(form, position));
                position += 1;
            }
            Kind::Run(characters) => {
                for (i, character) in characters.iter().enumerate() {
                    add(character, position);
                    if let Some(next) = characters.get(i + 1) {
                        add(&format!("{character}{next}"), position);
                    }
                    position += 1;
                }
            }
        }
        // Runs that stand apart are not neighbours.
        position += usize::from(matches!(piece.kind, Kind::Run(_)));
    }
    PreTokenizedString { text: String::new(), tokens }
}
