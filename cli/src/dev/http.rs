//! HTTP on loopback, until it is time to stop, and the guard that keeps browsers out of the local stores.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1::Builder;
use hyper::service::{Service, service_fn};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Without files to open there is nothing to accept with: no reason to spin.
const AFTER_A_FAILED_ACCEPT: Duration = Duration::from_millis(50);

/// How long a connection may be silent before a request, or the head of a request take to come, or a delivery's body.
/// The platforms wait no longer for the whole answer.
pub(super) const READ_TIME: Duration = Duration::from_secs(10);

/// A store's callers are this process itself, which is bounded elsewhere, and who looks into it.
pub(super) const UNBOUNDED: usize = Semaphore::MAX_PERMITS;

/// Serves until `stopped` says so, then finishes what has begun. Beyond `most` connections the next one waits until
/// another is closed.
pub(crate) async fn serve<S, B>(listener: TcpListener, most: usize, service: S, mut stopped: watch::Receiver<bool>)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let connections = GracefulShutdown::new();
    let mut builder = Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(READ_TIME);
    let room = Arc::new(Semaphore::new(most));
    loop {
        let accepted = async { (Arc::clone(&room).acquire_owned().await, listener.accept().await) };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = asked(&mut stopped) => break,
        };
        let Ok((socket, _)) = accepted else {
            tokio::time::sleep(AFTER_A_FAILED_ACCEPT).await;
            continue;
        };
        let connection = connections.watch(builder.serve_connection(TokioIo::new(socket), service.clone()));
        tokio::spawn(async move {
            drop(connection.await);
            drop(place);
        });
    }
    drop(listener);
    connections.shutdown().await;
}

/// Waits until it is time to stop.
pub(super) async fn asked(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Whether a request calls this machine by its own name. A page that makes a browser resolve the page's name to this
/// machine does not.
pub(crate) fn is_local<B>(request: &Request<B>) -> bool {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| request.uri().authority().map(Authority::as_str)).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    matches!(name, "127.0.0.1" | "localhost")
}

/// Whether a request comes from a page that a developer has open, or from another host.
pub(super) fn is_foreign(request: &Request<Incoming>) -> bool {
    request.headers().contains_key(header::ORIGIN) || !is_local(request)
}

/// Passes requests on to the database behind, except those of browsers: it asks for no credentials and would let any
/// page that a developer has open read callers' numbers and write profiles.
pub(super) async fn serve_guarded(listener: TcpListener, behind: SocketAddr, stopped: watch::Receiver<bool>) {
    let client: Client<HttpConnector, Incoming> = Client::builder(TokioExecutor::new()).build_http();
    let service = service_fn(move |request: Request<Incoming>| {
        let client = client.clone();
        async move { Ok::<_, Infallible>(pass_on(&client, behind, request).await) }
    });
    serve(listener, UNBOUNDED, service, stopped).await;
}

async fn pass_on(
    client: &Client<HttpConnector, Incoming>,
    behind: SocketAddr,
    mut request: Request<Incoming>,
) -> Response<BoxBody<Bytes, hyper::Error>> {
    if is_foreign(&request) {
        return refusal(StatusCode::FORBIDDEN, "browsers and other hosts are not answered here");
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    match Uri::builder().scheme("http").authority(behind.to_string()).path_and_query(path).build() {
        Ok(uri) => *request.uri_mut() = uri,
        Err(_) => return refusal(StatusCode::BAD_REQUEST, "the URL cannot be read"),
    }
    match client.request(request).await {
        Ok(response) => response.map(BodyExt::boxed),
        Err(_) => refusal(StatusCode::BAD_GATEWAY, "the local database does not answer"),
    }
}

fn refusal(status: StatusCode, message: &str) -> Response<BoxBody<Bytes, hyper::Error>> {
    let body = serde_json::json!({ "message": message }).to_string();
    let mut response = Response::new(Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response
}
