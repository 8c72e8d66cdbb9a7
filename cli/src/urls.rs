//! `hookswitch urls`: what to paste into the platforms' consoles, and where.

use std::io::Write;

use shared::{Provider, Webhook};

use crate::Failure;
use crate::endpoints::Endpoints;
use crate::stack::Stack;
use crate::target::{Target, local};

/// Print each URL with its token, ready to paste, and say where it goes.
#[derive(clap::Args, Clone)]
#[command(after_help = "\
Examples:
  hookswitch urls                              the local run on port 9000
  hookswitch urls --stack hookswitch           a deployed stack
  hookswitch urls --stack prod --json > prod.json
  hookswitch simulate --endpoints prod.json    what the file is good for

A URL with its token is a credential, and the JSON holds Vocobase's secret besides.

Exit code: 0, or 1 if the URLs cannot be had.")]
pub struct Options {
    /// As JSON: function name to URL with token, and what Vocobase signs with, if that is set.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Prints the URLs.
pub async fn run(options: &Options, mut out: impl Write) -> Result<(), Failure> {
    let (endpoints, stack) = match &options.target.stack {
        None => (local(options.target.port).await?, None),
        Some(name) => {
            let stack = Stack::find(name).await?;
            (stack.endpoints().await?, Some(stack))
        }
    };
    // A closed pipe is a reader that has seen enough.
    let _ = if options.json {
        serde_json::to_string(&endpoints).map_err(std::io::Error::other).and_then(|json| writeln!(out, "{json}"))
    } else {
        writeln!(out, "{}", text(&endpoints, stack.as_ref()).join("\n"))
    };
    Ok(())
}

fn text(endpoints: &Endpoints, stack: Option<&Stack>) -> Vec<String> {
    let url = |webhook: Webhook| endpoints.functions.get(webhook.name()).map_or("", String::as_str);
    let line = |webhook: Webhook| format!("  {:<20} {}", webhook.name(), url(webhook));
    let mut lines = vec![
        "Exotel, where the bot is created: each URL into the webhook field of its name. It is a credential.".to_owned(),
    ];
    if stack.is_some_and(Stack::session_tokens_only) {
        lines.push(line(Webhook::SessionStart));
        lines.push(
            "  SessionTokensOnly is on: the other webhooks take only the URLs that session_start's answer hands\n  \
             out, for one session each, where a profile names them under `webhooks`. Leave their fields empty."
                .to_owned(),
        );
    } else {
        lines.extend(Webhook::ALL.into_iter().filter(|webhook| webhook.provider() == Provider::Exotel).map(line));
        lines.push(
            "  What a profile names under `webhooks`, session_start's answer hands out by itself, for that session\n  \
             only: those fields may stay empty."
                .to_owned(),
        );
    }
    lines.push(
        "  A call's custom parameter `call_setup_url` goes before the field session_start: the same URL.".to_owned(),
    );
    lines.push("Vocobase, in the webhook settings: the URL of an endpoint.".to_owned());
    lines.push(line(Webhook::SessionCompleted));
    lines.push(match (stack, &endpoints.vocobase_secret) {
        (Some(stack), None) => format!(
            "  Its signing secret is NOT SET, so every delivery is answered 503. Vocobase shows it (whsec_...) for\n  \
             the endpoint; then: hookswitch secret set vocobase --stack {}",
            stack.name
        ),
        _ => "  Its signing secret is set.".to_owned(),
    });
    lines
}
