//! `hookswitch profile`: how calls are answered. Seen, tried and changed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use lambda_http::Body;
use serde_json::json;
use serde_json::value::RawValue;
use shared::auth::Verified;
use shared::auth::exotel::session_url;
use shared::call::{Delivery, Field, Source, State};
use shared::json::Json;
use shared::logging::printable;
use shared::profile::{
    Answer, EXAMPLE_REQUEST, Fallback, Known, MEMBERS, Problem, Received, check, example_history, names, remembers,
};
use shared::storage::{History, ProfileItem, Store, StoreError, item_to_call, read_event};
use shared::webhook::success;
use shared::{Country, Instant, Provider, SessionKey, Webhook};

use crate::events::{events_of, session_key, text};
use crate::simulate::check::query;
use crate::stack::Stack;
use crate::target::{Opened, Target, local};
use crate::{Failure, aligned};

/// See, try and change how calls are answered.
#[derive(Args, Clone)]
#[command(after_help = "\
Examples:
  hookswitch profile list                                        what the local run answers with
  hookswitch profile get default --stack prod > default.json
  hookswitch profile validate default.json                       what is wrong with it, line by line
  hookswitch profile put default default.json --stack prod       if nothing is wrong with it
  hookswitch profile preview bot#b1                              the answers to an example request
  hookswitch profile preview bot#b1 --session exotel#s1234567    the answers to a call that was stored
  hookswitch profile delete number#+918047000000

A profile is `default`, `bot#<bot id>` or `number#<landing number>`; the most specific wins, member by
member. Functions take a change up within half a minute. FILE may be -, standard input.

