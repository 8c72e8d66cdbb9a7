//! `bench sizes`: how big each function is and what it is linked from, compared with what `bench/sizes.json` keeps.
//!
//! A cold start loads the whole binary, and a second HTTP stack or TLS library comes in by one line of a manifest. Sizes
//! may move a little with every change; the crates are kept by name, so that each that comes is seen and meant. What no
//! crate of the workspace may have at all (aws-lc, native TLS) is in `deny.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use flate2::{Compression, write::DeflateEncoder};
use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};
use shared::Webhook;

/// How far a size may be from the kept one.
const SLACK: f64 = 0.05;

/// The most bytes that the zip of a webhook's function may have, whatever is kept: someone waits while it loads.
const LARGEST_ZIP: u64 = 5_500_000;

/// What a function is deployed for.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Crates that no function may be linked from, by name and versions, and why.
const FORBIDDEN: [(&str, &str, &str); 5] = [
    ("http", "<1", "the legacy HTTP stack beside hyper 1"),
    ("http-body", "<1", "the legacy HTTP stack beside hyper 1"),
    ("hyper", "<1", "the legacy HTTP stack beside hyper 1"),
    ("h2", "<0.4", "the legacy HTTP stack beside hyper 1"),
    ("rustls", "<0.23", "legacy TLS"),
];

/// The HTTP client of what does not go to AWS: where it is linked at all.
const SECOND_CLIENT: &str = "reqwest";
const WITH_SECOND_CLIENT: [&str; 2] = ["reconciler", "recording_archiver"];

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo lambda build --release && cargo measure sizes
  cargo measure sizes --update           after a change that is meant: its diff is the change of sizes

A size may be 5 % from what bench/sizes.json keeps; the crates are exactly those that it names. The zip is the bootstrap,
deflated as zip does by default; that of a webhook's function has at most 5.5 MB in any case.

Exit code: 0 if all is as kept; 1 if something grew or shrank, or a function is linked from what it must not be.")]
pub struct Options {
    /// Where the functions are built.
    #[arg(long, value_name = "DIR", default_value = "target/lambda")]
    functions: PathBuf,
    /// Keep today's sizes and crates.
    #[arg(long)]
    update: bool,
}

/// What is kept of all functions.
#[derive(Serialize, Deserialize, Default, Debug, Clone, PartialEq)]
struct Sizes {
    /// The crates that every function is linked from, as `name version`, a version without what is compatible.
    crates_of_all: BTreeSet<String>,
    functions: BTreeMap<String, Size>,
}

/// What is kept of one.
#[derive(Serialize, Deserialize, Default, Debug, Clone, PartialEq)]
struct Size {
    zip_bytes: u64,
    unpacked_bytes: u64,
    /// The crates that not every function is linked from.
    more_crates: BTreeSet<String>,
}

/// The dependencies of each function, by its name.
type Trees = BTreeMap<String, BTreeSet<(String, Version)>>;

