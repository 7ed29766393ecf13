//! Search in what people say (Client-Server API, "Server Side Search"): the index says what fits, the view what of it may be
//! seen, and here a page is made of it.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use axum::{Router, extract::State, routing::post};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use stoa_http::{Body, Error, Json, Params, Result, Who};
use stoa_search::{Cursor, Hit, Key, Order, Search, Terms, Within};
use stoa_store::{RoomNo, UserNo};
use stoa_view::{Around, FoundEvent, RoomEventFilter, View, Viewer};

use crate::{Api, paths::Paths, sync::viewer};

pub(crate) fn routes() -> Router<Api> {
    Router::new().v3("/search", post(search))
}

/// How many results a page has, where the client does not say and at most.
const LIMIT: usize = 10;
const MOST: usize = 100;
/// How many hits are looked at for a page, and how many together.
const WALK: usize = 500;
const TOGETHER: usize = 100;
/// How many words to highlight are named.
const HIGHLIGHTS: usize = 100;

#[derive(Deserialize)]
struct Batch {
    next_batch: Option<String>,
}

#[derive(Deserialize)]
struct Request {
    search_categories: Categories,
}

#[derive(Deserialize)]
struct Categories {
    room_events: Option<Criteria>,
}

#[derive(Deserialize)]
struct Criteria {
    search_term: String,
    keys: Option<Vec<String>>,
    #[serde(default)]
    filter: RoomEventFilter,
    #[serde(default)]
    order_by: OrderBy,
    event_context: Option<EventContext>,
    #[serde(default)]
    include_state: bool,
    #[serde(default)]
    groupings: Groupings,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OrderBy {
    #[default]
    Rank,
    Recent,
}

#[derive(Deserialize)]
#[serde(default)]
struct EventContext {
    before_limit: usize,
    after_limit: usize,
    include_profile: bool,
}

impl Default for EventContext {
    fn default() -> Self {
        EventContext { before_limit: 5, after_limit: 5, include_profile: false }
    }
}

#[derive(Default, Deserialize)]
struct Groupings {
    #[serde(default)]
    group_by: Vec<Grouping>,
}

#[derive(Deserialize)]
struct Grouping {
    key: GroupKey,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum GroupKey {
    RoomId,
    Sender,
}

/// One group alone, of which a page is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Room(RoomNo),
    Sender(UserNo),
}

/// `next_batch`: the place after which to go on, how many results were told of, and the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Token {
    order: Order,
    after: Cursor,
    count: usize,
    group: Option<Group>,
}

#[derive(Serialize)]
struct Answer {
    search_categories: AnsweredCategories,
}

#[derive(Default, Serialize)]
struct AnsweredCategories {
    #[serde(skip_serializing_if = "Option::is_none")]
    room_events: Option<Results>,
}

#[derive(Serialize)]
struct Results {
    count: usize,
    highlights: Vec<String>,
    results: Vec<ShownResult>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<BTreeMap<Arc<str>, Vec<Box<RawValue>>>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    groups: BTreeMap<GroupKey, BTreeMap<String, ShownGroup>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
}

#[derive(Serialize)]
struct ShownResult {
    rank: f32,
    result: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<Box<RawValue>>,
}

#[derive(Default, Serialize)]
struct ShownGroup {
    order: usize,
    results: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
}

/// What is looked for, where, and from where on.
struct Asked<'a> {
    view: &'a View,
    search: &'a Search,
    viewer: Viewer,
    filter: &'a RoomEventFilter,
    terms: Terms,
    within: Arc<Within>,
    order: Order,
    token: Option<Token>,
}

/// A page of results.
#[derive(Default)]
struct Page {
    results: Vec<(Hit, FoundEvent)>,
    /// How many results there are, as far as was looked.
    count: usize,
    /// Where the next page begins, if there is one.
    next: Option<Cursor>,
}

/// `POST /_matrix/client/v3/search`
async fn search(
    who: Who,
    State(view): State<View>,
    State(search): State<Search>,
    Params(Batch { next_batch }): Params<Batch>,
    Body(request): Body<Request>,
) -> Result<Json<Answer>> {
    if !search.has_messages() {
        return Err(Error::unrecognized("The search is switched off"));
    }
    let Some(criteria) = request.search_categories.room_events else {
        return Ok(Json(Answer { search_categories: AnsweredCategories::default() }));
    };
    let asked = ask(&view, &search, viewer(&who), &criteria, next_batch.as_deref()).await?;
    let page = asked.page(criteria.filter.limit(LIMIT, MOST).max(1)).await?;
    let results = answer(&asked, &criteria, page).await?;
    Ok(Json(Answer { search_categories: AnsweredCategories { room_events: Some(results) } }))
}

