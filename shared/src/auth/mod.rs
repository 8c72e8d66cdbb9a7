//! Who sent a delivery. Nothing is parsed before its bytes are [`Verified`], and only this module makes those.

pub mod exotel;
pub mod vocobase;

use hmac::{Hmac, KeyInit, Mac};
use serde::de::DeserializeOwned;
use sha2::Sha256;

use crate::wire::Object;

/// The body of a delivery whose sender has proved itself.
pub struct Verified<'a>(&'a [u8]);

impl<'a> Verified<'a> {
    /// A body whose sender is known without a signature: kept here once it was verified, or answered by the platform
    /// itself when it was asked.
    pub const fn known(body: &'a [u8]) -> Self {
        Self(body)
    }

    /// Reads the JSON body, an object. Errors say where, never what: bodies hold what callers said.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Unreadable> {
        // Those in texts are counted too: a text may hold JSON that is read.
        if self.0.iter().filter(|byte| **byte == b'{').nth(MAX_OBJECTS).is_some() {
            return Err(Unreadable::TooMany);
        }
        let Object(value) = serde_json::from_slice(self.0)?;
        Ok(value)
    }

    /// The body as it came.
    pub fn bytes(&self) -> &'a [u8] {
        self.0
    }
}

/// A call of hours has some thousands. A body of nothing but `{}` would take a hundred times its length in memory.
const MAX_OBJECTS: usize = 32 * 1024;

/// A verified body that is no delivery.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It cannot be read as what it should be.
    #[error("{what}, at line {line} column {column}")]
    Json {
        /// What it is instead.
        what: &'static str,
        /// Where, counted from 1.
        line: usize,
        /// Where, counted from 1.
        column: usize,
    },
    /// It is not tried.
    #[error("more JSON objects than a delivery has")]
    TooMany,
}

impl From<serde_json::Error> for Unreadable {
    fn from(error: serde_json::Error) -> Self {
        let what = match error.classify() {
            serde_json::error::Category::Data => "JSON that does not fit the webhook",
            _ => "not JSON",
        };
        Self::Json { what, line: error.line(), column: error.column() }
    }
}

/// Why a delivery is refused. The words go to the log; the sender only learns that it was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No token, or no signature or timestamp header.
    #[error("credentials are missing")]
    Missing,
    /// A token or header twice.
    #[error("credentials are given more than once")]
    Repeated,
    /// Not the form that it should have.
    #[error("credentials are malformed")]
    Malformed,
    /// A `kid` that no secret has.
    #[error("the token names a key that is not configured")]
    UnknownKey,
    /// No secret gives this code.
    #[error("the signature or token does not match")]
    Mismatch,
    /// Too old or too far ahead.
    #[error("the timestamp is outside the tolerance")]
    Stale,
    /// Function tokens are turned off for this webhook.
    #[error("a session token is required here")]
    SessionTokenRequired,
    /// A session token that came with another session's body.
    #[error("the token is another session's")]
    OtherSession,
}

impl Refused {
    /// Whether keys that are not known yet could make it right.
    pub const fn may_be_news(self) -> bool {
        matches!(self, Self::UnknownKey | Self::Mismatch)
    }
}

/// A signing secret. Its `Debug` says nothing.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The whole literal text is the key.
    pub fn new(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }

    fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        // HMAC takes keys of any length, so there is no failing case to report.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).unwrap_or_else(|_| unreachable!("any key length"));
        for part in parts {
            mac.update(part);
        }
        mac
    }

    /// HMAC-SHA256 over the parts, as lower-case hex.
    fn sign(&self, parts: &[&[u8]]) -> String {
        hex::encode(self.mac(parts).finalize().into_bytes())
    }

    /// Compares in constant time.
    fn verifies(&self, parts: &[&[u8]], tag: &[u8; 32]) -> bool {
        self.mac(parts).verify_slice(tag).is_ok()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// 32 bytes from exactly 64 hex digits.
fn tag(hex_digits: &str) -> Result<[u8; 32], Refused> {
    let mut tag = [0; 32];
    hex::decode_to_slice(hex_digits, &mut tag).map_err(|_| Refused::Malformed)?;
    Ok(tag)
}

#[cfg(test)]
mod tests;