#[allow(clippy::print_stdout, reason = "this is the command's own output")]
pub fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("sizes.json");
    let trees = read(&cargo_tree()?)?;
    let now = measure(&options.functions, &trees)?;
    print!("{}", table(&now));
    let mut faults = forbidden(&trees)?;
    if options.update {
        std::fs::write(&file, serde_json::to_string_pretty(&now)? + "\n")?;
    } else {
        let kept = serde_json::from_slice(&std::fs::read(&file)?)?;
        faults.extend(differences(&kept, &now));
    }
    faults.extend(too_large(&now));
    for fault in &faults {
        println!("{fault}");
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What cargo says of the functions as `cargo lambda build` builds them: together, without what only compiles.
fn cargo_tree() -> Result<String, Box<dyn Error>> {
    let mut cargo = Command::new("cargo");
    cargo.args(["tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "depth", "--format", " {p}"]);
    cargo.args(["--target", TARGET]).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let output = cargo.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err("cargo tree failed".into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Reads the trees that `cargo tree --prefix depth` prints, in which a crate has its dependencies only the first time.
fn read(printed: &str) -> Result<Trees, Box<dyn Error>> {
    let mut needs: BTreeMap<(String, Version), BTreeSet<(String, Version)>> = BTreeMap::new();
    let (mut roots, mut path) = (Vec::new(), Vec::new());
    for line in printed.lines().filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [depth, name, version, ..] = words[..] else { return Err(format!("cargo tree says {line}").into()) };
        let depth: usize = depth.parse()?;
        let package = (name.to_owned(), Version::parse(version.trim_start_matches('v'))?);
        path.truncate(depth);
        match path.last() {
            Some(parent) => drop(needs.entry(Clone::clone(parent)).or_default().insert(package.clone())),
            None => roots.push(package.clone()),
        }
        path.push(package);
    }
    let tree = |root: (String, Version)| {
        let (mut found, mut next) = (BTreeSet::new(), vec![root.clone()]);
        while let Some(package) = next.pop() {
            let new = needs.get(&package).into_iter().flatten().filter(|package| found.insert((*package).clone()));
            next.extend(new.cloned());
        }
        (root.0, found)
    };
    Ok(roots.into_iter().map(tree).collect())
}

/// `name version`, where the version is that part which says what it is compatible with.
fn compatible((name, version): &(String, Version)) -> String {
    match (version.major, version.minor) {
        (0, 0) => format!("{name} {version}"),
        (0, minor) => format!("{name} 0.{minor}"),
        (major, _) => format!("{name} {major}"),
    }
}

fn measure(folder: &Path, trees: &Trees) -> Result<Sizes, Box<dyn Error>> {
    let named: BTreeMap<&String, BTreeSet<String>> =
        trees.iter().map(|(name, tree)| (name, tree.iter().map(compatible).collect())).collect();
    let crates_of_all = named.values().cloned().reduce(|all, some| &all & &some).unwrap_or_default();
    let mut functions = BTreeMap::new();
    for (name, crates) in named {
        let path = folder.join(name).join("bootstrap");
        let bootstrap = std::fs::read(&path)
            .map_err(|error| format!("{}: {error}: build it with `cargo lambda build --release`", path.display()))?;
        let zip_bytes = zipped(&bootstrap)?;
        let size =
            Size { zip_bytes, unpacked_bytes: u64::try_from(bootstrap.len())?, more_crates: &crates - &crates_of_all };
        functions.insert(name.clone(), size);
    }
    Ok(Sizes { crates_of_all, functions })
}

/// What is uploaded of a bootstrap, but for some 120 bytes of a zip's own.
pub fn zipped(bootstrap: &[u8]) -> Result<u64, Box<dyn Error>> {
    let mut deflated = DeflateEncoder::new(Vec::new(), Compression::default());
    deflated.write_all(bootstrap)?;
    Ok(u64::try_from(deflated.finish()?.len())?)
}

fn table(sizes: &Sizes) -> String {
    let mut table = format!("{:20}{:>10}{:>15}{:>8}\n", "", "zip bytes", "unpacked bytes", "crates");
    for (name, size) in &sizes.functions {
        let crates = sizes.crates_of_all.len() + size.more_crates.len();
        let _ = writeln!(table, "{name:20}{:>10}{:>15}{crates:>8}", size.zip_bytes, size.unpacked_bytes);
    }
    table
}

/// What is linked that must not be.
fn forbidden(trees: &Trees) -> Result<Vec<String>, semver::Error> {
    let mut faults = Vec::new();
    for (name, versions, why) in FORBIDDEN {
        let versions = VersionReq::parse(versions)?;
        for (function, tree) in trees {
            let found = tree.iter().filter(|(found, version)| found == name && versions.matches(version));
            faults.extend(found.map(|(_, version)| format!("{function} is linked from {name} {version}: {why}")));
        }
    }
    let second = trees.iter().filter(|(function, tree)| {
        !WITH_SECOND_CLIENT.contains(&function.as_str()) && tree.iter().any(|(name, _)| name == SECOND_CLIENT)
    });
    faults
        .extend(second.map(|(function, _)| format!("{function} is linked from {SECOND_CLIENT}: a second HTTP client")));
    Ok(faults)
}

fn too_large(now: &Sizes) -> Vec<String> {
    let webhooks = Webhook::ALL.iter().filter_map(|webhook| now.functions.get_key_value(webhook.name()));
    let over = webhooks.filter(|(_, size)| size.zip_bytes > LARGEST_ZIP);
    over.map(|(name, size)| format!("{name}: its zip has {} bytes, more than {LARGEST_ZIP}", size.zip_bytes)).collect()
}

/// What is not as it is kept. What shrank is said too: a bound that is far away catches nothing.
fn differences(kept: &Sizes, now: &Sizes) -> Vec<String> {
    let mut faults = Vec::new();
    let names: BTreeSet<&String> = kept.functions.keys().chain(now.functions.keys()).collect();
    for name in names {
        let (Some(before), Some(after)) = (kept.functions.get(name), now.functions.get(name)) else {
            let there = if now.functions.contains_key(name) { "is new" } else { "is gone" };
            faults.push(format!("{name} {there}"));
            continue;
        };
        let sizes = [
            ("zip", before.zip_bytes, after.zip_bytes),
            ("unpacked size", before.unpacked_bytes, after.unpacked_bytes),
        ];
        for (what, before, after) in sizes {
            #[allow(clippy::cast_precision_loss, reason = "a few million bytes")]
            let change = after as f64 / before as f64 - 1.0;
            if change.abs() > SLACK {
                let how = if change > 0.0 { "grew" } else { "shrank" };
                faults.push(format!(
                    "{name}: its {what} {how} from {before} to {after} bytes, by {:.1} %",
                    change * 100.0
                ));
            }
        }
        let (before, after) = (&kept.crates_of_all | &before.more_crates, &now.crates_of_all | &after.more_crates);
        let list = |crates: BTreeSet<String>| crates.into_iter().collect::<Vec<_>>().join(", ");
        if !after.is_subset(&before) {
            faults.push(format!("{name}: new crates: {}", list(&after - &before)));
        }
        if !before.is_subset(&after) {
            faults.push(format!("{name}: crates that are gone: {}", list(&before - &after)));
        }
    }
    if !faults.is_empty() {
        faults.push("if this is meant: `cargo measure sizes --update`, and commit bench/sizes.json".to_owned());
    }
    faults
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot be made fails")]
mod tests {
    use super::*;

    const PRINTED: &str = "\
0 session_end v0.1.0 (/there/functions/session_end)
1 shared v0.1.0 (/there/shared)
2 hyper v1.12.0
3 http v1.5.0
2 sha2 v0.11.1

0 reconciler v0.1.0 (/there/functions/reconciler)
1 reqwest v0.13.5
2 hyper v1.12.0 (*)
1 shared v0.1.0 (/there/shared) (*)
";

    fn sizes(printed: &str, bytes: usize) -> (Trees, Sizes) {
        let trees = read(printed).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for name in trees.keys() {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            // Stored rather than packed: as little repeats here as in noise.
            let mut noise = 1_u64;
            let bootstrap: Vec<u8> = std::iter::repeat_with(|| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                noise.to_be_bytes()[0]
            })
            .take(bytes)
            .collect();
            std::fs::write(folder.path().join(name).join("bootstrap"), bootstrap).unwrap();
        }
        let now = measure(folder.path(), &trees).unwrap();
        (trees, now)
    }

    #[test]
    fn a_crate_counts_for_every_function_although_cargo_shows_what_it_needs_only_once() {
        let (trees, now) = sizes(PRINTED, 1_000);
        assert_eq!(trees["reconciler"].len(), 5);
        assert_eq!(now.crates_of_all, ["http 1", "hyper 1", "sha2 0.11", "shared 0.1"].map(str::to_owned).into());
        assert_eq!(now.functions["reconciler"].more_crates, ["reqwest 0.13".to_owned()].into());
        assert!(now.functions["session_end"].more_crates.is_empty());
        assert_eq!(differences(&now, &now), [] as [String; 0]);
    }

    #[test]
    fn a_function_that_grows_or_shrinks_by_more_than_a_twentieth_is_named() {
        let kept = sizes(PRINTED, 100_000).1;
        assert!(differences(&kept, &sizes(PRINTED, 104_000).1).is_empty());
        for (bytes, how) in [(106_000, "grew from 100000 to 106000 bytes, by 6.0 %"), (94_000, "shrank")] {
            let faults = differences(&kept, &sizes(PRINTED, bytes).1);
            let said = |what: &str| {
                faults.iter().any(|fault| fault.starts_with(&format!("session_end: its {what}")) && fault.contains(how))
            };
            assert!(said("unpacked size"), "{faults:?}");
            assert!(faults.iter().any(|fault| fault.starts_with("session_end: its zip")), "{faults:?}");
        }
        assert!(too_large(&kept).is_empty());
        let faults = too_large(&sizes(PRINTED, 5_600_000).1);
        assert_eq!(faults.len(), 1, "the reconciler is no webhook's function: {faults:?}");
        assert!(faults[0].starts_with("session_end: its zip has"), "{faults:?}");
    }

    #[test]
    fn a_crate_that_comes_in_is_named_and_a_second_stack_is_refused() {
        let (trees, kept) = sizes(PRINTED, 1_000);
        assert_eq!(forbidden(&trees).unwrap(), [] as [String; 0]);
        let with = |line: &str| PRINTED.replace("2 sha2 v0.11.1\n", &format!("2 sha2 v0.11.1\n{line}\n"));
        let (trees, now) = sizes(&with("2 http v0.2.12"), 1_000);
        let faults = differences(&kept, &now);
        assert!(faults.contains(&"session_end: new crates: http 0.2".to_owned()), "{faults:?}");
        let said = forbidden(&trees).unwrap();
        assert_eq!(said.len(), 2, "both functions have it through what they share: {said:?}");
        assert_eq!(said[1], "session_end is linked from http 0.2.12: the legacy HTTP stack beside hyper 1");
        let said = forbidden(&sizes(&with("1 reqwest v0.13.5"), 1_000).0).unwrap();
        assert_eq!(said, ["session_end is linked from reqwest: a second HTTP client"]);
        let (said, gone) = (forbidden(&sizes(&with("2 rustls v0.22.4"), 1_000).0).unwrap(), sizes(PRINTED, 1_000).1);
        assert!(said[0].ends_with("legacy TLS"), "{said:?}");
        let faults = differences(&now, &gone);
        assert!(faults.contains(&"session_end: crates that are gone: http 0.2".to_owned()), "{faults:?}");
    }
}
