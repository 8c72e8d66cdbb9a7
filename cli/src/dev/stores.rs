//! The embedded stores: DynamoDB (dynoxide, on SQLite) and S3 (s3s, on files).

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use dynoxide::Database;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Data;
use crate::Failure;
use crate::endpoints::Stores;
use crate::template;

/// Both stores, serving.
pub(super) struct Embedded {
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
        dynamodb: TcpListener,
        s3: TcpListener,
        (access_key, secret_key): (&str, &str),
    ) -> Result<Self, Failure> {
        let (stop, stopped) = watch::channel(false);
        let (database, folder, lock, temporary) = match data {
            Data::Ephemeral => {
                let temporary =
                    tempfile::tempdir().map_err(|error| Failure(format!("no temporary folder: {error}")))?;
                (Database::memory(), temporary.path().to_owned(), None, Some(temporary))
            }
            Data::Folder(folder) => {
                let lock = claim(folder)?;
                (Database::new(&folder.join("dynamodb.sqlite").to_string_lossy()), folder.join("s3"), Some(lock), None)
            }
        };
        let unusable =
            |what: &str, error: &dyn std::fmt::Display| Failure(format!("the local {what} cannot be opened: {error}"));
        let database = database.map_err(|error| unusable("database", &error))?;
        std::fs::create_dir_all(&folder).map_err(|error| unusable("bucket folder", &error))?;
        let files =
            s3s_fs::FileSystem::new(&folder).map_err(|error| unusable("bucket folder", &format!("{error:?}")))?;
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(access_key, secret_key));

        let mut until = stopped.clone();
        let dynamodb = tokio::spawn(async move {
            let stopped = async move { drop(until.wait_for(|stop| *stop).await) };
            if let Err(error) = dynoxide::server::serve_with_shutdown(dynamodb, database, stopped).await {
                tracing::error!(%error, "the local database stopped");
            }
        });
        let s3 = tokio::spawn(serve_s3(s3, service.build(), stopped));
        Ok(Self { stop, dynamodb, s3, _lock: lock, _temporary: temporary })
    }

    pub(super) async fn stop(self, grace: Duration) {
        let _ = self.stop.send(true);
        let both = futures_util::future::join(self.dynamodb, self.s3);
        let _ = tokio::time::timeout(grace, both).await;
    }
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

async fn serve_s3(listener: TcpListener, service: S3Service, mut stopped: watch::Receiver<bool>) {
    let connections = GracefulShutdown::new();
    let builder = Builder::new(TokioExecutor::new());
    loop {
        let socket = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => socket,
                Err(_) => continue,
            },
            _ = stopped.wait_for(|stop| *stop) => break,
        };
        let connection = builder.serve_connection(TokioIo::new(socket), service.clone()).into_owned();
        let connection = connections.watch(connection);
        tokio::spawn(async move { drop(connection.await) });
    }
    connections.shutdown().await;
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
