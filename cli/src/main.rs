//! `hookswitch`: arguments, environment and terminal.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, CommandFactory, Parser, Subcommand};
use cli::Failure;
use cli::dev::{Data, Events, LocalRun, Setup};
use shared::{Instant, Webhook, logging};
use tokio::signal::unix::{SignalKind, signal};

/// Receive the webhooks of Exotel VoiceBot and Vocobase, keep every call.
#[derive(Parser)]
#[command(name = "hookswitch", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Dev(Dev),
    Simulate(cli::simulate::Options),
    Urls(cli::urls::Options),
    Secret(cli::secret::Options),
    Doctor(cli::doctor::Options),
    Recordings(cli::recordings::Options),
    Brief(cli::brief::Options),
    Export(cli::export::Options),
    Calls(cli::calls::Options),
    Call(cli::call::Options),
    Tail(cli::tail::Options),
    Stats(cli::stats::Options),
    Cost(cli::cost::Options),
    Erase(cli::erase::Options),
    Completions(Completions),
    Console(cli::console::Options),
    Profile(cli::profile::Options),
    Quarantine(cli::quarantine::Options),
    Rebuild(cli::rebuild::Options),
    Replay(cli::replay::Options),
    Undelivered(cli::undelivered::Options),
}

/// Run the whole bundle on this machine: every function, DynamoDB and S3, without an account.
#[derive(Args)]
#[command(after_help = "\
Examples:
  hookswitch dev                         functions on 9000, DynamoDB on 9001, S3 on 9002; data in .hookswitch/
  hookswitch dev --port 9100             the three ports from 9100 on
  hookswitch dev --ephemeral             keep nothing when it stops
  hookswitch dev --events | jq .type     what happens in calls, as it would be on the event bus
  hookswitch dev --events-to http://127.0.0.1:3000/events

Environment:
  VOCOBASE_SECRETS               what Vocobase signs with, separated by commas
  EXOTEL_TOKEN_SECRETS           what signs the tokens in Exotel's URLs, kid:secret, separated by commas
  EXOTEL_SESSION_TOKENS_ONLY     true: only session_start takes a function token
  TIMESTAMP_TOLERANCE_SECONDS    how far a Vocobase timestamp may be from now (300)
  DEFAULT_COUNTRY                of telephone numbers that come without its code (IN)
  HISTORY_MS                     how long a caller's history may take (300)
  DEADLINE_MS                    how long a delivery may take (5000; at most 10000)
  RETENTION_DAYS                 when items expire (never)
  VOCOBASE_API_KEY               asks Vocobase for calls whose webhook never came (not set: nothing is asked)
  LOG_LEVEL                      error, warn, info, debug or trace (info)

Ctrl-C stops it; a second one does not wait until everything is finished.

Exit code: 0, or 1 if it cannot start or is interrupted twice.")]
struct Dev {
    /// The functions' port; DynamoDB and S3 take the next two. 0 takes any that are free.
    #[arg(long, default_value_t = 9000)]
    port: u16,
    /// Where calls and recordings are kept.
    #[arg(long, value_name = "DIR", default_value = ".hookswitch", conflicts_with = "ephemeral")]
    data: PathBuf,
    /// Keep everything in memory and a temporary folder, and forget it when it stops.
    #[arg(long)]
    ephemeral: bool,
    /// Print each event as one line of JSON on standard output; what else is said goes to standard error.
    #[arg(long)]
    events: bool,
    /// Post each event there, as application/cloudevents+json.
    #[arg(long, value_name = "URL")]
    events_to: Option<url::Url>,
}

/// Print what makes a shell complete this command's words.
#[derive(Args)]
#[command(after_help = "\
Examples:
  source <(hookswitch completions bash)                        for this shell
  hookswitch completions zsh > ~/.zfunc/_hookswitch            for every zsh, where ~/.zfunc is in fpath
  hookswitch completions fish > ~/.config/fish/completions/hookswitch.fish

Exit code: 0; 2 for another shell.")]
struct Completions {
    /// The shell.
    shell: clap_complete::Shell,
}

