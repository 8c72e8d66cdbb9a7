//! A source of recordings that does as it is told: an HTTP server on loopback, written over the socket itself, so that
//! it can break a connection after any byte and say what is not so. It keeps a log of what it was asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

/// The bytes of a recording, made as they are needed.
#[derive(Clone, Debug)]
pub struct Content {
    /// Its length.
    pub length: u64,
    /// Repeated after the header. Its length is a prime, so that no part of an upload equals another.
    block: Arc<Vec<u8>>,
    header: Vec<u8>,
}

const BLOCK_BYTES: usize = 65_521;

impl Content {
    /// A WAV of `length` bytes, header included; each seed makes another one.
    pub fn wav(length: u64, seed: u64) -> Self {
        let mut header = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data".to_vec();
        header.extend(u32::try_from(length.saturating_sub(44)).unwrap_or(u32::MAX).to_le_bytes());
        Self { header, ..Self::noise(length, seed) }
    }

    /// Bytes that are no known format.
    pub fn noise(length: u64, seed: u64) -> Self {
        let mut state = seed;
        let mut word = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let block = (0..BLOCK_BYTES).map(|_| word()).collect();
        Self { length, block: Arc::new(block), header: Vec::new() }
    }

    /// The bytes from `from` on, as many as are at hand at once.
    fn at(&self, from: u64) -> &[u8] {
        let from = usize::try_from(from).expect("it fits into memory's addresses");
        let bytes = match self.header.get(from..).filter(|rest| !rest.is_empty()) {
            Some(rest) => rest,
            None => &self.block[(from - self.header.len()) % BLOCK_BYTES..],
        };
        let left = usize::try_from(self.length).expect("it fits") - from;
        &bytes[..bytes.len().min(left)]
    }

    /// Passes all bytes on, piece by piece.
    pub fn each(&self, mut piece: impl FnMut(&[u8])) {
        let mut at = 0;
        while at < self.length {
            let bytes = self.at(at);
            piece(bytes);
            at += bytes.len() as u64;
        }
    }

    /// All bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut all = Vec::new();
        self.each(|bytes| all.extend_from_slice(bytes));
        all
    }

    /// Their SHA-256, as hex.
    pub fn sha256(&self) -> String {
        let mut digest = Sha256::new();
        self.each(|bytes| digest.update(bytes));
        hex::encode(digest.finalize())
    }

    /// A strong entity tag.
    pub fn etag(&self) -> String {
        format!("\"{}-{}\"", self.length, hex::encode(&self.block[..8]))
    }

    /// The answer of a well-behaved source: `Range` and `If-Match` are honoured.
    pub fn answer(&self, asked: &Asked) -> Reply {
        if asked.if_match.as_ref().is_some_and(|tag| *tag != self.etag()) {
            return Reply::status(412);
        }
        let from =
            asked.range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        match from {
            None => self.whole(),
            Some(from) if from >= self.length => Reply::status(416),
            Some(from) => Reply {
                status: 206,
                from,
                announced: Announced::Length(self.length - from),
                ..self.whole().header("Content-Range", &format!("bytes {from}-{}/{}", self.length - 1, self.length))
            },
        }
    }

    /// An answer that goes wrong, in a way that `chance` says.
    pub fn answer_badly(&self, asked: &Asked, chance: u64) -> Reply {
        let answer = self.answer(asked);
        let at = (chance >> 8) % self.length.max(1);
        match chance % 8 {
            0 => Reply::status(500),
            1 => Reply::status(503).header("Retry-After", "7"),
            2 => Reply::status(429),
            3 => Reply::nothing(),
            4 => answer.hang_at(at),
            5 => self.whole().announcing(self.length + 10),
            _ => answer.cut_at(at),
        }
    }

    /// All of it, whatever was asked.
    pub fn whole(&self) -> Reply {
        let reply =
            Reply { announced: Announced::Length(self.length), content: Some(self.clone()), ..Reply::status(200) };
        reply.header("Content-Type", "audio/x-wav").header("ETag", &self.etag())
    }
}

