//! The brief of a call for whoever takes over: built when a human is asked for, and kept on the call.

use super::attributes::text;
use super::calls::Merged;
use super::transcripts::in_order;
use super::{Store, StoreError};
use crate::brief::brief;
use crate::call::{Call, Delivery, Field, Segment, State};
use crate::instant::Instant;
use crate::json::Json;
use crate::session::{Provider, SessionKey};

/// So many Exotel turns are looked at for the last ones. Not only a few: where several bots spoke, each may have
/// counted its own turns, and the last to be spoken need not be the last by their keys.
const TURNS_READ: i32 = 500;
/// The last chunk of a Vocobase transcript may hold a single word.
const CHUNKS_READ: i32 = 2;

/// The brief of a call.
#[derive(Debug, PartialEq, Eq)]
pub enum Brief {
    /// As it was when a human was asked for.
    Kept(Json),
    /// None was kept: from what is stored now.
    Built(Json),
    /// Nothing is said of an erased call.
    Erased,
    /// No such call is stored.
    Unknown,
}

impl Store {
    /// Builds the brief for a delivery that asks for a human, and keeps it on the call; `None` if the call is erased.
    ///
    /// `received_at` is when the delivery was first received, as its event says: it tells the transfers of one call
    /// apart, which often speak of no other instant than the call's start. So a repetition gives the brief that was
    /// kept the first time, whatever came in between, and a later transfer a new one.
    pub async fn hand_over(&self, delivery: &Delivery, received_at: Instant) -> Result<Option<Json>, StoreError> {
        let key = &delivery.call.key;
        // Not the cached copy: what other instances stored a moment ago is what the brief is about.
        let seen = self.read_call(key, received_at).await?;
        let known = seen.as_ref().map_or_else(|| Call::new(key.clone()), |seen| seen.call.clone());
        let turns = match kept(&known, received_at) {
            None if known.state != State::Erased => self.last_segments(&known.join(&delivery.call)).await?,
            _ => Vec::new(),
        };
        let with_brief = |known: Call| {
            if kept(&known, received_at).is_some() {
                return known;
            }
            let mut next = known.join(&delivery.call);
            let document = brief(&next, Some(delivery), received_at, &turns);
            next.say(Field::Brief, Some(received_at), Some(document.into_string()));
            next
        };
        let (merged, call) = self.change_call(seen, key, received_at, with_brief).await?;
        Ok(if merged == Merged::Erased { None } else { kept(&call, received_at) })
    }

    /// The brief that a call keeps, or else one of what is stored now.
    pub async fn brief(&self, key: &SessionKey, now: Instant) -> Result<Brief, StoreError> {
        let Some(seen) = self.read_call(key, now).await? else { return Ok(Brief::Unknown) };
        let kept = seen.call.get(Field::Brief).and_then(|text| Json::parse(text).ok());
        Ok(match kept {
            _ if seen.call.state == State::Erased => Brief::Erased,
            Some(kept) => Brief::Kept(kept),
            None => Brief::Built(brief(&seen.call, None, now, &self.last_segments(&seen.call).await?)),
        })
    }

    /// What was said last in a call, in the order in which it was said: of one bounded query.
    async fn last_segments(&self, call: &Call) -> Result<Vec<Segment>, StoreError> {
        const WHAT: &str = "a read of the last turns";
        let Some(query) = self.speech(call) else { return Ok(Vec::new()) };
        let most = match call.key.provider() {
            Provider::Exotel => TURNS_READ,
            Provider::Vocobase => CHUNKS_READ,
        };
        let output = query.scan_index_forward(false).limit(most).send().await;
        let output = output.map_err(|error| StoreError::from_sdk(WHAT, &error))?;
        let mut items = output.items.unwrap_or_default();
        items.sort_by(|one, two| text(one, "turn").cmp(&text(two, "turn")));
        Ok(in_order(&items))
    }
}

/// The brief that was kept for a delivery received then, or for a later one.
fn kept(call: &Call, received_at: Instant) -> Option<Json> {
    let said = call.fields.get(&Field::Brief).filter(|said| said.at >= Some(received_at))?;
    Json::parse(&said.value).ok()
}
