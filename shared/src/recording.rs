//! Recording jobs: what deliveries want fetched, merged with how far the fetching has come.
//!
//! The *wanted* half is a join of the deliveries, by (expiry, digest of the URL). The progress is the archiver's own,
//! and [`Job::want`] says when a newer URL sets it back to `pending`.

use sha2::{Digest, Sha256};
use url::Url;

use crate::instant::Instant;

/// How long a URL is assumed to hold where it does not say.
pub(crate) const ASSUMED_SECONDS: i64 = 24 * 60 * 60;

/// A recording that a delivery offers. The URL is a credential: it is in no `Debug` and no log.
#[derive(Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The presigned URL.
    pub url: String,
    /// When it stops working; `None` if neither it nor its delivery says.
    pub expires_at: Option<Instant>,
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wanted {{ url: [redacted], expires_at: {:?} }}", self.expires_at)
    }
}

impl Wanted {
    /// Reads the expiry from the URL (`X-Amz-Date` + `X-Amz-Expires`, or `Expires`), else assumes 24 hours after
    /// `sent_at`: the delivery's own time and not that of its receipt, so that a repetition changes nothing.
    pub fn new(url: String, sent_at: Option<Instant>) -> Self {
        let expires_at = signed_expiry(&url).or_else(|| sent_at.map(|at| at.plus_seconds(ASSUMED_SECONDS)));
        Self { url, expires_at }
    }

    /// The wanted URL with the greater rank counts.
    pub fn rank(&self) -> String {
        let expires_at = self.expires_at.map_or_else(|| "-".to_owned(), |at| at.to_string());
        format!("{expires_at}#{}", hex::encode(&Sha256::digest(&self.url)[..8]))
    }

    /// A digest of scheme, host and path: what is fetched, without the signature that lets it be fetched.
    pub fn source(&self) -> String {
        let place = Url::parse(&self.url).map_or_else(
            |_| self.url.clone(),
            |mut url| {
                url.set_query(None);
                url.set_fragment(None);
                url.to_string()
            },
        );
        hex::encode(&Sha256::digest(place)[..8])
    }
}

fn signed_expiry(url: &str) -> Option<Instant> {
    let url = Url::parse(url).ok()?;
    let parameter = |name: &str| {
        let (_, value) = url.query_pairs().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(value.into_owned())
    };
    let by_date = || {
        let date = parameter("X-Amz-Date")?;
        let seconds: i64 = parameter("X-Amz-Expires")?.parse().ok()?;
        Some(Instant::parse(&date)?.plus_seconds(seconds))
    };
    let by_epoch = || Instant::from_unix_seconds(parameter("Expires")?.parse().ok()?);
    by_date().or_else(by_epoch)
}

/// Where a job stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// To be fetched.
    Pending,
    /// Being fetched.
    Copying,
    /// In the bucket.
    Archived,
    /// The URL stopped working first.
    Expired,
    /// The URL points where it must not.
    Rejected,
    /// Given up after many attempts.
    Failed,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Copying, Self::Archived, Self::Expired, Self::Rejected, Self::Failed];

    /// `pending`, `copying`, `archived`, `expired`, `rejected` or `failed`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Copying => "copying",
            Self::Archived => "archived",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// What decides how a wanted recording changes a job: its state and the wanted half it has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Job {
    /// Where it stands.
    pub state: State,
    /// [`Wanted::rank`] of the URL it has, or had.
    pub wanted: String,
    /// [`Wanted::source`] of that URL.
    pub source: String,
    /// When that URL stops working.
    pub expires_at: Option<Instant>,
}

