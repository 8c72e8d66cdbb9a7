//! A call's items in `sessions`, `transcripts` and `recordings`, derived from its events again.
//!
//! What the events say is joined onto what is stored, by the merges that the deliveries themselves go through: nothing
//! goes back, so it can be repeated, and deliveries may come meanwhile. What the archiver said is not in the events, but
//! it is in two places, the job and the call: where one of them is lost, the other tells it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::attributes::{Item, n, s, text};
use super::calls::call_to_item;
use super::recordings::job;
use super::transcripts::chunk_items;
use super::{Cached, Store, StoreError};
use crate::call::{Call, Delivery, Field, State};
use crate::instant::Instant;
use crate::recording::{self, ASSUMED_SECONDS, Job, Wanted};
use crate::session::SessionKey;

/// One item that is not as the events have it. Names only: values are private.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `sessions`, `transcripts` or `recordings`.
    pub table: &'static str,
    /// Which of the call's items, in `transcripts`: the key `turn`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
    /// The attributes that would change; `None` if the item is missing.
    pub changes: Option<Vec<String>>,
}

/// What a call lacks, or has otherwise than its events.
pub struct Rebuild {
    /// Item by item.
    pub differences: Vec<Difference>,
    seen: Option<Cached>,
    said: Call,
    /// When the delivery was received that says when the call began.
    received_at: Instant,
    transcripts: Vec<Item>,
    archived: Option<Item>,
    offers: Vec<(Wanted, Instant)>,
}

impl Store {
    /// Compares what is stored of a call with what its deliveries say, which come in the order in which they were
    /// received. `None` if nothing differs, and for an erased call.
    pub async fn compare(
        &self,
        key: &SessionKey,
        deliveries: &[(Delivery, Instant)],
        now: Instant,
    ) -> Result<Option<Rebuild>, StoreError> {
        let Some((_, first)) = deliveries.first() else { return Ok(None) };
        let seen = self.call_as_seen(key, now).await?;
        let known = seen.as_ref().map_or_else(|| Call::new(key.clone()), |seen| seen.call.clone());
        if known.state == State::Erased {
            return Ok(None);
        }
        let job_item = self.job_item(key).await?;
        let told = job_item.as_ref().map_or_else(|| Call::new(key.clone()), |job| self.told_by(key, job));
        let said = deliveries.iter().fold(told, |said, (delivery, _)| said.join(&delivery.call));
        let began = deliveries.iter().find(|(delivery, _)| delivery.call.started_at == said.started_at);
        let received_at = began.map_or(*first, |(_, received_at)| *received_at);
        let next = known.clone().join(&said);
        let mut differences = Vec::new();
        let mut differ = |table, item: Option<&str>, changes: Option<Vec<String>>| {
            differences.push(Difference { table, item: item.map(str::to_owned), changes });
        };
        if seen.is_none() {
            differ("sessions", None, None);
        } else if next != known {
            differ("sessions", None, Some(changes(&call_to_item(&known), &call_to_item(&next))));
        }

        let stored = self.transcript_items(key).await?;
        let mut transcripts = self.best_items(deliveries);
        transcripts.retain(|turn, item| match stored.get(turn) {
            None => {
                differ("transcripts", Some(turn), None);
                true
            }
            Some(stored) => {
                let is_better = text(item, "rank") > text(stored, "rank");
                if is_better {
                    differ("transcripts", Some(turn), Some(changes(stored, item)));
                }
                is_better
            }
        });

        let offer = |(delivery, at): &(Delivery, Instant)| Some((delivery.recording.clone()?, *at));
        let mut offers: Vec<(Wanted, Instant)> = deliveries.iter().filter_map(offer).collect();
        let archived = if job_item.is_none() { self.archived_job(&known, &offers) } else { None };
        let job = job_item.as_ref().or(archived.as_ref()).and_then(job);
        let wanted = offers.iter().fold(job.clone(), |job, (wanted, _)| Job::want(job.as_ref(), wanted).or(job));
        match (&job, &wanted) {
            (_, Some(_)) if job_item.is_none() => differ("recordings", None, None),
            (job, Some(wanted)) if job.as_ref() != Some(wanted) => {
                let mut changes = vec!["source_url".to_owned(), "wanted".to_owned()];
                changes.extend((job.as_ref().map(|job| job.state) != Some(wanted.state)).then(|| "state".to_owned()));
                differ("recordings", None, Some(changes));
            }
            _ => {}
        }
        if wanted == job {
            offers.clear();
        }
        let transcripts = transcripts.into_values().collect();
        let rebuild = Rebuild { differences, seen, said, received_at, transcripts, archived, offers };
        Ok(Some(rebuild).filter(|rebuild| !rebuild.differences.is_empty()))
    }