/// What the source was asked.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Asked {
    /// `GET`.
    pub method: String,
    /// Path and query, as sent.
    pub path: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// The `If-Match` header.
    pub if_match: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum Announced {
    Length(u64),
    Chunked,
    /// Neither: the body ends with the connection.
    Nothing,
}

#[derive(Clone, Debug)]
enum Incident {
    Cut,
    Hold(Arc<Notify>),
}

/// An answer and what goes wrong with it.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    content: Option<Content>,
    /// The first byte of the content that is sent.
    from: u64,
    announced: Announced,
    /// Before this byte of the content, counted from its beginning.
    incident: Option<(u64, Incident)>,
    drip: Option<Duration>,
    /// Nothing is answered before that.
    after: Option<Arc<Notify>>,
    hangs_up: bool,
}

impl Reply {
    /// An answer without a body.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            content: None,
            from: 0,
            announced: Announced::Length(0),
            incident: None,
            drip: None,
            after: None,
            hangs_up: false,
        }
    }

    /// No answer: it hangs up.
    pub fn nothing() -> Self {
        Self { hangs_up: true, ..Self::status(0) }
    }

    /// A redirect.
    pub fn redirect(to: &str) -> Self {
        Self::status(302).header("Location", to)
    }

    /// With a header, instead of any of that name.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        let mut reply = self.without(name);
        reply.headers.push((name.to_owned(), value.to_owned()));
        reply
    }

    /// Without a header.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self
    }

    /// With a content length that may be wrong.
    #[must_use]
    pub fn announcing(self, length: u64) -> Self {
        Self { announced: Announced::Length(length), ..self }
    }

    /// In chunks, without a length.
    #[must_use]
    pub fn chunked(self) -> Self {
        Self { announced: Announced::Chunked, ..self }
    }

    /// Without a length and without chunks.
    #[must_use]
    pub fn unannounced(self) -> Self {
        Self { announced: Announced::Nothing, ..self }
    }

    /// Breaks the connection before that byte of the content.
    #[must_use]
    pub fn cut_at(self, byte: u64) -> Self {
        Self { incident: Some((byte, Incident::Cut)), ..self }
    }

    /// Waits before that byte of the content until it is told to go on.
    #[must_use]
    pub fn hold_at(self, byte: u64, go_on: &Arc<Notify>) -> Self {
        Self { incident: Some((byte, Incident::Hold(Arc::clone(go_on)))), ..self }
    }

    /// Answers nothing at all until it is told to.
    #[must_use]
    pub fn after(self, go_on: &Arc<Notify>) -> Self {
        Self { after: Some(Arc::clone(go_on)), ..self }
    }

    /// Sends nothing from that byte of the content on, and does not hang up either.
    #[must_use]
    pub fn hang_at(self, byte: u64) -> Self {
        self.hold_at(byte, &Arc::default())
    }

    /// Sends one byte each `every`.
    #[must_use]
    pub fn dripping(self, every: Duration) -> Self {
        Self { drip: Some(every), ..self }
    }
}

type Script = dyn Fn(usize, &Asked) -> Reply + Send + Sync;

/// A running source. It ends with the test.
pub struct Source {
    /// Where it listens, `127.0.0.1:<port>`.
    pub address: String,
    log: watch::Receiver<Vec<Asked>>,
    connections: Arc<AtomicUsize>,
}

