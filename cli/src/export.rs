//! `hookswitch export`: the documents of finished calls as files, for a period, from the tables.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_json::ReaderBuilder;
use arrow_json::reader::Decoder;
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema, SchemaRef};
use clap::ValueEnum;
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use serde::Serialize;
use serde_json::{Value, json};
use shared::call::Call;
use shared::document::{Document, partition};
use shared::logging::printable;
use shared::storage::{Order, Place, Store, StoreError, Window};
use shared::{Instant, Provider};
use tempfile::NamedTempFile;

use crate::Failure;
use crate::calls::filter::provider;
use crate::events::{counter, since};
use crate::sender::PARALLEL;
use crate::target::Target;

const SECONDS_A_DAY: i64 = 24 * 60 * 60;
/// Calls that are read at a time.
const PAGE: usize = 100;
/// Documents of so many bytes are a row group of a Parquet file.
const ROW_GROUP_BYTES: usize = 64 * 1024 * 1024;
/// What a document is: the columns of a Parquet file follow from it.
const SCHEMA: &str = include_str!("../../docs/calls/call.v1.schema.json");

/// Write the finished calls of whole days to files, for analysis.
#[derive(clap::Args, Clone)]
#[command(after_help = "\
Examples:
  hookswitch export --since 7d --format parquet --out calls
  hookswitch export --since 2026-03-01 --until 2026-04-01 --format ndjson --out calls --stack prod
  duckdb -c \"FROM read_parquet('calls/**/*.parquet', hive_partitioning = true)\"

One file for each platform and day, DIR/provider=<platform>/dt=<day>/calls.parquet or calls.ndjson, by the day (UTC)
on which the calls began. Days are exported as a whole. docs/calls describes the documents, which hold callers' numbers
and words.

A file is there as a whole or not at all, and replaces that of an earlier export; where a day has no calls any more, an
earlier file is removed. So it can be interrupted and repeated. Calls that go on, tests and erased calls are left out.

Exit code: 0, or 1 if a table cannot be read or a file cannot be written; 2 for wrong arguments.")]
pub struct Options {
    /// From the day of: such as 2026-03-15, 2026-03-15T14:30:00Z, 2h or 3d.
    #[arg(long, value_name = "T", value_parser = since)]
    since: Instant,
    /// Before then; the day that it is in is exported too, if it is not its beginning [default: now]
    #[arg(long, value_name = "T", value_parser = since)]
    until: Option<Instant>,
    /// Calls of this platform.
    #[arg(long, value_parser = provider())]
    provider: Option<String>,
    /// What the files are to be.
    #[arg(long)]
    format: Format,
    /// The folder for the files; it is made if it is not there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Say what was written as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// What the files are.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// Parquet, compressed with Snappy.
    Parquet,
    /// A document a line.
    Ndjson,
}

impl Format {
    const fn name(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Ndjson => "ndjson",
        }
    }
}

/// What was written.
#[derive(Serialize)]
struct Written {
    path: String,
    calls: usize,
    bytes: u64,
}

/// Runs the command.
pub async fn run(options: &Options, now: Instant, mut out: impl Write) -> Result<(), Failure> {
    let window = days(options.since, options.until.unwrap_or(now));
    let providers: Vec<Provider> = [Provider::Exotel, Provider::Vocobase]
        .into_iter()
        .filter(|provider| options.provider.as_ref().is_none_or(|name| provider.name() == name))
        .collect();
    let store = options.target.open().await?.store()?;
    let progress = counter("calls exported");
    let mut files = Vec::new();
    let mut day = window.since;
    while day < window.until {
        let next = day.plus_seconds(SECONDS_A_DAY);
        let written = export_day(options, &store, &providers, Window { since: day, until: next }, &progress).await?;
        for file in written {
            if !options.json {
                // A closed pipe is a reader that has seen enough.
                drop(writeln!(out, "{}", printable(&format!("{}: {} calls", file.path, file.calls))));
            }
            files.push(file);
        }
        day = next;
    }
    progress.finish_and_clear();
    let calls: usize = files.iter().map(|file| file.calls).sum();
    let line = if options.json {
        let summary = json!({ "since": window.since, "until": window.until, "format": options.format.name(),
            "calls": calls, "files": files });
        summary.to_string()
    } else {
        format!("{calls} calls in {} files", files.len())
    };
    drop(writeln!(out, "{line}"));
    Ok(())
}

