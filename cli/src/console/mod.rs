//! The console: calls, recordings and what is in quarantine as web pages, rendered here and served on this machine only.
//! The local run has it at `/console/`; `hookswitch console` looks into a deployed stack with its user's credentials.
//!
//! Pages read without JavaScript. With it they follow what happens, play recordings beside their transcripts, and show
//! times by the reader's clock. Nothing is loaded from anywhere else.

mod audio;
mod call;
mod charts;
mod gate;
mod list;
mod pages;
mod quarantine;
mod recordings;
mod totals;
mod undelivered;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use shared::storage::Store;
use shared::{Clock, Instant, Provider, SessionKey};
use tokio::net::TcpListener;
use tokio::sync::watch;

use self::gate::{Gate, Passage};
use self::pages::Pages;
use crate::Failure;
use crate::stack::Stack;
use crate::target::Opened;

/// Where the console is below its host.
pub const PATH: &str = "/console/";

/// One person looks: what a browser opens at once, and the pages beside it.
const CONNECTIONS: usize = 64;
/// A form names what is ticked on one page.
const MOST_FORM_BYTES: usize = 256 * 1024;
/// How long a form's body may take.
const READ_TIME: Duration = Duration::from_secs(10);

/// Only what the console itself serves is loaded, run, played or posted to, and no other page may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Look at a stack's calls in a browser.
#[derive(clap::Args, Clone)]
#[command(after_help = "\
Examples:
  hookswitch console --stack prod                  prints a link: open it in a browser on this machine
  hookswitch console --stack prod --port 9300

The console answers on 127.0.0.1 only, and reads the stack's tables and bucket with your credentials, as the AWS CLI
finds them. The link opens it once, for the browser that followed it; everything else is refused. The local run has a
console of its own: `hookswitch dev` prints where.

Exit code: 0 once it is stopped with Ctrl-C, or 1 if the stack or the port is not to be had.")]
pub struct Options {
    /// The stack, with credentials and region as the AWS CLI finds them.
    #[arg(long, value_name = "NAME")]
    stack: String,
    /// The port to serve at; 0 takes any that is free.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

/// Runs the command until `stopped` says so.
pub async fn run(
    options: &Options,
    clock: Clock,
    mut out: impl Write,
    stopped: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let stack = Stack::find(&options.stack).await?;
    let unopened = |error: std::io::Error| Failure(format!("port {} cannot be opened: {error}", options.port));
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, options.port))).await.map_err(unopened)?;
    let address = listener.local_addr().map_err(unopened)?;
    let (gate, token) = Gate::with_link(address.port());
    let region = stack.config.region().map(ToString::to_string).unwrap_or_default();
    let place = Place { name: format!("Stack {}", options.stack), detail: region, refresh_seconds: 10 };
    let console = Console::behind(gate, place, stack.open()?, clock)?;
    let _ = writeln!(out, "http://{address}{PATH}?token={token}");
    let _ = writeln!(out, "Open this link in a browser on this machine. It works once. Ctrl-C stops.");
    let _ = out.flush();
    let console = Arc::new(console);
    let service = service_fn(move |request| {
        let console = Arc::clone(&console);
        async move { Ok::<_, std::convert::Infallible>(console.answer(request).await) }
    });
    crate::dev::serve_http(listener, CONNECTIONS, service, stopped).await;
    Ok(())
}

/// The console of one bundle.
pub struct Console {
    gate: Gate,
    place: Place,
    opened: Opened,
    store: Store,
    clock: Clock,
    pages: Pages,
}

/// What is looked into, for whoever has several consoles open.
#[derive(Serialize)]
struct Place {
    name: String,
    detail: String,
    /// How often pages look for what is new.
    refresh_seconds: u32,
}

/// A response's body; a recording's is passed on as it comes.
pub type Body = BoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// What a page was asked for with: the members of its query, or of the form that was posted.
struct Asked(Vec<(String, String)>);