async fn ask<'a>(
    view: &'a View,
    search: &'a Search,
    viewer: Viewer,
    criteria: &'a Criteria,
    next_batch: Option<&str>,
) -> Result<Asked<'a>> {
    let order = match criteria.order_by {
        OrderBy::Rank => Order::Rank,
        OrderBy::Recent => Order::Recent,
    };
    let bad = || Error::invalid_param("next_batch was not made by this search");
    let token = next_batch.map(|text| Token::parse(text).filter(|token| token.order == order).ok_or_else(bad));
    let token = token.transpose()?;
    let terms = search.terms(&criteria.search_term)?;
    let mut keys = Vec::new();
    for key in criteria.keys.as_deref().unwrap_or(&["content.body", "content.name", "content.topic"].map(String::from))
    {
        let key = Key::parse(key).ok_or_else(|| Error::invalid_param(format!("{key} cannot be searched")))?;
        if criteria.filter.wants_kind(key.event_type(), None) && !keys.contains(&key) {
            keys.push(key);
        }
    }
    let filter = &criteria.filter;
    let searchable = view.searchable(&viewer, filter).await?;
    let mut within = Within {
        rooms: searchable.rooms,
        keys,
        senders: searchable.senders,
        not_senders: searchable.not_senders,
        url: filter.contains_url,
    };
    match token.and_then(|token| token.group) {
        Some(Group::Room(room)) => within.rooms.retain(|it, _| *it == room),
        Some(Group::Sender(user)) => match &mut within.senders {
            Some(senders) => *senders &= [user.0].into_iter().collect::<roaring::RoaringBitmap>(),
            none => *none = Some([user.0].into_iter().collect()),
        },
        None => {}
    }
    Ok(Asked { view, search, viewer, filter, terms, within: Arc::new(within), order, token })
}

impl Asked<'_> {
    /// Walks what fits until the page is full. On the first page it goes on a while, to say how many there are; what may not be
    /// seen is not counted, so that nobody learns of it.
    async fn page(&self, limit: usize) -> Result<Page> {
        let mut page = Page { count: self.token.map_or(0, |token| token.count), ..Page::default() };
        let (mut after, mut walked) = (self.token.map(|token| token.after), 0);
        let mut full = None;
        while walked < WALK {
            let found = self.search.find(&self.terms, &self.within, self.order, after, TOGETHER, false).await?;
            let hits: Vec<_> = found.hits.iter().map(|hit| (hit.room, hit.event)).collect();
            let seen = self.view.found(&self.viewer, &hits, self.filter).await?;
            for (hit, event) in found.hits.iter().zip(seen) {
                after = Some(hit.place);
                let Some(event) = event else { continue };
                page.count += usize::from(self.token.is_none());
                if page.results.len() < limit {
                    page.results.push((*hit, event));
                } else if full.is_none() {
                    // There is one more at least.
                    full = page.results.last().map(|(hit, _)| hit.place);
                }
            }
            walked += found.hits.len();
            if found.hits.len() < TOGETHER {
                page.next = full;
                return Ok(page);
            }
            if self.token.is_some() && full.is_some() {
                break;
            }
        }
        page.next = full.or(after);
        Ok(page)
    }

    fn batch(&self, after: Cursor, count: usize, group: Option<Group>) -> String {
        Token { order: self.order, after, count, group }.to_string()
    }

    /// The results by rooms and by senders, each group with where it goes on.
    async fn groups(
        &self,
        keys: impl Iterator<Item = GroupKey>,
        page: &Page,
    ) -> Result<BTreeMap<GroupKey, BTreeMap<String, ShownGroup>>> {
        let mut groups: BTreeMap<GroupKey, BTreeMap<String, ShownGroup>> = BTreeMap::new();
        let keys: Vec<GroupKey> = keys.collect();
        if keys.is_empty() {
            return Ok(groups);
        }
        // What a page of one group leaves is of that group.
        let more = match page.next {
            Some(next) => self.search.find(&self.terms, &self.within, self.order, Some(next), 0, true).await?,
            None => stoa_search::Found::default(),
        };
        for key in keys {
            let groups = groups.entry(key).or_default();
            for (hit, event) in &page.results {
                let (name, group, left) = match key {
                    GroupKey::RoomId => (event.room_id.to_string(), Group::Room(hit.room), more.by_room.get(&hit.room)),
                    GroupKey::Sender => {
                        (event.sender().to_owned(), Group::Sender(hit.sender), more.by_sender.get(&hit.sender))
                    }
                };
                let order = groups.len() + 1;
                let shown = groups.entry(name).or_insert_with(|| ShownGroup { order, ..ShownGroup::default() });
                shown.results.push(event.event_id().to_owned());
                if let (Some(next), Some(_)) = (page.next, left) {
                    shown.next_batch = Some(self.batch(next, page.count, Some(group)));
                }
            }
        }
        Ok(groups)
    }
}