impl Source {
    /// Starts it. `script` answers the n-th request, counted from 0.
    pub async fn start(script: impl Fn(usize, &Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_on("127.0.0.1", script).await
    }

    /// The same, on another address of the loopback.
    pub async fn start_on(ip: &str, script: impl Fn(usize, &Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(TcpListener::bind((ip, 0)).await.expect("a port"), script)
    }

    /// The same, on that port if it is free.
    pub async fn start_at(port: u16, script: impl Fn(usize, &Asked) -> Reply + Send + Sync + 'static) -> Self {
        match TcpListener::bind(("127.0.0.1", port)).await {
            Ok(listener) => Self::listen(listener, script),
            Err(_) => Self::start(script).await,
        }
    }

    fn listen(listener: TcpListener, script: impl Fn(usize, &Asked) -> Reply + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().expect("an address").to_string();
        let (log, asked) = watch::channel(Vec::new());
        let (log, script): (_, Arc<Script>) = (Arc::new(log), Arc::new(script));
        let connections = Arc::new(AtomicUsize::new(0));
        let accepted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                let (log, script) = (Arc::clone(&log), Arc::clone(&script));
                // That the other side hangs up in the middle is its right.
                tokio::spawn(async move { drop(serve(socket, &log, &*script).await) });
            }
        });
        Self { address, log: asked, connections }
    }

    /// A source that behaves well.
    pub async fn of(content: &Content) -> Self {
        let content = content.clone();
        Self::start(move |_, asked| content.answer(asked)).await
    }

    /// What it was asked so far.
    pub fn log(&self) -> Vec<Asked> {
        self.log.borrow().clone()
    }

    /// The `Range` and `If-Match` of every request so far.
    pub fn ranges(&self) -> Vec<(Option<String>, Option<String>)> {
        self.log().into_iter().map(|asked| (asked.range, asked.if_match)).collect()
    }

    /// Waits until it was asked so often.
    pub async fn asked(&self, times: usize) {
        self.log.clone().wait_for(|log| log.len() >= times).await.expect("the source runs");
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// One request, one answer, then the connection ends.
async fn serve(socket: TcpStream, log: &watch::Sender<Vec<Asked>>, script: &Script) -> std::io::Result<()> {
    let mut socket = BufReader::new(socket);
    let mut asked = Asked::default();
    let mut line = String::new();
    while socket.read_line(&mut line).await? > 0 && line.trim() != "" {
        match line.split_once(": ") {
            _ if asked.method.is_empty() => {
                let mut words = line.split(' ').map(str::to_owned);
                (asked.method, asked.path) = words.next().zip(words.next()).unwrap_or_default();
            }
            Some((name, value)) if name.eq_ignore_ascii_case("range") => asked.range = Some(value.trim().to_owned()),
            Some((name, value)) if name.eq_ignore_ascii_case("if-match") => {
                asked.if_match = Some(value.trim().to_owned());
            }
            _ => {}
        }
        line.clear();
    }
    if asked.method.is_empty() {
        return Ok(());
    }
    let mut nth = 0;
    log.send_modify(|log| {
        nth = log.len();
        log.push(asked.clone());
    });
    answer(socket.get_mut(), &script(nth, &asked)).await
}

async fn answer(socket: &mut TcpStream, reply: &Reply) -> std::io::Result<()> {
    if let Some(go_on) = &reply.after {
        go_on.notified().await;
    }
    if reply.hangs_up {
        return socket.shutdown().await;
    }
    let mut head = format!("HTTP/1.1 {} As Scripted\r\nConnection: close\r\n", reply.status);
    let framing = match reply.announced {
        Announced::Length(length) => format!("Content-Length: {length}\r\n"),
        Announced::Chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
        Announced::Nothing => String::new(),
    };
    head.push_str(&framing);
    for (name, value) in &reply.headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    socket.write_all(head.as_bytes()).await?;
    let Some(content) = &reply.content else { return socket.shutdown().await };
    let chunked = matches!(reply.announced, Announced::Chunked);
    let mut at = reply.from;
    let mut incident = reply.incident.as_ref();
    loop {
        if let Some((_, what)) = incident.take_if(|(byte, _)| *byte <= at) {
            socket.flush().await?;
            match what {
                // What was sent arrives; what is missing is missed.
                Incident::Cut => return socket.shutdown().await,
                Incident::Hold(go_on) => go_on.notified().await,
            }
        }
        if at >= content.length {
            break;
        }
        let bytes = content.at(at);
        let until = incident.map_or(u64::MAX, |(byte, _)| byte - at);
        let until = usize::try_from(until).unwrap_or(usize::MAX).min(if reply.drip.is_some() { 1 } else { usize::MAX });
        let bytes = &bytes[..bytes.len().min(until)];
        if chunked {
            socket.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).await?;
        }
        socket.write_all(bytes).await?;
        if chunked {
            socket.write_all(b"\r\n").await?;
        }
        at += bytes.len() as u64;
        if let Some(every) = reply.drip {
            tokio::time::sleep(every).await;
        }
    }
    if chunked {
        socket.write_all(b"0\r\n\r\n").await?;
    }
    socket.shutdown().await
}
