//! Exotel signs nothing, so the URL itself is the credential.
//!
//! A *function token*, `<kid>.<mac>` with mac = HMAC-SHA256(secret, `exotel/<function>`), is pasted into the platform's
//! console and serves every bot. A *session token*, mac over `exotel/<function>/<session id>`, is minted into the URLs
//! that `session_start` hands out and is good for one session. `kid` names one of several secrets, so that they can be
//! rotated. Both come as `?token=` (with `?session=`) or as the last segments of the path.

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{Refused, Secret, Verified, tag};
use crate::session::Webhook;

/// Mints and checks tokens.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// Each with the `kid` that tokens name it by; the first one mints.
    pub secrets: Vec<(String, Secret)>,
    /// Function tokens are taken by `session_start` only.
    pub session_tokens_only: bool,
}

/// Reads `kid:secret,kid:secret,…`; a text without `:` is one secret, `k1`. An error says what is wrong with the text
/// and nothing of what it says.
pub fn secrets(text: &str) -> Result<Vec<(String, Secret)>, &'static str> {
    if !text.contains([':', ',']) && !text.trim().is_empty() {
        return Ok(vec![(FIRST_KID.to_owned(), Secret::new(text.trim()))]);
    }
    let mut secrets: Vec<(String, Secret)> = Vec::new();
    for pair in text.split(',').map(str::trim) {
        let (kid, secret) = pair.split_once(':').ok_or("is not kid:secret,kid:secret,…")?;
        if kid.is_empty() || !kid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err("has a kid that is not letters, digits or _");
        }
        if secret.is_empty() {
            return Err("has an empty secret");
        }
        if secrets.iter().any(|(known, _)| known == kid) {
            return Err("has a kid twice");
        }
        secrets.push((kid.to_owned(), Secret::new(secret)));
    }
    Ok(secrets)
}

/// The name of a secret that has none.
pub const FIRST_KID: &str = "k1";

/// `base` with a session and its token in its query.
pub fn session_url(base: &str, session_id: &str, token: &str) -> String {
    let session = utf8_percent_encode(session_id, NON_ALPHANUMERIC);
    let separator = if base.contains('?') { '&' } else { '?' };
    format!("{base}{separator}session={session}&token={token}")
}

/// What a valid token allows.
#[derive(Debug, PartialEq, Eq)]
pub enum Grant {
    /// Any session.
    AnySession,
    /// This session only.
    Session(String),
}

impl Grant {
    /// The session, where it is only one.
    pub fn session(&self) -> Option<&str> {
        match self {
            Self::AnySession => None,
            Self::Session(id) => Some(id),
        }
    }
}

/// No honest token or session id comes near this; what is longer is refused unread.
const MAX_LOCATOR_BYTES: usize = 16 * 1024;

impl Tokens {
    /// The token that opens `webhook` for every session, or `None` without a secret.
    pub fn function_token(&self, webhook: Webhook) -> Option<String> {
        let (kid, secret) = self.secrets.first()?;
        Some(format!("{kid}.{}", secret.sign(&[b"exotel/", webhook.name().as_bytes()])))
    }

    /// The token that opens `webhook` for one session, or `None` without a secret.
    pub fn session_token(&self, webhook: Webhook, session_id: &str) -> Option<String> {
        let (kid, secret) = self.secrets.first()?;
        let signed: &[&[u8]] = &[b"exotel/", webhook.name().as_bytes(), b"/", session_id.as_bytes()];
        Some(format!("{kid}.{}", secret.sign(signed)))
    }

    /// `base` with a session token in its query.
    pub fn session_url(&self, base: &str, webhook: Webhook, session_id: &str) -> Option<String> {
        Some(session_url(base, session_id, &self.session_token(webhook, session_id)?))
    }

    /// Verifies `body` by the URL it came to: `path` below the function's own, and the raw query.
    pub fn verify<'a>(
        &self,
        webhook: Webhook,
        path: &str,
        query: Option<&str>,
        body: &'a [u8],
    ) -> Result<(Verified<'a>, Grant), Refused> {
        let (session, token) = locate(path, query.unwrap_or_default())?;
        let (kid, mac) = token.split_once('.').ok_or(Refused::Malformed)?;
        let tag = tag(mac)?;
        if session.is_none() && self.session_tokens_only && webhook != Webhook::SessionStart {
            return Err(Refused::SessionTokenRequired);
        }
        let mut signed: Vec<&[u8]> = vec![b"exotel/", webhook.name().as_bytes()];
        if let Some(session) = &session {
            signed.extend([b"/".as_slice(), session.as_bytes()]);
        }
        let (_, secret) = self.secrets.iter().find(|(known, _)| known == kid).ok_or(Refused::UnknownKey)?;
        if !secret.verifies(&signed, &tag) {
            return Err(Refused::Mismatch);
        }
        Ok((Verified(body), session.map_or(Grant::AnySession, Grant::Session)))
    }
}

/// The session id, if the URL names one, and the token.
fn locate(path: &str, query: &str) -> Result<(Option<String>, String), Refused> {
    if path.len() + query.len() > MAX_LOCATOR_BYTES {
        return Err(Refused::Malformed);
    }
    let (mut session, mut token) = (None, None);
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let place = match name.as_ref() {
            "session" => &mut session,
            "token" => &mut token,
            _ => continue,
        };
        if place.replace(value.into_owned()).is_some() {
            return Err(Refused::Repeated);
        }
    }
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    match (token, segments.as_slice()) {
        (Some(token), []) => Ok((session, token)),
        (None, []) => Err(Refused::Missing),
        (None, [token]) if session.is_none() => Ok((None, decode(token)?)),
        (None, [session_id, token]) if session.is_none() => Ok((Some(decode(session_id)?), decode(token)?)),
        (Some(_), _) => Err(Refused::Repeated),
        _ => Err(Refused::Malformed),
    }
}

fn decode(segment: &str) -> Result<String, Refused> {
    percent_decode_str(segment).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| Refused::Malformed)
}