/// The days that a period touches.
fn days(since: Instant, until: Instant) -> Window {
    let day = |seconds: i64| Instant::from_unix_seconds(seconds.div_euclid(SECONDS_A_DAY) * SECONDS_A_DAY);
    let until = until.plus_millis(-1).max(since);
    let last = day(until.unix_seconds()).unwrap_or(until);
    Window { since: day(since.unix_seconds()).unwrap_or(since), until: last.plus_seconds(SECONDS_A_DAY) }
}

/// Writes the files of a day, and removes those of an earlier export that have no calls any more.
async fn export_day(
    options: &Options,
    store: &Store,
    providers: &[Provider],
    window: Window,
    progress: &ProgressBar,
) -> Result<Vec<Written>, Failure> {
    let unreadable = |error: StoreError| Failure(error.to_string());
    let mut begun: BTreeMap<&str, DayFile> = BTreeMap::new();
    let mut after: Option<Place> = None;
    loop {
        let page = store.list(&window, Order::OldestFirst, after.as_ref(), PAGE).await.map_err(unreadable)?;
        let wanted = |call: &Call| call.has_document() && providers.contains(&call.key.provider());
        let calls: Vec<Call> = page.calls.into_iter().filter(wanted).collect();
        let mut documents = stream::iter(&calls).map(|call| store.describe(call)).buffered(PARALLEL);
        while let Some(document) = documents.try_next().await.map_err(unreadable)? {
            if !begun.contains_key(document.provider) {
                begun.insert(document.provider, DayFile::new(options.format, &options.out)?);
            }
            if let Some(file) = begun.get_mut(document.provider) {
                file.add(&document)?;
            }
            progress.inc(1);
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let mut written = Vec::new();
    for provider in providers {
        let folder = options.out.join(partition(*provider, &window.since.day()));
        let path = folder.join(format!("calls.{}", options.format.name()));
        match begun.remove(provider.name()) {
            Some(file) => written.push(file.finish(&folder, &path)?),
            None => match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(unwritable(&path, &error)),
                _ => {}
            },
        }
    }
    Ok(written)
}

/// The file of a platform and a day, before it is in its place.
struct DayFile {
    content: Content,
    calls: usize,
}

enum Content {
    Lines(NamedTempFile),
    Rows { writer: Box<ArrowWriter<NamedTempFile>>, decoder: Box<Decoder> },
}

impl DayFile {
    fn new(format: Format, out: &Path) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| unwritable(out, error);
        std::fs::create_dir_all(out).map_err(|error| failed(&error))?;
        // In the same folder, so that it can be moved into its place.
        let file = NamedTempFile::new_in(out).map_err(|error| failed(&error))?;
        let content = match format {
            Format::Ndjson => Content::Lines(file),
            Format::Parquet => {
                let schema = columns()?;
                let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
                let writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties));
                let decoder = ReaderBuilder::new(schema).with_batch_size(PAGE).build_decoder();
                Content::Rows {
                    writer: Box::new(writer.map_err(|error| failed(&error))?),
                    decoder: Box::new(decoder.map_err(|error| failed(&error))?),
                }
            }
        };
        Ok(Self { content, calls: 0 })
    }

    fn add(&mut self, document: &Document) -> Result<(), Failure> {
        self.calls += 1;
        match &mut self.content {
            Content::Lines(file) => file.write_all(document.to_line().as_bytes()).map_err(|error| broken(&error)),
            Content::Rows { writer, decoder } => {
                decoder.serialize(&[document]).map_err(|error: ArrowError| broken(&error))?;
                if self.calls.is_multiple_of(PAGE) { write_rows(writer, decoder) } else { Ok(()) }
            }
        }
    }

    /// Moves it into its place.
    fn finish(self, folder: &Path, path: &Path) -> Result<Written, Failure> {
        let file = match self.content {
            Content::Lines(file) => file,
            Content::Rows { mut writer, mut decoder } => {
                write_rows(&mut writer, &mut decoder)?;
                writer.into_inner().map_err(|error| broken(&error))?
            }
        };
        let failed = |error: &dyn std::fmt::Display| unwritable(path, error);
        file.as_file().sync_all().map_err(|error| failed(&error))?;
        let bytes = file.as_file().metadata().map_err(|error| failed(&error))?.len();
        std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
        file.persist(path).map_err(|error| failed(&error.error))?;
        Ok(Written { path: path.display().to_string(), calls: self.calls, bytes })
    }
}

