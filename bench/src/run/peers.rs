//! Receivers that do what `session_completed` does, as they would be written for Node and Python: see bench/peers/.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use shared::Webhook;

use super::aws::Aws;
use super::function::Program;
use super::kinds::{self, Kind, SECRET};

/// What AWS advises for such functions at least; at 128 MB they would start twice as slowly.
const MEMORY_MB: u32 = 256;

/// Its name, what it receives, and how it is started.
type Peer = (String, Kind, Program);

/// The peers with what they are measured by; installs them where that was not done yet.
pub fn installed(aws: &Aws, authority: &Path) -> Result<Vec<Peer>, Box<dyn Error>> {
    let root = Path::new("bench/peers").canonicalize().map_err(|_| "run it in the project's folder")?;
    let target = Path::new("target/bench");
    std::fs::create_dir_all(target)?;
    let target = target.canonicalize()?;
    super::progress("peers");
    let node = node(&root.join("node"), &target.join("node"))?;
    let python = python(&root.join("python"), &target.join("python"))?;
    let kinds = kinds::ALL.into_iter().filter(|kind| kind.webhook == Webhook::SessionCompleted && !kind.is_large());
    let mut peers = Vec::new();
    for kind in kinds {
        for (name, command, folder, more) in [
            ("node, Powertools", &node.0, &node.1, ("NODE_EXTRA_CA_CERTS", authority)),
            ("python, Powertools", &python.0, &python.1, ("AWS_CA_BUNDLE", authority)),
        ] {
            let mut environment = super::common(aws);
            for (name, value) in [
                ("EVENTS_TABLE", "hookswitch-events"),
                ("SESSIONS_TABLE", "hookswitch-sessions"),
                ("IDEMPOTENCY_TABLE", "hookswitch-idempotency"),
                ("WEBHOOK_SECRET", SECRET),
                ("POWERTOOLS_SERVICE_NAME", "bench"),
                ("POWERTOOLS_LOG_LEVEL", "INFO"),
                (more.0, &more.1.display().to_string()),
                ("PYTHONPYCACHEPREFIX", &target.join("python/cache").display().to_string()),
                ("PYTHONPATH", &target.join("python/packages").display().to_string()),
            ] {
                environment.insert(name.to_owned(), value.to_owned());
            }
            let program =
                Program { command: command.clone(), folder: Some(folder.clone()), environment, memory_mb: MEMORY_MB };
            peers.push((name.to_owned(), kind, program));
        }
    }
    Ok(peers)
}

/// AWS's own runtime client for Node, and the function in one file, as esbuild makes it of a SAM project.
fn node(source: &Path, target: &Path) -> Result<(Vec<PathBuf>, PathBuf), Box<dyn Error>> {
    if !up_to_date(source, target) {
        std::fs::create_dir_all(target)?;
        for file in ["package.json", "package-lock.json", "app.mjs"] {
            std::fs::copy(source.join(file), target.join(file))?;
        }
        run(
            "npm",
            Command::new("npm").args(["ci", "--loglevel=error", "--no-audit", "--no-fund"]).current_dir(target),
        )?;
        let bundle = [
            "app.mjs",
            "--bundle",
            "--minify",
            "--platform=node",
            "--target=node20",
            "--format=cjs",
            "--outfile=dist/app.js",
            "--log-level=error",
        ];
        run("esbuild", Command::new(target.join("node_modules/.bin/esbuild")).args(bundle).current_dir(target))?;
        installed_from(source, target)?;
    }
    let client = target.join("node_modules/aws-lambda-ric/bin/index.mjs");
    Ok((vec![found("node")?, client, "app.handler".into()], target.join("dist")))
}

fn python(source: &Path, target: &Path) -> Result<(Vec<PathBuf>, PathBuf), Box<dyn Error>> {
    let packages = target.join("packages");
    if !up_to_date(source, target) {
        std::fs::create_dir_all(target)?;
        let requirements = source.join("requirements.txt");
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", "--target"];
        run("pip", Command::new("python3").args(install).arg(&packages).arg("--requirement").arg(requirements))?;
        installed_from(source, target)?;
    }
    let arguments = ["-m", "awslambdaric", "app.handler"].map(PathBuf::from);
    Ok(([found("python3")?].into_iter().chain(arguments).collect(), source.to_owned()))
}

/// The interpreter itself: what a version manager puts before it starts another process.
fn found(name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let asked = if name == "node" { ["-p", "process.execPath"] } else { ["-c", "import sys; print(sys.executable)"] };
    let said = Command::new(name).args(asked).output().map_err(|error| format!("{name}: {error}: peers need it"))?;
    Ok(PathBuf::from(String::from_utf8_lossy(&said.stdout).trim()).canonicalize()?)
}

/// Everything that a peer is made of.
fn source_of(folder: &Path) -> Result<String, Box<dyn Error>> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|file| Ok(file?.path())).collect::<std::io::Result<_>>()?;
    files.retain(|file| file.is_file());
    files.sort();
    Ok(files.iter().map(std::fs::read_to_string).collect::<std::io::Result<Vec<String>>>()?.concat())
}

fn up_to_date(source: &Path, target: &Path) -> bool {
    std::fs::read_to_string(target.join("installed")).is_ok_and(|kept| source_of(source).is_ok_and(|now| kept == now))
}

fn installed_from(source: &Path, target: &Path) -> Result<(), Box<dyn Error>> {
    Ok(std::fs::write(target.join("installed"), source_of(source)?)?)
}

fn run(name: &str, command: &mut Command) -> Result<(), Box<dyn Error>> {
    let status = command.status().map_err(|error| format!("{name}: {error}: peers need it"))?;
    if status.success() { Ok(()) } else { Err(format!("{name} failed: {status}").into()) }
}