    /// Stores what was found missing. If that fails half-way, its repetition completes it.
    pub async fn rebuild(&self, rebuild: Rebuild) -> Result<(), StoreError> {
        let Rebuild { seen, said, received_at, transcripts, archived, offers, .. } = rebuild;
        let transcripts = self.put_better("a transcript item", transcripts).await;
        let recording = async {
            if let Some(item) = archived {
                self.put_job(item).await?;
            }
            for (wanted, received_at) in offers {
                self.want_recording(&said.key, &wanted, false, received_at).await?;
            }
            Ok(())
        };
        let recording = recording.await;
        // A call names a revision only once it is whole.
        let call = match &transcripts {
            Err(_) if said.revision.is_some() => Ok(()),
            _ => self.merge_call(seen, &said, received_at).await.map(drop),
        };
        transcripts.map(drop).and(recording).and(call)
    }

    /// Of each turn the best, and every chunk, as the deliveries have them.
    fn best_items(&self, deliveries: &[(Delivery, Instant)]) -> BTreeMap<String, Item> {
        let mut best: BTreeMap<String, Item> = BTreeMap::new();
        for (delivery, received_at) in deliveries {
            let expiry = self.expiry(delivery.call.started_at, *received_at);
            let chunks = delivery.transcript.iter().flat_map(|it| chunk_items(&delivery.call.key, it, expiry));
            for item in self.turn_items(delivery, *received_at).into_iter().chain(chunks) {
                let turn = text(&item, "turn").unwrap_or_default().to_owned();
                let known = best.entry(turn).or_insert_with(|| item.clone());
                if text(&item, "rank") > text(known, "rank") {
                    *known = item;
                }
            }
        }
        best
    }

    /// What the archiver told the call when it ended this job.
    fn told_by(&self, key: &SessionKey, job: &Item) -> Call {
        let mut call = Call::new(key.clone());
        let at = |name| text(job, name).and_then(Instant::parse);
        let state = text(job, "state").and_then(recording::State::from_name);
        // A job says when it was archived. Of the other ends any instant will do that is before what may be said later.
        let at = match state {
            Some(recording::State::Archived) => at("archived_at"),
            Some(recording::State::Expired | recording::State::Rejected | recording::State::Failed) => {
                at("received_at")
            }
            _ => return call,
        };
        call.say(Field::RecordingState, at, state.map(|state| state.name().to_owned()));
        if state == Some(recording::State::Archived) {
            call.say(Field::Recording, at, text(job, "s3_key").map(|key| self.s3_uri(key)));
        }
        call
    }

    /// The job of a recording that the call says is archived. Begun anew it would be fetched anew, and end as expired.
    fn archived_job(&self, call: &Call, offers: &[(Wanted, Instant)]) -> Option<Item> {
        let state = recording::State::Archived.name();
        let said = call.fields.get(&Field::Recording).filter(|_| call.get(Field::RecordingState) == Some(state))?;
        let (archived_at, (_, s3_key)) = (said.at?, said.value.strip_prefix("s3://")?.split_once('/')?);
        let mut offered = offers.iter().filter(|(_, at)| *at <= archived_at);
        let first = offered.clone().next()?;
        let (wanted, received_at) = offered.by_ref().max_by_key(|(wanted, _)| wanted.rank())?;
        let source_expires_at = wanted.expires_at.unwrap_or_else(|| received_at.plus_seconds(ASSUMED_SECONDS));
        let mut item = Item::from([
            ("session".into(), s(call.key.as_str())),
            ("state".into(), s(state)),
            ("wanted".into(), s(wanted.rank())),
            ("source".into(), s(wanted.source())),
            ("source_expires_at".into(), s(source_expires_at.to_string())),
            ("received_at".into(), s(first.1.to_string())),
            ("archived_at".into(), s(archived_at.to_string())),
            ("s3_key".into(), s(s3_key)),
        ]);
        if let Some(expiry) = self.expiry(Some(source_expires_at), *received_at) {
            item.insert("expires_at".into(), n(expiry));
        }
        Some(item)
    }
}

/// The names of the attributes that are not the same.
fn changes(before: &Item, after: &Item) -> Vec<String> {
    let mut names: Vec<String> = before.keys().chain(after.keys()).cloned().collect();
    names.retain(|name| before.get(name) != after.get(name));
    names.sort();
    names.dedup();
    names
}