async fn answer(asked: &Asked<'_>, criteria: &Criteria, page: Page) -> Result<Results> {
    let mut highlights: Vec<String> = Vec::new();
    for (_, event) in &page.results {
        let text = stoa_search::text(event.fits()).map(|text| text.text).unwrap_or_default();
        let known: HashSet<&String> = highlights.iter().collect();
        let new: Vec<String> = asked.terms.words_in(&text).into_iter().filter(|word| !known.contains(word)).collect();
        highlights.extend(new);
    }
    highlights.truncate(HIGHLIGHTS);
    let keys = criteria.groupings.group_by.iter().map(|grouping| grouping.key);
    let groups = asked.groups(keys, &page).await?;
    let around = criteria.event_context.as_ref().map(|context| Around {
        before: context.before_limit,
        after: context.after_limit,
        profiles: context.include_profile,
    });
    let (hits, events): (Vec<Hit>, Vec<FoundEvent>) = page.results.into_iter().unzip();
    let shown = asked.view.show_found(&asked.viewer, &events, around).await?;
    let mut results = Vec::with_capacity(shown.len());
    for (hit, shown) in hits.into_iter().zip(shown) {
        let context = shown.context.map(raw).transpose()?;
        results.push(ShownResult { rank: hit.rank, result: raw(shown.event)?, context });
    }
    let mut state = None;
    if criteria.include_state {
        let mut rooms = BTreeMap::new();
        for (room, events) in
            asked.view.state_of_found(&asked.viewer, &events, criteria.filter.lazy_load_members).await?
        {
            rooms.insert(room, events.into_iter().map(raw).collect::<Result<_>>()?);
        }
        state = Some(rooms);
    }
    let group = asked.token.and_then(|token| token.group);
    let next_batch = page.next.map(|next| asked.batch(next, page.count, group));
    Ok(Results { count: page.count, highlights, results, state, groups, next_batch })
}

fn raw(json: Vec<u8>) -> Result<Box<RawValue>> {
    let text = String::from_utf8(json).map_err(Error::internal)?;
    RawValue::from_string(text).map_err(Error::internal)
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let order = match self.order {
            Order::Rank => 'r',
            Order::Recent => 't',
        };
        write!(f, "{order}.{}.{}", self.after, self.count)?;
        match self.group {
            Some(Group::Room(room)) => write!(f, ".room.{}", room.0),
            Some(Group::Sender(user)) => write!(f, ".user.{}", user.0),
            None => Ok(()),
        }
    }
}

impl Token {
    fn parse(text: &str) -> Option<Token> {
        let mut parts = text.split('.');
        let order = match parts.next()? {
            "r" => Order::Rank,
            "t" => Order::Recent,
            _ => return None,
        };
        let (after, count) = (Cursor::parse(parts.next()?)?, parts.next()?.parse().ok()?);
        let group = match (parts.next(), parts.next()) {
            (Some("room"), Some(room)) => Some(Group::Room(RoomNo(room.parse().ok()?))),
            (Some("user"), Some(user)) => Some(Group::Sender(UserNo(user.parse().ok()?))),
            (None, None) => None,
            _ => return None,
        };
        parts.next().is_none().then_some(Token { order, after, count, group })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back() {
        let after = Cursor::parse("3f2a-0-100000002").unwrap();
        for group in [None, Some(Group::Room(RoomNo(7))), Some(Group::Sender(UserNo(8)))] {
            let token = Token { order: Order::Recent, after, count: 3, group };
            assert_eq!(Token::parse(&token.to_string()), Some(token));
        }
        for bad in ["", "r", "r.1-2-3", "x.1-2-3.4", "r.1-2.4", "r.1-2-3-4.4", "r.1-2-3.4.room", "r.1-2-3.4.room.1.2"] {
            assert_eq!(Token::parse(bad), None, "{bad}");
        }
    }
}
