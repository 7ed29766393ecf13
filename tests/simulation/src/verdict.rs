//! What must be true when everything works again and everybody has heard everything.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use stoa_store::rows::events::Standing;

use crate::{
    acts::Said,
    look::{Held, Room},
    rooms::{Kind, SimRoom, anchors},
    user::{User, part},
    world::World,
};

/// A room as each server holds it, by the server's name.
type Views = BTreeMap<String, Room>;

impl World {
    /// Holds what the servers have against what was promised.
    pub(crate) async fn judge(&self) -> Result<(), String> {
        for user in &self.stage.users {
            user.catch_up().await?;
        }
        self.judge_post()?;
        self.judge_keys().await?;
        for room in &self.stage.rooms {
            let mut views = Views::new();
            for node in &self.nodes {
                if let Some(view) = node.room(&room.id).await? {
                    views.insert(node.name.clone(), view);
                }
            }
            let in_room = |why: String| format!("room {} (version {}): {why}", room.id, room.version);
            self.judge_room(room, &views).map_err(in_room)?;
            if room.kind == Kind::Steady {
                for anchor in anchors(&self.stage.users) {
                    self.judge_paging(room, anchor, &views).await.map_err(in_room)?;
                }
            }
        }
        Ok(())
    }

    /// Every acknowledged message came to its device once, and those of one person in their order.
    fn judge_post(&self) -> Result<(), String> {
        for from in &self.stage.users {
            let sent = from.post.lock().sent.clone();
            for to in &self.stage.users {
                let came = to.post.lock().received.get(&from.id).cloned().unwrap_or_default();
                let told = format!("messages to devices from {} to {}", from.id, to.id);
                if !came.is_sorted_by(|a, b| a < b) {
                    return Err(format!("{told} came twice or in the wrong order: {came:?}"));
                }
                let sent = sent.get(&to.id).cloned().unwrap_or_default();
                let lost: Vec<_> = sent.iter().filter(|number| !came.contains(number)).collect();
                if !lost.is_empty() {
                    return Err(format!("{told} are lost: {lost:?} of {sent:?}"));
                }
            }
        }
        Ok(())
    }

    /// Those who shared a room all the time heard of each change of the others' keys, and find the last ones.
    async fn judge_keys(&self) -> Result<(), String> {
        let steady = anchors(&self.stage.users);
        for me in &steady {
            for other in steady.iter().filter(|other| other.id != me.id) {
                let may_be = other.keys.lock().may_be.clone();
                if me.keys.lock().unheard.contains(&other.id) {
                    return Err(format!("{} is not told that the keys of {} changed", me.id, other.id));
                }
                let found = me.finds_keys(other).await?;
                if !may_be.contains(&found) {
                    return Err(format!("{} finds the keys {found} of {}, not {may_be:?}", me.id, other.id));
                }
            }
        }
        Ok(())
    }

    /// Who was there all the time and pages back sees everything once that was accepted.
    async fn judge_paging(&self, room: &SimRoom, user: &User, views: &Views) -> Result<(), String> {
        let Some(view) = views.get(&user.node.name) else { return Err(format!("{} has no room", user.node.name)) };
        let (mut from, mut seen) = (String::new(), BTreeSet::new());
        for _ in 0..1000 {
            let answer = user.get(&format!("/rooms/{}/messages?dir=b&limit=20{from}", part(room.id.as_str()))).await;
            let Some((200, said)) = answer else { return Err(format!("{} cannot page back: {answer:?}", user.id)) };
            for event in said["chunk"].as_array().into_iter().flatten() {
                let id = event["event_id"].as_str().unwrap_or_default().to_owned();
                if !seen.insert(id.clone()) {
                    return Err(format!("{} sees {id} twice", user.id));
                }
            }
            let Some(end) = said["end"].as_str() else { break };
            from = format!("&from={}", part(end));
        }
        let accepted =
            view.events.iter().filter(|(_, held)| held.standing == Standing::Accepted && held.before.is_some());
        let missing: Vec<_> =
            accepted.filter(|(id, _)| !seen.contains(*id)).map(|(id, held)| (id, &held.kind)).collect();
        match missing.is_empty() {
            true => Ok(()),
            false => Err(format!("{} sees {} events, but not {missing:?}", user.id, seen.len())),
        }
    }

    fn judge_room(&self, room: &SimRoom, views: &Views) -> Result<(), String> {
        same_graph(views)?;
        same_state(views, room.kind)?;
        if room.kind == Kind::Steady {
            let log = self.stage.log.lock();
            let here: Vec<&Said> = log.said.iter().filter(|said| said.room == room.id).collect();
            self.everywhere(&here, views)?;
            once(&here, &log.unsure, views)?;
            redacted(&here, views)?;
            same_contents(views)?;
        }
        Ok(())
    }

