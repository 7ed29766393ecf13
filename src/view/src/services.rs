//! Events as application services see them (Application Service API, "Pushing events"): all of the rooms that concern them,
//! whatever the visibility of the history.

use std::collections::HashMap;

use stoa_store::{EventNo, RoomNo, Snapshot};

use crate::{
    Error, View,
    eyes::Eyes,
    show::{Audience, Visible, render},
};

impl View {
    /// The events as they are now, each with its `room_id`; `None` for one that is not there any more.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn for_service(
        &self,
        snapshot: &Snapshot,
        events: &[(RoomNo, EventNo)],
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let store = &self.inner.store;
        let mut rooms: HashMap<RoomNo, Vec<usize>> = HashMap::new();
        for (place, (room, _)) in events.iter().enumerate() {
            rooms.entry(*room).or_default().push(place);
        }
        let mut shown = vec![None; events.len()];
        for (room, places) in rooms {
            let id = store.names().room_id(snapshot, room).await?;
            let eyes = Eyes::with(store, snapshot, room, "", None).await?;
            let audience = Audience { device: "", user_id: "", now_ms: self.inner.env.now_ms(), room_id: Some(&id) };
            let numbers: Vec<EventNo> = places.iter().map(|place| events[*place].1).collect();
            let found = store.events().get_many(snapshot, room, &numbers).await?;
            let (places, found): (Vec<usize>, Vec<Visible>) = places
                .into_iter()
                .zip(found)
                .filter_map(|(place, event)| Some((place, Visible { event: event?, membership: None })))
                .unzip();
            for (place, json) in places.into_iter().zip(render(&eyes, audience, &found).await?) {
                shown[place] = Some(json);
            }
        }
        Ok(shown)
    }
}
