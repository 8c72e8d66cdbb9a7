//! What the bundle says in its log, heard by one test alone.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::subscriber::NoSubscriber;
use tracing::{Dispatch, Level};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;

/// A subscriber for `WithSubscriber`, and what it heard.
pub struct Log {
    /// The subscriber.
    pub dispatch: Dispatch,
    heard: Heard,
    /// With one subscriber alone, `tracing` asks the thread that meets a line first whether anybody wants it, and that
    /// may be another test's.
    _another: Dispatch,
}

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Hears all that these crates of the bundle say; those of others are kept out by its own filter.
    pub fn of(crates: &[&str]) -> Self {
        let heard = Heard::default();
        let writer = heard.clone();
        let ours = crates.iter().fold(Targets::new(), |ours, name| ours.with_target(*name, Level::TRACE));
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        Self {
            dispatch: Dispatch::new(tracing_subscriber::registry().with(ours).with(lines)),
            heard,
            _another: Dispatch::new(NoSubscriber::new()),
        }
    }

    /// What was said so far.
    pub fn heard(&self) -> String {
        let heard = self.heard.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&heard).into_owned()
    }
}
