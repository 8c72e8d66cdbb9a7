//! `hookswitch doctor`: whether a bundle works from end to end, by trying it. Each check is one line, good or a
//! sentence that says what is wrong and what to do; whatever was found, what the trial left behind is deleted.

mod stack;
mod trial;

use std::io::Write;

use serde_json::json;
use shared::auth::Secret;
use shared::{Provider, Webhook};

use self::trial::Trial;
use crate::Failure;
use crate::endpoints::{Stores, with_token};
use crate::stack::Stack;
use crate::target::{Target, local};

/// Try every webhook with a right and a wrong delivery and check what is around them.
#[derive(clap::Args, Clone)]
#[command(after_help = "\
Examples:
  hookswitch doctor                            the local run on port 9000
  hookswitch doctor --stack hookswitch         a deployed stack
  hookswitch doctor --stack prod --json        one JSON object a line: check, result, message

The deliveries belong to a session doctor-<random>. What they store is read back, compared, and deleted.

Results: ok; warning (works, but look at it); wrong; skipped (there is no such thing here, or nothing to check).

Exit code: 0 if nothing is wrong, else 1.")]
pub struct Options {
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// What a check came to, and what to tell.
pub(crate) enum Finding {
    Good(String),
    Warning(String),
    Wrong(String),
    Skipped(String),
}

impl From<Failure> for Finding {
    fn from(Failure(why): Failure) -> Self {
        Self::Wrong(why)
    }
}

/// Where findings go, one line each as they come.
struct Report<W> {
    out: W,
    json: bool,
    coloured: bool,
    wrong: usize,
}

impl<W: Write> Report<W> {
    fn tell(&mut self, check: &str, finding: Finding) {
        let (result, colour, message) = match finding {
            Finding::Good(message) => ("ok", 32, message),
            Finding::Warning(message) => ("warning", 33, message),
            Finding::Wrong(message) => ("wrong", 31, message),
            Finding::Skipped(message) => ("skipped", 0, message),
        };
        self.wrong += usize::from(result == "wrong");
        // A closed pipe is a reader that has seen enough.
        let _ = if self.json {
            writeln!(self.out, "{}", json!({ "check": check, "result": result, "message": message }))
        } else if self.coloured {
            writeln!(self.out, "\x1b[{colour}m{result:<8}\x1b[0m {check:<20} {message}")
        } else {
            writeln!(self.out, "{result:<8} {check:<20} {message}")
        };
    }
}

/// Checks everything, writes each finding to `out` as it comes.
pub async fn run(options: &Options, out: impl Write, coloured: bool) -> Result<(), Failure> {
    let mut report = Report { out, json: options.json, coloured, wrong: 0 };
    match &options.target.stack {
        Some(name) => check_stack(name, &mut report).await?,
        None => check_local(options.target.port, &mut report).await?,
    }
    match report.wrong {
        0 => Ok(()),
        1 => Err(Failure("one check found something wrong".to_owned())),
        wrong => Err(Failure(format!("{wrong} checks found something wrong"))),
    }
}

/// What cannot be checked of the local run.
const OF_A_STACK: [&str; 8] = [
    "stack",
    "exotel secret",
    "vocobase secret",
    "vocobase api key",
    "stream",
    "event streams",
    "export streams",
    "alarms",
];

async fn check_local(port: u16, report: &mut Report<impl Write>) -> Result<(), Failure> {
    let endpoints = local(port).await?;
    let opened = endpoints.stores.as_ref().map(Stores::open).transpose()?;
    let opened = opened.ok_or_else(|| Failure("the local run does not say where its stores are".to_owned()))?;
    let mut trial = Trial::new(opened, None)?;
    trial.secret = endpoints.vocobase_secret.as_deref().map(Secret::new);
    let url = |webhook: Webhook| Some((webhook, endpoints.functions.get(webhook.name())?.clone()));
    trial.urls = Webhook::ALL.into_iter().filter_map(url).collect();
    check_deliveries(&trial, report).await;
    for check in OF_A_STACK {
        report.tell(check, Finding::Skipped("of a deployed stack only".to_owned()));
    }
    Ok(())
}

async fn check_stack(name: &str, report: &mut Report<impl Write>) -> Result<(), Failure> {
    let stack = Stack::find(name).await?;
    report.tell("stack", stack::state(&stack));
    let mut trial = Trial::new(stack.open()?, Some(name))?;
    let tokens = stack.tokens().await;
    for webhook in Webhook::ALL {
        let base = stack.url(webhook)?;
        let url = match (webhook.provider(), &tokens) {
            (Provider::Vocobase, _) => Some(base.to_owned()),
            (Provider::Exotel, Err(_)) => None,
            // The others take only what session_start hands out.
            (Provider::Exotel, Ok(tokens)) if tokens.session_tokens_only && webhook != Webhook::SessionStart => {
                tokens.session_url(base, webhook, &trial.session)
            }
            (Provider::Exotel, Ok(tokens)) => Some(with_token(base, webhook, tokens)),
        };
        trial.urls.extend(url.map(|url| (webhook, url)));
    }
    report.tell("exotel secret", stack::exotel_secret(tokens));
    let (secret, finding) = stack::vocobase_secret(&stack).await;
    trial.secret = secret;
    report.tell("vocobase secret", finding);
    report.tell("vocobase api key", stack::vocobase_api_key(&stack).await);
    check_deliveries(&trial, report).await;
    report.tell("stream", stack::stream(&stack).await.unwrap_or_else(Finding::from));
    report.tell("event streams", stack::events(&stack).await.unwrap_or_else(Finding::from));
    report.tell("export streams", stack::exports(&stack).await.unwrap_or_else(Finding::from));
    report.tell("alarms", stack::alarms(&stack).await.unwrap_or_else(Finding::from));
    Ok(())
}

/// Tries every webhook, looks into the tables, and deletes what is there of the trial, whatever became of it.
async fn check_deliveries(trial: &Trial, report: &mut Report<impl Write>) {
    let mut acknowledged = Vec::new();
    for delivery in trial.deliveries() {
        let webhook = delivery.webhook.name();
        let (finding, is_acknowledged) = trial.make(&delivery).await;
        acknowledged.extend(is_acknowledged.then_some(delivery));
        report.tell(webhook, finding);
    }
    report.tell("tables", trial.compare(&acknowledged).await);
    report.tell("cleaning up", trial.clean_up().await.unwrap_or_else(Finding::from));
}
