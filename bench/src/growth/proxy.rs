//! What a function asks of its stores: a proxy between them that counts.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, uri::Authority};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// What went through.
#[derive(Default, Debug, Clone, PartialEq)]
pub struct Asked {
    /// How often each operation was asked for: `PutItem`, or the method where a store has no names for them.
    pub calls: BTreeMap<String, u64>,
    /// Of bodies, both ways.
    pub bytes: u64,
}

impl Asked {
    /// Adds another's.
    pub fn add(&mut self, more: &Self) {
        self.bytes += more.bytes;
        for (operation, count) in &more.calls {
            *self.calls.entry(operation.clone()).or_default() += count;
        }
    }
}

/// A proxy in front of one store, for as long as the process runs.
pub struct Proxy {
    /// Where it is.
    pub url: String,
    asked: Arc<Mutex<Asked>>,
}

impl Proxy {
    /// Serves one in front of the store at `url`.
    pub async fn before(url: &str) -> Result<Self, Box<dyn Error>> {
        let store = url.parse::<Uri>()?.authority().cloned().ok_or("a store has an address")?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let own = format!("http://{}", listener.local_addr()?);
        let asked = Arc::<Mutex<Asked>>::default();
        let (counted, client) = (Arc::clone(&asked), Client::builder(TokioExecutor::new()).build_http());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (store, counted, client) = (store.clone(), Arc::clone(&counted), client.clone());
                let pass =
                    service_fn(move |request| pass(request, store.clone(), Arc::clone(&counted), client.clone()));
                tokio::spawn(async move {
                    let served =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), pass);
                    drop(served.await);
                });
            }
        });
        Ok(Self { url: own, asked })
    }

    /// What went through since the last call of this.
    pub fn take(&self) -> Asked {
        std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn pass(
    request: Request<Incoming>,
    store: Authority,
    counted: Arc<Mutex<Asked>>,
    client: Client<HttpConnector, Full<Bytes>>,
) -> Result<Response<Full<Bytes>>, Box<dyn Error + Send + Sync>> {
    let (mut head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let target = head.headers.get("x-amz-target").and_then(|target| target.to_str().ok()?.rsplit('.').next());
    let mut asked = Asked::default();
    asked.calls.insert(target.unwrap_or(head.method.as_str()).to_owned(), 1);
    asked.bytes += body.len() as u64;
    let path = head.uri.path_and_query().cloned();
    // The signature is over the head, `Host` included: it stays as it is.
    head.uri = Uri::builder().scheme("http").authority(store).path_and_query(path.ok_or("no path")?).build()?;
    let answer = match client.request(Request::from_parts(head, Full::new(body))).await {
        Ok(answer) => {
            let (head, body) = answer.into_parts();
            Response::from_parts(head, Full::new(body.collect().await?.to_bytes()))
        }
        Err(_) => Response::builder().status(StatusCode::BAD_GATEWAY).body(Full::default())?,
    };
    asked.bytes += answer.body().size_hint().exact().unwrap_or_default();
    counted.lock().unwrap_or_else(PoisonError::into_inner).add(&asked);
    Ok(answer)
}