#[allow(clippy::disallowed_methods, reason = "the edge: the environment is read here and passed in")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[tokio::main]
async fn main() -> ExitCode {
    let command = Cli::parse().command;
    let done = match command {
        Command::Dev(options) => dev(options).await,
        Command::Recordings(options) => {
            cli::recordings::run(&options, Instant::now(), std::io::stdout().lock(), confirm).await
        }
        Command::Brief(options) => cli::brief::run(&options, Instant::now(), std::io::stdout().lock()).await,
        Command::Export(options) => cli::export::run(&options, Instant::now(), std::io::stdout().lock()).await,
        Command::Console(options) => console(&options).await,
        Command::Profile(options) => {
            cli::profile::run(&options, Instant::now(), std::io::stdout().lock(), confirm).await
        }
        Command::Quarantine(options) => {
            let terminal = std::io::stdout().is_terminal();
            cli::quarantine::run(&options, Instant::now(), std::io::stdout().lock(), terminal, confirm).await
        }
        Command::Rebuild(options) => {
            cli::rebuild::run(&options, Instant::now(), std::io::stdout().lock(), confirm).await
        }
        Command::Replay(options) => cli::replay::run(&options, Instant::now(), std::io::stdout().lock()).await,
        Command::Undelivered(options) => {
            let terminal = std::io::stdout().is_terminal();
            cli::undelivered::run(&options, Instant::now(), std::io::stdout().lock(), terminal, confirm).await
        }
        Command::Simulate(options) => cli::simulate::run(&options, std::io::stdout().lock()).await,
        Command::Secret(options) => cli::secret::run(&options, std::io::stdout().lock(), hidden, confirm).await,
        Command::Calls(options) => {
            cli::calls::run(&options, Instant::now(), std::io::stdout().lock(), coloured()).await
        }
        Command::Call(options) => cli::call::run(&options, Instant::now(), std::io::stdout().lock(), coloured()).await,
        Command::Erase(options) => {
            let clock: shared::Clock = Arc::new(Instant::now);
            cli::erase::run(&options, clock, std::io::stdout().lock(), confirm).await
        }
        Command::Tail(options) => {
            cli::tail::run(&options, Arc::new(Instant::now), std::io::stdout().lock(), coloured()).await
        }
        Command::Stats(options) => {
            cli::stats::run(&options, Instant::now(), std::io::stdout().lock(), coloured()).await
        }
        Command::Cost(options) => cli::cost::run(&options, std::io::stdout().lock(), coloured()),
        Command::Completions(options) => {
            clap_complete::generate(options.shell, &mut Cli::command(), "hookswitch", &mut std::io::stdout());
            Ok(())
        }
        Command::Doctor(options) => cli::doctor::run(&options, std::io::stdout().lock(), coloured()).await,
        Command::Urls(options) => cli::urls::run(&options, std::io::stdout().lock()).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(why)) => {
            say(&format!("hookswitch: {why}"));
            ExitCode::FAILURE
        }
    }
}

/// Colours are for a terminal, unless its user wants none.
fn coloured() -> bool {
    std::io::stdout().is_terminal() && environment("NO_COLOR").is_none_or(|set| set.is_empty())
}

async fn dev(options: Dev) -> Result<(), Failure> {
    logging::init_readable(&environment, std::io::stderr().is_terminal())?;
    let no_signal = |error: std::io::Error| Failure(format!("signals cannot be received: {error}"));
    // Before anything else is up, so that a signal that comes early is not lost.
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt()).map_err(no_signal)?, signal(SignalKind::terminate()).map_err(no_signal)?);
    let data = if options.ephemeral { Data::Ephemeral } else { Data::Folder(options.data) };
    let (heard, mut events) = tokio::sync::mpsc::unbounded_channel();
    let events_out = Events { heard: options.events.then_some(heard), to: options.events_to };
    let setup = Setup { port: options.port, data: data.clone(), triggers: true, events: events_out, dynamodb: None };
    let run = LocalRun::start(&setup, &environment, Arc::new(Instant::now)).await?;
    if options.events {
        say(&banner(&run, &data));
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                print(&event);
            }
        });
    } else {
        print(&banner(&run, &data));
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    say("stopping: finishing what has begun");
    tokio::select! {
        () = run.stop() => Ok(()),
        _ = interrupt.recv() => Err(Failure("interrupted before everything was finished".to_owned())),
    }
}

async fn console(options: &cli::console::Options) -> Result<(), Failure> {
    logging::init_readable(&environment, std::io::stderr().is_terminal())?;
    let no_signal = |error: std::io::Error| Failure(format!("signals cannot be received: {error}"));
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt()).map_err(no_signal)?, signal(SignalKind::terminate()).map_err(no_signal)?);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        let _ = stop.send(true);
    });
    cli::console::run(options, Arc::new(Instant::now), std::io::stdout(), stopped).await
}

fn banner(run: &LocalRun, data: &Data) -> String {
    let mut lines = vec!["Hookswitch is up. Paste these URLs, tokens included:".to_owned()];
    for webhook in Webhook::ALL {
        let url = run.endpoints.functions.get(webhook.name()).map_or("", String::as_str);
        lines.push(format!("  {:<20} {url}", webhook.name()));
    }
    lines.push(format!("  {:<20} {}", "vocobase secret", run.endpoints.vocobase_secret.as_deref().unwrap_or_default()));
    if let Some(secrets) = run.default_token_secrets {
        lines.push(format!("  {:<20} {secrets} (EXOTEL_TOKEN_SECRETS is not set)", "token secrets"));
    }
    lines.push(format!("  {:<20} {}{}", "console", run.base, cli::console::PATH));
    if let Some(stores) = &run.endpoints.stores {
        lines.push(format!("  {:<20} {} (tables {}-*)", "DynamoDB", stores.dynamodb, cli::template::LOCAL_STACK));
        lines.push(format!("  {:<20} {} (bucket {})", "S3", stores.s3, stores.bucket));
    }
    let kept = match data {
        Data::Folder(folder) => format!("kept in {}", folder.display()),
        Data::Ephemeral => "forgotten when it stops".to_owned(),
    };
    lines.push(format!("Everything is {kept}. {}/endpoints says all of this as JSON. Ctrl-C stops.", run.base));
    lines.join("\n")
}

/// Asks on the terminal; without one, the answer is no.
fn confirm(question: &str) -> bool {
    use std::io::Write;
    let _ = write!(std::io::stderr(), "{question} [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// Reads a secret: typed on a terminal without being shown, else all of standard input.
fn hidden(prompt: &str) -> std::io::Result<String> {
    use std::io::Read;
    let stdin = std::io::stdin().lock();
    if stdin.is_terminal() {
        return rpassword::prompt_password(prompt);
    }
    let mut text = String::new();
    stdin.take(64 * 1024).read_to_string(&mut text)?;
    Ok(text)
}

fn print(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// A line for the person at the terminal; that nobody reads it is no reason to fail.
fn say(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}