fn write_rows(writer: &mut ArrowWriter<NamedTempFile>, decoder: &mut Decoder) -> Result<(), Failure> {
    if let Some(rows) = decoder.flush().map_err(|error| broken(&error))? {
        let failed = |error: ParquetError| broken(&error);
        writer.write(&rows).map_err(failed)?;
        if writer.in_progress_size() > ROW_GROUP_BYTES {
            writer.flush().map_err(failed)?;
        }
    }
    Ok(())
}

/// Without what was to be written: it is what callers said.
fn broken(error: &dyn std::fmt::Display) -> Failure {
    Failure(format!("a file cannot be written: {error}"))
}

fn unwritable(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure(printable(&format!("{} cannot be written: {error}", path.display())))
}

/// The columns of a Parquet file: the members of a document.
fn columns() -> Result<SchemaRef, Failure> {
    let schema: Value = serde_json::from_str(SCHEMA).map_err(|error| broken(&error))?;
    Ok(Arc::new(Schema::new(members(&schema))))
}

/// Every member is required, and they are named in order there.
fn members(described: &Value) -> Fields {
    let names = described["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    names.map(|name| Field::new(name, kind(&described["properties"][name]), true)).collect()
}

fn kind(described: &Value) -> DataType {
    let kinds = &described["type"];
    match kinds.as_str().or_else(|| kinds[0].as_str()) {
        Some("object") => DataType::Struct(members(described)),
        Some("array") => DataType::new_list(kind(&described["items"]), true),
        Some("number") => DataType::Float64,
        Some("integer") => DataType::Int64,
        Some("boolean") => DataType::Boolean,
        _ => DataType::Utf8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_whole() {
        let at = |text: &str| Instant::parse(text).unwrap();
        for (since, until, first, end) in [
            ("2026-03-15T14:30:00Z", "2026-03-15T14:31:00Z", "2026-03-15", "2026-03-16"),
            ("2026-03-15", "2026-03-16", "2026-03-15", "2026-03-16"),
            ("2026-03-15T00:00:00Z", "2026-03-16T00:00:00.001Z", "2026-03-15", "2026-03-17"),
            ("2026-03-15T10:00:00Z", "2026-03-14", "2026-03-15", "2026-03-16"),
        ] {
            assert_eq!(days(at(since), at(until)), Window { since: at(first), until: at(end) }, "{since} {until}");
        }
    }

    #[test]
    fn a_column_is_what_its_member_is() {
        let columns = columns().unwrap();
        let column = |name: &str| columns.field_with_name(name).unwrap().data_type().clone();
        assert_eq!(column("started_at"), DataType::Utf8);
        assert_eq!(column("transfer_requested"), DataType::Boolean);
        assert_eq!((column("credits_used"), column("turn_count")), (DataType::Float64, DataType::Int64));
        assert_eq!(column("bots"), DataType::new_list(DataType::Utf8, true));
        assert_eq!((columns.field(0).name().as_str(), columns.fields().len()), ("schema_version", 36));
        let DataType::Struct(recording) = column("recording") else { panic!("no struct") };
        assert_eq!(recording.find("bytes").unwrap().1.data_type(), &DataType::Int64);
    }
}
