//! How the platforms bring a delivery: again and again until it is answered 2xx, and not for ever. Sources: Vocobase,
//! "Webhooks", retries; Exotel, "Status callbacks", time-out and retries.

use std::time::Duration;

use shared::Provider;
use tokio::time::{sleep, timeout};

/// How often a platform tries, and how long it waits.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For one answer.
    pub answer: Duration,
    /// Before each attempt.
    pub waits: &'static [Duration],
}

impl Patience {
    /// Four attempts, at 0, 1, 2 and 4 seconds, each for 10 seconds. What is given up is still listed by the API.
    pub const VOCOBASE: Self = Self {
        answer: Duration::from_secs(10),
        waits: &[Duration::ZERO, Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)],
    };
    /// Three attempts, each for 15 seconds. What is between them is not documented: a second. What is given up is lost.
    pub const EXOTEL: Self = Self {
        answer: Duration::from_secs(15),
        waits: &[Duration::ZERO, Duration::from_secs(1), Duration::from_secs(1)],
    };

    /// The one of a platform.
    pub const fn of(provider: Provider) -> Self {
        match provider {
            Provider::Vocobase => Self::VOCOBASE,
            Provider::Exotel => Self::EXOTEL,
        }
    }

    /// Brings a delivery; what each attempt came to, `None` where it was not answered in time. `attempt` makes the n-th
    /// one, counted from 0. The last one succeeded, or the delivery is given up.
    pub async fn bring(self, attempt: impl AsyncFn(usize) -> Option<u16>) -> Vec<Option<u16>> {
        let mut answers = Vec::new();
        for (nth, wait) in self.waits.iter().enumerate() {
            sleep(*wait).await;
            let answered = timeout(self.answer, attempt(nth)).await.ok().flatten();
            answers.push(answered);
            if answered.is_some_and(is_success) {
                break;
            }
        }
        answers
    }
}

/// Whether a platform is content with this status.
pub const fn is_success(status: u16) -> bool {
    matches!(status, 200..300)
}
