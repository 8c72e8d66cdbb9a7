//! The embedded stores: DynamoDB (dynoxide, on SQLite) and S3 (s3s, on files).

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Method, Request, Response, StatusCode};
use dynoxide::Database;
use dynoxide::errors::DynoxideError;
use dynoxide::storage::Storage;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, watch};
use tokio::task::JoinHandle;

use super::{Data, http};
use crate::Failure;
use crate::endpoints::Stores;
use crate::template;

/// Both stores, serving.
pub(super) struct Embedded {
    database: Option<Database>,
    stop: watch::Sender<bool>,
    dynamodb: JoinHandle<()>,
    s3: JoinHandle<()>,
    // Held for as long as the stores run.
    _lock: Option<File>,
    _temporary: Option<tempfile::TempDir>,
}

impl Embedded {
    pub(super) fn start(
        data: &Data,
        elsewhere: Option<SocketAddr>,
        dynamodb: TcpListener,
        s3: TcpListener,
        (access_key, secret_key): (&str, &str),
    ) -> Result<Self, Failure> {
        let (stop, stopped) = watch::channel(false);
        let unusable =
            |what: &str, error: &dyn std::fmt::Display| Failure(format!("the local {what} cannot be opened: {error}"));
        let (file, folder, lock, temporary) = match data {
            Data::Ephemeral => {
                let temporary =
                    tempfile::tempdir().map_err(|error| Failure(format!("no temporary folder: {error}")))?;
                (None, temporary.path().join("s3"), None, Some(temporary))
            }
            Data::Folder(folder) => {
                let lock = claim(folder)?;
                (Some(folder.join("dynamodb.sqlite")), folder.join("s3"), Some(lock), None)
            }
        };
        let database = match (elsewhere, file) {
            (Some(_), _) => None,
            (None, None) => Some(in_memory(&folder.with_file_name("empty.sqlite"))),
            (None, Some(file)) => Some(on_disk(&file)),
        };
        let database = database.transpose().map_err(|error| unusable("database", &error))?;
        std::fs::create_dir_all(&folder).map_err(|error| unusable("bucket folder", &error))?;
        let files =
            s3s_fs::FileSystem::new(&folder).map_err(|error| unusable("bucket folder", &format!("{error:?}")))?;
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(access_key, secret_key));

        // The database itself is behind a guard, on a port that nobody is told.
        let inner = std::net::TcpListener::bind("127.0.0.1:0").and_then(|inner| {
            inner.set_nonblocking(true)?;
            Ok((inner.local_addr()?, TcpListener::from_std(inner)?))
        });
        let (behind, inner) = inner.map_err(|error| unusable("database", &error))?;
        let guard = http::serve_guarded(dynamodb, elsewhere.unwrap_or(behind), stopped.clone());
        let (served, mut until) = (database.clone(), stopped.clone());
        let dynamodb = tokio::spawn(async move {
            let Some(served) = served else { return guard.await };
            let stopped = async move { http::asked(&mut until).await };
            let served = dynoxide::server::serve_with_shutdown(inner, served, stopped);
            if let (Err(error), ()) = futures_util::future::join(served, guard).await {
                tracing::error!(%error, "the local database stopped");
            }
        });
        // Everybody knows its keys, so that a page that leads its own name here could sign for it.
        let (bucket, turns) = (service.build(), Turns::new());
        let guarded = service_fn(move |request: Request<Incoming>| {
            let (bucket, turns) = (bucket.clone(), turns.clone());
            async move {
                if http::is_foreign(&request) {
                    let mut refusal = Response::new(s3s::Body::empty());
                    *refusal.status_mut() = StatusCode::FORBIDDEN;
                    return Ok(refusal);
                }
                let _turn = turns.take(request.method(), request.uri().path()).await;
                Service::call(&bucket, request).await
            }
        });
        let s3 = tokio::spawn(http::serve(s3, http::UNBOUNDED, guarded, stopped));
        Ok(Self { database, stop, dynamodb, s3, _lock: lock, _temporary: temporary })
    }

    /// The embedded database itself: its streams are read from within.
    pub(super) fn database(&self) -> Option<Database> {
        self.database.clone()
    }

    pub(super) async fn stop(self, grace: Duration) {
        let _ = self.stop.send(true);
        let both = futures_util::future::join(self.dynamodb, self.s3);
        let _ = tokio::time::timeout(grace, both).await;
    }
}

/// Whose turn it is with an object. The embedded S3 looks at what is there and then writes, so of two conditional puts
/// at once both could be done; nor is an object's `ETag` written at once with it. One writer at a time makes both whole.
#[derive(Clone)]
struct Turns(Arc<Vec<RwLock<()>>>);