Exit code: 0, or 1 if there is no such profile, something is wrong with a document, an answer is not
what its profiles ask for, or the answer was no.")]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone)]
enum Command {
    /// List the profiles and what they say.
    List {
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Print a profile as the JSON that `put` takes.
    Get {
        /// `default`, `bot#<bot id>` or `number#<landing number>`.
        name: String,
        #[command(flatten)]
        target: Target,
    },
    /// Store a profile in the place of what is there, if nothing is wrong with it.
    Put {
        /// `default`, `bot#<bot id>` or `number#<landing number>`.
        #[arg(value_parser = name)]
        name: String,
        /// JSON.
        file: String,
        #[command(flatten)]
        target: Target,
    },
    /// Delete a profile: the next more general one answers then.
    Delete {
        /// `default`, `bot#<bot id>` or `number#<landing number>`.
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Say what is wrong with a document, without storing anything.
    Validate {
        /// JSON.
        file: String,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Print what the platform would be answered, but for the sessions' tokens.
    Preview {
        /// The most specific profile of the call: `default`, `bot#<bot id>` or `number#<landing number>`.
        #[arg(value_parser = name)]
        name: String,
        /// The body of a request, instead of an example.
        #[arg(long, value_name = "FILE", conflicts_with = "session")]
        request: Option<String>,
        /// The stored session_start of a call: exotel#<session id>, or the session id alone.
        #[arg(long, value_name = "S")]
        session: Option<String>,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        target: Target,
    },
}

/// What stands in a preview for a session's token, which is a credential.
const TOKEN: &str = "[made-for-each-session]";
/// What a preview may take to be rendered: nobody waits.
const TIME: Duration = Duration::from_secs(2);
/// More than any document or request that is used.
const MAX_FILE: u64 = 1024 * 1024;

/// A name under which calls look for a profile.
fn name(text: &str) -> Result<String, &'static str> {
    let wanted = match text.split_once('#') {
        Some(("bot", id)) if !id.is_empty() => names(Some(id), None),
        Some(("number", number)) if !number.is_empty() => names(None, Some(number)),
        _ => names(None, None),
    };
    let found = wanted.first().is_some_and(|name| name == text);
    found.then(|| text.to_owned()).ok_or("not default, bot#<bot id> or number#<landing number>")
}

fn failed(error: &StoreError) -> Failure {
    Failure(error.to_string())
}

/// Runs the command. `ask` answers a question with yes or no.
pub async fn run(
    options: &Options,
    now: Instant,
    mut out: impl Write,
    ask: impl FnOnce(&str) -> bool,
) -> Result<(), Failure> {
    // A closed pipe is a reader that has seen enough.
    let mut print = |line: String| drop(writeln!(out, "{line}"));
    match &options.command {
        Command::List { json, target } => {
            let store = target.open().await?.store()?;
            let profiles = store.all_profiles().await.map_err(|error| failed(&error))?;
            if *json {
                profiles.iter().map(as_json).for_each(&mut print);
            } else {
                let row = |profile: &ProfileItem| {
                    let says: Vec<&str> = ordered(profile).map(|(name, _)| name.as_str()).collect();
                    [profile.name.clone(), says.join(", ")]
                };
                let headings = ["PROFILE", "SAYS"].map(str::to_owned);
                let rows: Vec<_> = std::iter::once(headings).chain(profiles.iter().map(row)).collect();
                aligned(&rows).iter().map(|line| printable(line)).for_each(&mut print);
            }
            Ok(())
        }
        Command::Get { name, target } => {
            let store = target.open().await?.store()?;
            print(document(&get(&store, name).await?));
            Ok(())
        }
        Command::Put { name, file, target } => {
            let text = read(file)?;
            let problems = problems(&text);
            problems.iter().map(|problem| told(file, problem)).for_each(&mut print);
            if !problems.is_empty() {
                return Err(Failure("nothing was stored".to_owned()));
            }
            let members: BTreeMap<String, Json> =
                serde_json::from_str(&text).map_err(|error| Failure(format!("{file}: {error}")))?;
            let profile = ProfileItem { name: name.clone(), members: members.into_iter().collect() };
            let replaced = target.open().await?.store()?.put_profile(&profile).await.map_err(|error| failed(&error))?;
            print(printable(&format!("{name}: {}", if replaced { "replaced" } else { "stored" })));
            Ok(())
        }
        Command::Delete { name, yes, target } => {
            let store = target.open().await?.store()?;
            get(&store, name).await?;
            if !yes && !ask(&printable(&format!("Delete the profile {name}?"))) {
                return Err(Failure("nothing was changed".to_owned()));
            }
            store.delete_profile(name).await.map_err(|error| failed(&error))?;
            print(printable(&format!("{name}: deleted")));
            Ok(())
        }
        Command::Validate { file, json } => {
            let problems = problems(&read(file)?);
            for problem in &problems {
                let Problem { line, member, reason } = problem;
                print(if *json {
                    json!({ "line": line, "member": member, "reason": reason }).to_string()
                } else {
                    told(file, problem)
                });
            }
            match problems.len() {
                0 => Ok(()),
                1 => Err(Failure(printable(&format!("there is something wrong with {file}")))),
                many => Err(Failure(printable(&format!("there are {many} things wrong with {file}")))),
            }
        }
        Command::Preview { name, request, session, json, target } => {
            let opened = target.open().await?;
            let case = match (request, session) {
                (Some(file), _) => Case { body: read(file)?.into_bytes(), now, history: None },
                (_, Some(session)) => stored(&opened, &session_key(session, Provider::Exotel)?, now).await?,
                _ => Case::example(now),
            };
            let preview = preview(&opened, &base_urls(target).await?, name, case).await?;
            let lines = if *json { vec![preview.as_json()] } else { preview.lines() };
            lines.into_iter().for_each(&mut print);
            match preview.fallbacks.as_slice() {
                [] => Ok(()),
                _ => Err(Failure("an answer is not what its profiles ask for".to_owned())),
            }
        }
    }
}

/// A file, or standard input.
fn read(file: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let done = if file == "-" {
        std::io::stdin().lock().take(MAX_FILE).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|opened| opened.take(MAX_FILE).read_to_string(&mut text))
    };
    done.map_err(|error| Failure(printable(&format!("{file} cannot be read: {error}"))))?;
    Ok(text)
}

async fn get(store: &Store, name: &str) -> Result<ProfileItem, Failure> {
    let none = || Failure(printable(&format!("there is no profile {name}")));
    // An empty key is no question that the table takes.
    let wanted = Some(name.to_owned()).filter(|name| !name.is_empty()).ok_or_else(none)?;
    let found = store.profiles(&[wanted]).await.map_err(|error| failed(&error))?;
    found.into_iter().next().ok_or_else(none)
}

fn told(file: &str, problem: &Problem) -> String {
    printable(&format!("{file}: {problem}"))
}

/// The members in the order of the documentation, and then what else there is.
fn ordered(profile: &ProfileItem) -> impl Iterator<Item = &(String, Json)> {
    let place = |name: &str| MEMBERS.iter().position(|member| *member == name).unwrap_or(MEMBERS.len());
    let mut members: Vec<&(String, Json)> = profile.members.iter().collect();
    members.sort_by_key(|(name, _)| (place(name), name));
    members.into_iter()
}

/// One member a line.
fn document(profile: &ProfileItem) -> String {
    let member = |(name, value): &(String, Json)| format!("  {}: {}", Json::text(name).as_str(), value.as_str());
    let members: Vec<String> = ordered(profile).map(member).collect();
    if members.is_empty() { "{}".to_owned() } else { format!("{{\n{}\n}}", members.join(",\n")) }
}

fn as_json(profile: &ProfileItem) -> String {
    let mut members: BTreeMap<String, Json> = profile.members.iter().cloned().collect();
    members.insert("profile".to_owned(), Json::text(&profile.name));
    Json::object(&members).into_string()
}

/// What is wrong with a document, and what the table would not take.
fn problems(document: &str) -> Vec<Problem> {
    let mut problems = check(document);
    // Where the grammar is not right, there is no telling what is a number.
    if serde_json::from_str::<&RawValue>(document).is_ok() {
        problems.extend(not_storable(document));
    }
    problems.sort_by_key(|problem| problem.line);
    problems
}

/// What JSON has and `DynamoDB` has not: long numbers, members without a name, and depth.
fn not_storable(document: &str) -> Vec<Problem> {
    const MAX_DEPTH: usize = 31;
    let mut problems = Vec::new();
    let (mut line, mut depth, mut rest) = (1, 0_usize, document);
    while let Some(first) = rest.chars().next() {
        let mut note = |reason: &str| problems.push(Problem { line, member: String::new(), reason: reason.to_owned() });
        let mut length = first.len_utf8();
        match first {
            '\n' => line += 1,
            '{' | '[' => {
                depth += 1;
                if depth == MAX_DEPTH + 1 {
                    note("it is nested too deep to be stored");
                }
            }
            '}' | ']' => depth = depth.saturating_sub(1),
            '"' => {
                let mut escaped = false;
                let end = rest[1..].find(|letter| {
                    let ends = letter == '"' && !escaped;
                    escaped = letter == '\\' && !escaped;
                    ends
                });
                length = end.map_or(rest.len(), |end| end + 2);
                if length == 2 && rest[2..].trim_start().starts_with(':') {
                    note("a member without a name cannot be stored");
                }
            }
            '-' | '0'..='9' => {
                let ends = |letter: char| !(letter.is_ascii_digit() || "+-.eE".contains(letter));
                length = rest.find(ends).unwrap_or(rest.len());
                if !is_storable(&rest[..length]) {
                    note("a number is stored with 38 digits at most: make it a text");
                }
            }
            _ => {}
        }
        rest = &rest[length..];
    }
    problems
}

/// Whether `DynamoDB` keeps every digit: 38 of them, from 10^-130 to below 10^126.
fn is_storable(number: &str) -> bool {
    let number = number.trim_start_matches('-');
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let places = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let leading = digits.len() - digits.trim_start_matches('0').len();
    let magnitude = exponent.parse::<i64>().ok().and_then(|exponent| {
        // Of the first digit that counts.
        exponent.checked_add(places(whole.len()) - 1 - places(leading))
    });
    let significant = digits.trim_matches('0').len();
    let fits = |magnitude| (-130..=125).contains(&magnitude);
    significant == 0 || (significant <= 38 && magnitude.is_some_and(fits))
}

/// A request to be answered.
struct Case {
    body: Vec<u8>,
    now: Instant,
    /// Of the example's caller; others have their own.
    history: Option<History>,
}

impl Case {
    /// The documented example, when it begins.
    fn example(now: Instant) -> Self {
        let body = EXAMPLE_REQUEST.as_bytes().to_vec();
        let read = Delivery::read(Webhook::SessionStart, &Verified::known(&body), Source::Webhook, Country::default());
        let now = read.ok().and_then(|delivery| delivery.occurred_at).unwrap_or(now);
        Self { body, now, history: Some(example_history()) }
    }
}

/// The first `session_start` of a stored call, when it came.
async fn stored(opened: &Opened, key: &SessionKey, now: Instant) -> Result<Case, Failure> {
    let call = query(opened, "sessions", key).await?;
    let call = call.first().and_then(|item| item_to_call(key, item));
    if call.is_some_and(|call| call.state == State::Erased) {
        return Err(Failure(format!("{key} is erased: nothing of it is kept")));
    }
    let events = events_of(opened, key, now).await?;
    let started = events.iter().find(|event| text(event, "webhook") == Webhook::SessionStart.name());
    let started = started.ok_or_else(|| Failure(format!("no session_start of {key} is stored")))?;
    let event = read_event(&opened.clients, started).await.map_err(|error| failed(&error))?;
    Ok(Case { body: event.body, now: event.received_at, history: None })
}

/// The functions' own URLs, without tokens.
async fn base_urls(target: &Target) -> Result<BTreeMap<Webhook, String>, Failure> {
    let mut urls = BTreeMap::new();
    match &target.stack {
        Some(name) => {
            let stack = Stack::find(name).await?;
            for webhook in Webhook::ALL {
                urls.insert(webhook, stack.url(webhook)?.to_owned());
            }
        }
        None => {
            let endpoints = local(target.port).await?;
            for webhook in Webhook::ALL {
                let url = endpoints.functions.get(webhook.name()).and_then(|url| url.split('?').next());
                urls.insert(webhook, url.unwrap_or_default().to_owned());
            }
        }
    }
    Ok(urls)
}

/// What a call is answered.
struct Preview {
    profiles: Vec<String>,
    answers: Vec<(Webhook, String)>,
    fallbacks: Vec<(Webhook, Fallback)>,
}

async fn preview(
    opened: &Opened,
    urls: &BTreeMap<Webhook, String>,
    name: &str,
    case: Case,
) -> Result<Preview, Failure> {
    let store = opened.store()?;
    let read =
        Delivery::read(Webhook::SessionStart, &Verified::known(&case.body), Source::Webhook, opened.default_country);
    let delivery = read.map_err(|error| Failure(format!("the request is no session_start: {error}")))?;
    // As a call of this profile would look for them.
    let number = delivery.call.get(Field::LandingNumber);
    let wanted = match name.split_once('#') {
        Some(("bot", id)) => names(Some(id), number),
        Some((_, number)) => names(None, Some(number)),
        None => names(None, None),
    };
    let profiles = store.profiles(&wanted).await.map_err(|error| failed(&error))?;
    let profiles: Vec<Arc<ProfileItem>> = profiles.into_iter().map(Arc::new).collect();
    if profiles.first().is_none_or(|profile| profile.name != name) {
        return Err(Failure(printable(&format!("there is no profile {name}"))));
    }
    let (key, contact) = (&delivery.call.key, delivery.call.get(Field::Contact));
    let own = |webhook| urls.get(&webhook).map(|base| session_url(base, key.id(), TOKEN));
    let (mut answers, mut fallbacks) = (Vec::new(), Vec::new());
    for webhook in [Webhook::SessionStart, Webhook::PreAgentTransfer] {
        let history = match (remembers(&profiles, webhook), &case.history, contact) {
            (false, ..) | (_, None, None) => None,
            (_, Some(_), _) => Some(example_history()),
            (_, None, Some(contact)) => {
                Some(store.history(contact, key, case.now).await.map_err(|error| failed(&error))?)
            }
        };
        let received = Some(Received { delivery: &delivery, body: &case.body });
        let known = Known { received, now: case.now, history };
        let mut answer = Answer::new(&profiles, &known, tokio::time::Instant::now() + TIME);
        let response = if webhook == Webhook::SessionStart {
            success(&session_start::reply(&mut answer, own))
        } else {
            success(&pre_agent_transfer::reply(&mut answer))
        };
        let Body::Text(body) = response.into_body() else { continue };
        answers.push((webhook, body));
        fallbacks.extend(answer.fallbacks.into_iter().map(|fallback| (webhook, fallback)));
    }
    let profiles = profiles.iter().map(|profile| profile.name.clone()).collect();
    Ok(Preview { profiles, answers, fallbacks })
}

impl Preview {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{:<20} {}", "profiles", self.profiles.join(", "))];
        lines.extend(self.answers.iter().map(|(webhook, body)| format!("{:<20} {body}", webhook.name())));
        lines.extend(self.fallbacks.iter().map(|(webhook, fallback)| {
            let Fallback { reason, profile, member, fault } = fallback;
            let mut line = format!("{}: {}", webhook.name(), reason.name());
            for part in [*member, profile.as_deref()].into_iter().flatten() {
                let _ = write!(line, " {part}");
            }
            if let Some(fault) = fault {
                let _ = write!(line, ": {}", fault.reason);
            }
            line
        }));
        lines.iter().map(|line| printable(line)).collect()
    }