    /// What was acknowledged is at every server.
    fn everywhere(&self, said: &[&Said], views: &Views) -> Result<(), String> {
        for node in &self.nodes {
            let Some(view) = views.get(&node.name).filter(|view| view.is_in) else {
                return Err(format!("{} is not in the room", node.name));
            };
            for said in said {
                let standing = view.events.get(&said.event).map(|held| held.standing);
                if !matches!(standing, Some(Standing::Accepted | Standing::SoftFailed)) {
                    let what = said.text.as_deref().unwrap_or("not a message");
                    return Err(format!("{} of {} ({what}) is {standing:?} at {}", said.event, said.by, node.name));
                }
            }
        }
        Ok(())
    }
}

/// What an event follows decides the state before it and whether it is rejected, whatever came in which order.
fn same_graph(views: &Views) -> Result<(), String> {
    let mut known: BTreeMap<&String, (&String, &Held)> = BTreeMap::new();
    for (name, view) in views {
        for (id, held) in &view.events {
            if held.before.is_none() {
                continue;
            }
            let (first, other) = known.entry(id).or_insert((name, held));
            if other.before != held.before {
                let (there, here) = (&other.before, &held.before);
                return Err(format!("the state before {id} is {there:?} at {first}, {here:?} at {name}"));
            }
            if (other.standing == Standing::Rejected) != (held.standing == Standing::Rejected) {
                let (there, here) = (other.standing, held.standing);
                return Err(format!("{id} ({}) is {there:?} at {first}, {here:?} at {name}", held.kind));
            }
        }
    }
    Ok(())
}

/// The servers that are in a room, and that each other holds to be in it, agree on its state and its members.
fn same_state(views: &Views, kind: Kind) -> Result<(), String> {
    let mut inside = views.iter().filter(|(_, view)| view.is_in);
    let Some((first, agreed)) = inside.next() else { return Ok(()) };
    for (name, view) in inside {
        // Who is out of the room as others see it cannot make them hear of its branches: what it says is soft-failed there. One
        // of its users must be in the room at both.
        let (here, there) = (agreed.joined(), view.joined());
        let both: Vec<&str> = here.intersection(&there).copied().collect();
        let speaks = |server: &str| both.iter().any(|user| user.ends_with(&format!(":{server}")));
        let mutual = speaks(name) && speaks(first);
        if kind == Kind::Quarrel && !mutual {
            continue;
        }
        if view.current != agreed.current {
            let (a, b): (BTreeSet<_>, BTreeSet<_>) = (agreed.current.iter().collect(), view.current.iter().collect());
            let (a_only, b_only): (Vec<_>, Vec<_>) = (a.difference(&b).collect(), b.difference(&a).collect());
            return Err(format!("the state at {first} has {a_only:?}, at {name} {b_only:?}"));
        }
        if view.servers != agreed.servers {
            return Err(format!("at {first} {:?} are in the room, at {name} {:?}", agreed.servers, view.servers));
        }
    }
    Ok(())
}

/// What was redacted by somebody who may is redacted everywhere.
fn same_contents(views: &Views) -> Result<(), String> {
    let mut known: BTreeMap<&String, (&String, &Held)> = BTreeMap::new();
    for (name, view) in views {
        for (id, held) in &view.events {
            let (first, other) = known.entry(id).or_insert((name, held));
            if other.content != held.content {
                let (there, here) = (&other.content, &held.content);
                return Err(format!("the content of {id} is {there} at {first}, {here} at {name}"));
            }
        }
    }
    Ok(())
}

/// What somebody said again because there was no answer was said once.
fn once(said: &[&Said], unsure: &[String], views: &Views) -> Result<(), String> {
    for (name, view) in views {
        let mut texts: BTreeMap<String, usize> = BTreeMap::new();
        for held in view.events.values().filter(|held| held.kind == "m.room.message") {
            let content: Value = serde_json::from_str(&held.content).unwrap_or_default();
            if let Some(text) = content["body"].as_str().filter(|text| *text != "amen") {
                *texts.entry(text.to_owned()).or_default() += 1;
            }
        }
        let acknowledged: BTreeSet<&String> = said.iter().filter_map(|said| said.text.as_ref()).collect();
        for (text, times) in texts {
            if times > 1 {
                return Err(format!("{text:?} was said {times} times at {name}"));
            }
            if !acknowledged.contains(&text) && !unsure.contains(&text) {
                return Err(format!("{text:?} was refused, but is at {name}"));
            }
        }
    }
    Ok(())
}

/// What was redacted has nothing of its text any more.
fn redacted(said: &[&Said], views: &Views) -> Result<(), String> {
    for redaction in said.iter().filter(|said| said.redacts.is_some()) {
        let Some(target) = &redaction.redacts else { continue };
        for (name, view) in views {
            let left = view.events.get(target).filter(|held| held.content.contains("message "));
            if let Some(held) = left {
                let standing = view.events.get(&redaction.event).map(|held| held.standing);
                return Err(format!(
                    "{target} was redacted by {} ({standing:?}), but {name} still has {}",
                    redaction.event, held.content
                ));
            }
        }
    }
    Ok(())
}
