//! The end of a call: what is left of it when its person asked to be forgotten.

use super::attributes::{Item, s};
use super::{Store, StoreError};
use crate::call::{Call, Field, State};
use crate::session::SessionKey;

impl Store {
    /// Leaves nothing of the call's item but its key and that it is erased, whatever was there and whether or not
    /// anything was. It never expires: no late delivery, repetition or reconciler brings the call back.
    ///
    /// `contact` is for an eraser that has more to delete: if it is interrupted, the call is found by it again.
    ///
    /// `merged` stays beside it, or a writer that has seen no call would find its condition fulfilled.
    pub async fn mark_erased(&self, key: &SessionKey, contact: Option<&str>) -> Result<(), StoreError> {
        let erased = Call { state: State::Erased, ..Call::new(key.clone()) };
        let mut item = Item::from([
            ("session".into(), s(key.as_str())),
            ("state".into(), s(State::Erased.name())),
            ("merged".into(), s(erased.digest())),
        ]);
        item.extend(contact.map(|contact| (Field::Contact.name().into(), s(contact))));
        let put = self.clients.dynamodb.put_item().table_name(&self.tables.sessions).set_item(Some(item)).send().await;
        put.map(drop).map_err(|error| StoreError::from_sdk("the mark of an erased call", &error))
    }
}