    fn as_json(&self) -> String {
        let fallback = |(webhook, fallback): &(Webhook, Fallback)| {
            let Fallback { reason, profile, member, fault } = fallback;
            json!({ "webhook": webhook.name(), "reason": reason.name(), "profile": profile, "member": member,
                "line": fault.as_ref().and_then(|fault| fault.line), "fault": fault.as_ref().map(|fault| &fault.reason) })
        };
        let fallbacks: Vec<_> = self.fallbacks.iter().map(fallback).collect();
        let answers = self
            .answers
            .iter()
            .filter_map(|(webhook, body)| Some((webhook.name().to_owned(), Json::parse(body).ok()?)));
        let mut members: BTreeMap<String, Json> = answers.collect();
        members.insert("profiles".to_owned(), Json::of(&self.profiles));
        members.insert("fallbacks".to_owned(), Json::of(&fallbacks));
        Json::object(&members).into_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_calls_look_for() {
        for text in ["default", "bot#b1", "bot#a#b", "number#+918047000000"] {
            assert_eq!(name(text).as_deref(), Ok(text));
        }
        for text in ["", "Default", "bot", "bot#", "number#", "caller#+91", &format!("bot#{}", "b".repeat(2048))] {
            assert!(name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_the_table_cannot_hold_is_told_with_its_line() {
        for (number, storable) in [
            ("0", true),
            ("-0.000", true),
            ("12345678901234567890123456789012345678", true),
            ("123456789012345678901234567890123456789", false),
            ("-0.00012345678901234567890123456789012345678", true),
            ("1.23456789012345678901234567890123456789", false),
            ("123456789012345678901234567890123456780000", true),
            ("1e125", true),
            ("1e126", false),
            ("10e125", false),
            ("1E-130", true),
            ("0.1e-130", false),
            ("0.01e127", true),
            ("1e99999999999999999999", false),
        ] {
            assert_eq!(is_storable(number), storable, "{number}");
        }
        let long = "1".repeat(39);
        let document = format!(
            "{{\"session_constants\": {{\n\"a\": \"\\\"{long}\",\n\"b\": [{long}],\n\"\": 1,\n\"c\": {}1{}}}}}",
            "[".repeat(30),
            "]".repeat(30)
        );
        let told: Vec<String> = problems(&document).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "line 3: a number is stored with 38 digits at most: make it a text",
                "line 4: a member without a name cannot be stored",
                "line 5: it is nested too deep to be stored",
            ]
        );
    }
}