/// What a request comes to.
enum Reply {
    /// A page, and what its template is given.
    Page(StatusCode, &'static str, minijinja::Value),
    /// The browser goes on there.
    GoTo(String),
    /// Anything else, as it is.
    Other(Response<Body>),
}

/// Why there is nothing to show.
enum Problem {
    /// There is no such thing.
    NotFound(&'static str),
    /// The request makes no sense.
    Unclear(String),
    /// A store failed.
    Failed(String),
}

impl From<Failure> for Problem {
    fn from(Failure(why): Failure) -> Self {
        Self::Failed(why)
    }
}

impl From<shared::storage::StoreError> for Problem {
    fn from(error: shared::storage::StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Asked {
    fn read(encoded: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(encoded).into_owned().filter(|(_, value)| !value.is_empty()).collect())
    }

    /// The first member of that name that says something.
    fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// As a query, with some members in the place of others.
    fn with(&self, changes: &[(&str, Option<&str>)]) -> String {
        let stays = |name: &str| changes.iter().all(|(changed, _)| *changed != name);
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.0.iter().filter(|(name, _)| stays(name)));
        query.extend_pairs(changes.iter().filter_map(|(name, value)| Some((*name, (*value)?))));
        format!("?{}", query.finish())
    }
}

impl Console {
    /// The local run's.
    pub fn local(base: &str, opened: Opened, clock: Clock) -> Result<Self, Failure> {
        let detail = base.trim_start_matches("http://").to_owned();
        let place = Place { name: "Local run".to_owned(), detail, refresh_seconds: 2 };
        Self::behind(Gate::Open, place, opened, clock)
    }

    fn behind(gate: Gate, place: Place, opened: Opened, clock: Clock) -> Result<Self, Failure> {
        let store = opened.store()?;
        Ok(Self { gate, place, opened, store, clock, pages: Pages::new()? })
    }

    fn now(&self) -> Instant {
        (self.clock)()
    }

    /// Answers a request below [`PATH`].
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default());
        let asked = Asked::read(query.as_bytes());
        let mut response = match self.gate.pass(&request, asked.get("token")) {
            Passage::Granted => match self.route(request, &path, asked).await {
                Ok(Reply::Page(status, page, context)) => self.page(status, page, &context),
                Ok(Reply::GoTo(location)) => go_to(&location),
                Ok(Reply::Other(response)) => response,
                Err(problem) => self.problem(&problem),
            },
            Passage::Opened(cookie) => {
                let mut response = go_to(PATH);
                let cookie = format!("{cookie}; Path={PATH}; HttpOnly; SameSite=Strict");
                if let Ok(cookie) = HeaderValue::from_str(&cookie) {
                    response.headers_mut().insert(header::SET_COOKIE, cookie);
                }
                response
            }
            // No page of the console: whoever is refused sees nothing of it.
            Passage::Refused(why) => text(StatusCode::FORBIDDEN, why),
        };
        if response.status().is_client_error() || response.status().is_server_error() {
            // Without the path, which names a call.
            tracing::warn!(status = response.status().as_u16(), "the console did not show what it was asked for");
        }
        for (name, value) in [
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            // None at all would have browsers hide the origin of forms, too.
            (header::REFERRER_POLICY, "same-origin"),
            (header::CACHE_CONTROL, "no-store"),
            (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        ] {
            response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
        }
        response
    }

