//! Recordings for simulated calls: WAV files behind expiring URLs on loopback, made up byte by byte, and a connection
//! that now and then breaks.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use sha2::{Digest, Sha256};
use shared::Instant;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::Failure;

const CHUNK: u64 = 64 * 1024;

/// A server of recordings, until it is dropped.
pub struct Recordings {
    base: String,
    length: u64,
    server: JoinHandle<()>,
}

/// What it serves and how.
struct Source {
    length: u64,
    breaks: f64,
    requests: AtomicU64,
}

type Body = BoxBody<Bytes, std::io::Error>;

impl Recordings {
    /// Serves recordings of `length` bytes; the share `breaks` of its answers is cut off.
    pub async fn serve(length: u64, breaks: f64) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure(format!("recordings cannot be served: {error}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let base = format!("http://{}", listener.local_addr().map_err(failed)?);
        let source = Arc::new(Source { length, breaks, requests: AtomicU64::new(0) });
        let server = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let source = Arc::clone(&source);
                let answer = service_fn(move |request| {
                    let answer = source.answer(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                tokio::spawn(async move {
                    drop(Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), answer).await);
                });
            }
        });
        Ok(Self { base, length, server })
    }

    /// The URL of a call's recording, good until then.
    pub fn url(&self, session_id: &str, expires_at: Instant) -> String {
        format!("{}/{session_id}.wav?Expires={}&Signature=simulated", self.base, expires_at.unix_seconds())
    }

    /// Its length in bytes and its SHA-256 as hex.
    pub fn expected(&self, session_id: &str) -> (u64, String) {
        let mut hash = Sha256::new();
        let mut from = 0;
        while from < self.length {
            let bytes = content(session_id, self.length, from, CHUNK);
            from += bytes.len() as u64;
            hash.update(bytes);
        }
        (self.length, hex::encode(hash.finalize()))
    }
}

impl Drop for Recordings {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Source {
    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let query = request.uri().query().unwrap_or_default();
        let expires = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "Expires");
        let expires = expires.and_then(|(_, value)| Instant::from_unix_seconds(value.parse().ok()?));
        if expires.is_none_or(|expires| expires < Instant::now()) {
            return empty(StatusCode::FORBIDDEN);
        }
        let path = request.uri().path();
        let session_id = path.trim_start_matches('/').trim_end_matches(".wav").to_owned();
        let etag = format!("\"{}\"", &hex::encode(Sha256::digest(&session_id))[..16]);
        let header = |name: header::HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
        if header(header::IF_MATCH).is_some_and(|wanted| wanted != etag) {
            return empty(StatusCode::PRECONDITION_FAILED);
        }
        let range =
            header(header::RANGE).and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let from: u64 = range.unwrap_or(0);
        if from > self.length || (range.is_some() && from == self.length) {
            return empty(StatusCode::RANGE_NOT_SATISFIABLE);
        }
        let (length, left) = (self.length, self.length - from);
        let cut_at = from + self.cut(left).unwrap_or(left);
        let chunks = stream::unfold(from, move |at| {
            let next = if at >= length {
                None
            } else if at >= cut_at {
                Some((Err(std::io::Error::other("cut off")), length))
            } else {
                let bytes = content(&session_id, length, at, CHUNK.min(cut_at - at));
                Some((Ok(Frame::data(bytes.clone())), at + bytes.len() as u64))
            };
            async move { next }
        });
        let mut response = Response::builder()
            .header(header::CONTENT_TYPE, "audio/wav")
            .header(header::ETAG, etag)
            .header(header::CONTENT_LENGTH, left);
        if range.is_some() {
            let content_range = format!("bytes {from}-{}/{length}", length - 1);
            response = response.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, content_range);
        }
        response
            .body(BodyExt::boxed(StreamBody::new(chunks)))
            .unwrap_or_else(|_| empty(StatusCode::INTERNAL_SERVER_ERROR))
    }

    /// After how many bytes to cut this answer off, if at all. By count, so that about the right share breaks.
    fn cut(&self, left: u64) -> Option<u64> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let digest = Sha256::digest(number.to_be_bytes());
        let share = |byte: u8| f64::from(byte) / 256.0;
        (share(digest[0]) < self.breaks).then(|| left * u64::from(digest[1]) / 256)
    }
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Full::default().map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response
}

/// A stretch of a call's recording: a WAV header (8 kHz, 16 bit, mono), then a hum that the call's id decides, as loud
/// as speech is: syllables, and a pause now and then.
fn content(session_id: &str, length: u64, from: u64, most: u64) -> Bytes {
    let data = u32::try_from(length.saturating_sub(44)).unwrap_or(u32::MAX);
    let mut header = Vec::with_capacity(44);
    header.extend_from_slice(b"RIFF");
    header.extend_from_slice(&data.saturating_add(36).to_le_bytes());
    header.extend_from_slice(b"WAVEfmt ");
    header.extend_from_slice(&[16, 0, 0, 0, 1, 0, 1, 0, 0x40, 0x1f, 0, 0, 0x80, 0x3e, 0, 0, 2, 0, 16, 0]);
    header.extend_from_slice(b"data");
    header.extend_from_slice(&data.to_le_bytes());
    let seed = session_id.bytes().fold(7_u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let to = length.min(from + most);
    let byte = |at: u64| {
        let index = usize::try_from(at).unwrap_or(usize::MAX);
        header.get(index).copied().unwrap_or_else(|| sample(seed, at / 2).to_le_bytes()[usize::from(at % 2 == 1)])
    };
    (from..to).map(byte).collect()
}

/// One of 8,000 a second.
fn sample(seed: u64, index: u64) -> i16 {
    const SYLLABLE: u64 = 1_400;
    const PHRASE: u64 = 20_000;
    let random = |of: u64, below: u64| ((of ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % below;
    let (syllable, phrase) = (index / SYLLABLE, index / PHRASE);
    let loudness = if random(syllable, 6) == 0 { 0 } else { 20 + random(syllable, 80) };
    // It swells and fades: 0 to 100 and back.
    let through = (index % SYLLABLE) * 200 / SYLLABLE;
    let swell = through.min(200 - through);
    let hertz = 110 + random(phrase, 110);
    let wave = index * hertz % 8_000;
    i16::try_from(wave * loudness * swell / 10_000).unwrap_or_default()
        - i16::try_from(4 * loudness * swell / 10).unwrap_or_default()
}
