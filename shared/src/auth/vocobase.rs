//! Vocobase signs: `X-Webhook-Signature: sha256=<hex>` is HMAC-SHA256 over `"{X-Webhook-Timestamp}.{raw body}"`.
//! Source: Vocobase's page "Webhook Setup". Every endpoint has its own secret and rotating one invalidates the old at
//! once, so several are accepted.

use super::{Refused, Secret, Verified, tag};
use crate::instant::Instant;

/// The header with the signature.
pub const SIGNATURE: &str = "x-webhook-signature";
/// The header with the time of sending, ISO 8601.
pub const TIMESTAMP: &str = "x-webhook-timestamp";

/// Checks Vocobase signatures.
#[derive(Debug, Clone)]
pub struct Signatures {
    /// Any of these may have signed.
    pub secrets: Vec<Secret>,
    /// How far the timestamp may be from now, either way, in seconds.
    pub tolerance_seconds: i64,
}

impl Signatures {
    /// Verifies `body` against the values of the two headers, or why one of them cannot be had.
    pub fn verify<'a>(
        &self,
        signature: Result<&str, Refused>,
        timestamp: Result<&str, Refused>,
        body: &'a [u8],
        now: Instant,
    ) -> Result<Verified<'a>, Refused> {
        let (signature, timestamp) = (signature?, timestamp?);
        let sent_at = Instant::parse(timestamp).ok_or(Refused::Malformed)?;
        let tag = tag(signature.strip_prefix("sha256=").ok_or(Refused::Malformed)?)?;
        if now.millis_since(sent_at).abs() > self.tolerance_seconds.saturating_mul(1000) {
            return Err(Refused::Stale);
        }
        let signed: &[&[u8]] = &[timestamp.as_bytes(), b".", body];
        let known = self.secrets.iter().any(|secret| secret.verifies(signed, &tag));
        if known { Ok(Verified(body)) } else { Err(Refused::Mismatch) }
    }
}

/// Reads secrets separated by commas. An error says what is wrong with the text and nothing of what it says.
pub fn secrets(text: &str) -> Result<Vec<Secret>, &'static str> {
    let secret = |text: &str| match text.trim() {
        "" => Err("has an empty secret"),
        text => Ok(Secret::new(text)),
    };
    text.split(',').map(secret).collect()
}

/// Signs as the platform does; returns the value of the signature header.
pub fn sign(secret: &Secret, timestamp: &str, body: &[u8]) -> String {
    format!("sha256={}", secret.sign(&[timestamp.as_bytes(), b".", body]))
}