/// Held while an object is written, or looked at.
enum Turn<'a> {
    Write { _held: RwLockWriteGuard<'a, ()> },
    Read { _held: RwLockReadGuard<'a, ()> },
}

impl Turns {
    /// Objects share so many.
    const COUNT: usize = 64;

    fn new() -> Self {
        Self(Arc::new((0..Self::COUNT).map(|_| RwLock::default()).collect()))
    }

    async fn take(&self, method: &Method, path: &str) -> Turn<'_> {
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % Self::COUNT as u64).unwrap_or_default();
        match *method {
            Method::GET | Method::HEAD => Turn::Read { _held: self.0[index].read().await },
            _ => Turn::Write { _held: self.0[index].write().await },
        }
    }
}

/// What the embedded database leaves undone of its tables' streams: it finds the end of one by reading every record that
/// there is, and it keeps them all. So they are indexed, and what is older than a day is removed, as on AWS.
const STREAMS: &str = "
    CREATE INDEX IF NOT EXISTS hookswitch_streams ON _stream_records (table_name, CAST(sequence_number AS INTEGER));
    DELETE FROM _stream_records WHERE created_at < unixepoch() - 24 * 60 * 60;";

/// A database in a file, which is made if it is not there.
fn on_disk(file: &Path) -> Result<Database, String> {
    let said = |error: DynoxideError| error.to_string();
    let file = file.to_string_lossy();
    let storage = Storage::new(&file).map_err(said)?;
    storage.conn().execute_batch(STREAMS).map_err(|error| error.to_string())?;
    drop(storage);
    Database::new(&file).map_err(said)
}

/// An empty database in memory. Only one in a file can be indexed: it is made there first.
fn in_memory(file: &Path) -> Result<Database, String> {
    drop(on_disk(file)?);
    let database = Database::memory().map_err(|error| error.to_string())?;
    database.restore_from(&file.to_string_lossy()).map_err(|error| error.to_string())?;
    Ok(database)
}

/// Makes the folder and takes it for this process alone.
fn claim(folder: &Path) -> Result<File, Failure> {
    let shown = folder.display();
    let unwritable = |error: std::io::Error| Failure(format!("the folder {shown} cannot be written: {error}"));
    std::fs::create_dir_all(folder).map_err(unwritable)?;
    let lock = File::create(folder.join("lock")).map_err(unwritable)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(_) => Err(Failure(format!("the folder {shown} is in use by another run: choose another with --data"))),
    }
}

/// Creates the tables of the template and the bucket, where they are not there yet; the tables' names.
pub(super) async fn create(stores: &Stores, stack: &str) -> Result<BTreeMap<String, String>, Failure> {
    let clients = stores.connect()?;
    let mut names = BTreeMap::new();
    for (name, table) in template::tables()? {
        let physical = table.physical_name(stack)?;
        table.create(&clients.dynamodb, &physical).await?;
        names.insert(name, physical);
    }
    if clients.s3.head_bucket().bucket(&stores.bucket).send().await.is_err() {
        let created = clients.s3.create_bucket().bucket(&stores.bucket).send().await;
        created.map_err(|error| {
            let why = aws_sdk_s3::error::DisplayErrorContext(error);
            Failure(format!("the local bucket cannot be created: {why}"))
        })?;
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many stream records a database file holds, and how it looks for the end of a table's stream.
    fn looked_into(file: &Path) -> (i64, String) {
        let storage = Storage::new(&file.to_string_lossy()).unwrap();
        let end = "EXPLAIN QUERY PLAN SELECT COALESCE(MAX(CAST(sequence_number AS INTEGER)), 0) + 1 \
                   FROM _stream_records WHERE table_name = 't'";
        let records = storage.conn().query_row("SELECT count(*) FROM _stream_records", (), |row| row.get(0));
        (records.unwrap(), storage.conn().query_row(end, (), |row| row.get(3)).unwrap())
    }

    #[test]
    fn stream_records_are_indexed_and_forgotten_after_a_day() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("dynamodb.sqlite");
        drop(on_disk(&file).unwrap());
        let record = |age: &str| {
            let insert = format!(
                "INSERT INTO _stream_records (table_name, event_name, keys_json, sequence_number, shard_id, created_at)
                 VALUES ('t', 'INSERT', '{{}}', '1', 's', unixepoch() - {age})"
            );
            Storage::new(&file.to_string_lossy()).unwrap().conn().execute_batch(&insert).unwrap();
        };
        record("23 * 60 * 60");
        record("25 * 60 * 60");
        assert_eq!(looked_into(&file).0, 2);
        drop(on_disk(&file).unwrap());
        let (records, plan) = looked_into(&file);
        assert_eq!(records, 1);
        assert!(plan.contains("USING COVERING INDEX hookswitch_streams"), "{plan}");

        let copy = folder.path().join("copy.sqlite");
        let memory = in_memory(&folder.path().join("empty.sqlite")).unwrap();
        memory.vacuum_into(&copy.to_string_lossy()).unwrap();
        assert!(looked_into(&copy).1.contains("USING COVERING INDEX hookswitch_streams"));
    }
}