impl Job {
    /// The job after `wanted` was offered, or `None` if that changes nothing.
    pub fn want(job: Option<&Self>, wanted: &Wanted) -> Option<Self> {
        let offered = Self {
            state: State::Pending,
            wanted: wanted.rank(),
            source: wanted.source(),
            expires_at: wanted.expires_at,
        };
        let Some(job) = job else { return Some(offered) };
        if offered.wanted <= job.wanted {
            return None;
        }
        let state = match job.state {
            State::Archived if offered.source == job.source => return None,
            State::Archived | State::Pending => State::Pending,
            State::Copying => State::Copying,
            ended @ (State::Expired | State::Rejected | State::Failed) => {
                if offered.expires_at > job.expires_at {
                    State::Pending
                } else {
                    ended
                }
            }
        };
        Some(Self { state, ..offered })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: &str = "2026-03-15T14:32:08Z";

    fn wanted(url: &str) -> Wanted {
        Wanted::new(url.to_owned(), Instant::parse(SENT))
    }

    fn expiry(url: &str) -> String {
        wanted(url).expires_at.unwrap().to_string()
    }

    #[test]
    fn the_expiry_is_read_from_the_url_or_assumed_a_day() {
        let signed =
            "https://b.s3.amazonaws.com/r.wav?X-Amz-Date=20260315T143000Z&X-Amz-Expires=604800&X-Amz-Signature=s";
        assert_eq!(expiry(signed), "2026-03-22T14:30:00.000000Z");
        assert_eq!(expiry("https://b.example/r.wav?Expires=1773585128"), "2026-03-15T14:32:08.000000Z");
        assert_eq!(expiry("https://b.example/r.wav?X-Amz-Signature=..."), "2026-03-16T14:32:08.000000Z");
        assert_eq!(expiry("not a url"), "2026-03-16T14:32:08.000000Z");
    }

    #[test]
    fn a_later_url_sets_an_ended_job_back_but_never_an_archived_one() {
        let old = wanted("https://b.example/r.wav?Expires=1773585128");
        let new = wanted("https://b.example/r.wav?Expires=1773585129");
        let other = wanted("https://b.example/other.wav?Expires=1773585129");
        let job = |state| Job { state, ..Job::want(None, &old).unwrap() };
        let after = |state, wanted| Job::want(Some(&job(state)), wanted).map(|job| job.state);
        assert_eq!(after(State::Pending, &new), Some(State::Pending));
        assert_eq!(after(State::Copying, &new), Some(State::Copying));
        assert_eq!(after(State::Archived, &new), None);
        assert_eq!(after(State::Archived, &other), Some(State::Pending));
        for ended in [State::Expired, State::Rejected, State::Failed] {
            assert_eq!(after(ended, &new), Some(State::Pending), "{ended:?}");
        }
        let newer = Job::want(None, &new).unwrap();
        assert_eq!(Job::want(Some(&newer), &old), None);
        assert_eq!(Job::want(Some(&newer), &new), None);
    }

    #[test]
    fn a_url_that_lasts_no_longer_begins_nothing_anew() {
        let [one, two] = ["one", "two"].map(|name| wanted(&format!("https://b.example/{name}.wav?Expires=1773585128")));
        let (lesser, greater) = if one.rank() < two.rank() { (one, two) } else { (two, one) };
        let ended = Job { state: State::Expired, ..Job::want(None, &lesser).unwrap() };
        assert_eq!(Job::want(Some(&ended), &greater).map(|job| job.state), Some(State::Expired));
    }

    #[test]
    fn a_recording_is_its_place_and_not_its_signature() {
        let source = |url: &str| wanted(url).source();
        assert_eq!(source("https://b.example/r.wav?X-Amz-Signature=a#b"), source("https://b.example/r.wav"));
        assert_ne!(source("https://b.example/r.wav"), source("https://b.example/q.wav"));
        assert_ne!(source("no url"), source("none"));
        let ranks = ["https://b.example/r.wav", "https://b.example/q.wav"].map(|url| wanted(url).rank());
        assert!(ranks[0] != ranks[1] && ranks.iter().all(|rank| rank.starts_with("2026-03-16T14:32:08.000000Z#")));
    }

    #[test]
    fn a_url_is_in_no_debug_output() {
        let printed = format!("{:?}", wanted("https://b.example/hunter2.wav"));
        assert_eq!(printed, "Wanted { url: [redacted], expires_at: Some(2026-03-16T14:32:08.000000Z) }");
    }

    #[test]
    fn states_have_names_that_read_back() {
        let names = State::ALL.map(State::name);
        assert_eq!(names, ["pending", "copying", "archived", "expired", "rejected", "failed"]);
        assert_eq!(names.map(State::from_name), State::ALL.map(Some));
        assert_eq!(State::from_name(""), None);
    }
}