    async fn route(&self, request: Request<Incoming>, path: &str, asked: Asked) -> Result<Reply, Problem> {
        let Some(below) = path.strip_prefix(PATH) else { return Ok(Reply::GoTo(PATH.to_owned())) };
        let parts: Vec<String> = below
            .split('/')
            .map(|part| percent_decode_str(part).decode_utf8().map(std::borrow::Cow::into_owned))
            .collect::<Result<_, _>>()
            .map_err(|_| Problem::Unclear("The address is no text.".to_owned()))?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match (request.method().as_str(), parts.as_slice()) {
            ("GET" | "HEAD", parts) => match parts {
                [""] => list::page(self, &asked).await,
                ["call", session] => call::page(self, &key(session)?).await,
                ["call", session, "recording"] => {
                    audio::recording(self, &key(session)?, request.headers(), asked.get("save").is_some()).await
                }
                ["call", session, "delivery"] => call::body(self, &key(session)?, &asked).await,
                ["recordings"] => recordings::page(self, &asked).await,
                ["quarantine"] => quarantine::page(self, &asked).await,
                ["quarantine", "body"] => quarantine::body(self, &asked).await,
                ["undelivered"] => undelivered::page(self, &asked).await,
                ["undelivered", "body"] => undelivered::body(self, &asked).await,
                ["totals"] => totals::page(self, &asked).await,
                ["style.css"] => Ok(file("text/css; charset=utf-8", include_str!("style.css"))),
                ["console.js"] => Ok(file("text/javascript; charset=utf-8", include_str!("console.js"))),
                ["icon.svg"] => Ok(file("image/svg+xml", include_str!("icon.svg"))),
                _ => Err(Problem::NotFound("There is no such page.")),
            },
            ("POST", ["recordings", "retry"]) => recordings::retry(self, &form(request).await?).await,
            ("POST", ["quarantine", "replay"]) => quarantine::replay(self, &form(request).await?).await,
            _ => {
                let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here");
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
                Ok(Reply::Other(response))
            }
        }
    }

    fn page(&self, status: StatusCode, page: &'static str, context: &minijinja::Value) -> Response<Body> {
        match self.pages.render(page, &self.place, context) {
            Ok(html) => with_type(status, "text/html; charset=utf-8", html),
            Err(error) => {
                // What the template was given is not in it.
                tracing::error!(page, kind = ?error.kind(), line = error.line(), "a page cannot be rendered");
                text(StatusCode::INTERNAL_SERVER_ERROR, "the page cannot be rendered")
            }
        }
    }

    fn problem(&self, problem: &Problem) -> Response<Body> {
        let (status, heading, why) = match problem {
            Problem::NotFound(why) => (StatusCode::NOT_FOUND, "Not here", *why),
            Problem::Unclear(why) => (StatusCode::BAD_REQUEST, "Not understood", why.as_str()),
            Problem::Failed(why) => (StatusCode::BAD_GATEWAY, "A store did not answer", why.as_str()),
        };
        self.page(status, "problem.html", &minijinja::context! { title => heading, why })
    }
}

/// The call that a part of an address names.
fn key(session: &str) -> Result<SessionKey, Problem> {
    session.parse().map_err(|_| Problem::NotFound("No call has such a name."))
}

/// Where a call's page is.
fn call_path(key: &SessionKey) -> String {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    format!("{PATH}call/{}", utf8_percent_encode(key.as_str(), NON_ALPHANUMERIC))
}

/// As people write it.
const fn platform(provider: Provider) -> &'static str {
    match provider {
        Provider::Exotel => "Exotel",
        Provider::Vocobase => "Vocobase",
    }
}

/// A query of one member.
fn query(name: &str, value: &str) -> String {
    Asked(Vec::new()).with(&[(name, Some(value))])
}

async fn form(request: Request<Incoming>) -> Result<Asked, Problem> {
    let body = Limited::new(request.into_body(), MOST_FORM_BYTES).collect();
    let body = tokio::time::timeout(READ_TIME, body).await.ok().and_then(Result::ok);
    let body = body.ok_or_else(|| Problem::Unclear("The form is too long, or did not come whole.".to_owned()))?;
    Ok(Asked::read(&body.to_bytes()))
}

fn file(content_type: &'static str, content: &'static str) -> Reply {
    Reply::Other(with_type(StatusCode::OK, content_type, content))
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    with_type(status, "text/plain; charset=utf-8", text)
}

fn with_type(status: StatusCode, content_type: &'static str, content: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(whole(content));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A body that is there already.
pub fn whole(content: impl Into<Bytes>) -> Body {
    Full::new(content.into()).map_err(|never| match never {}).boxed()
}

fn go_to(location: &str) -> Response<Body> {
    let mut response = Response::new(whole(""));
    *response.status_mut() = StatusCode::SEE_OTHER;
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}
