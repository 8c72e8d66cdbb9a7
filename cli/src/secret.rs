//! `hookswitch secret`: sets, rotates and retires what a stack's deliveries are verified with, and what the platform is
//! asked with. No value is ever shown.

use std::io::Write;

use clap::{Args, Subcommand};
use rand::distr::{Alphanumeric, SampleString};
use rand::rand_core::UnwrapErr;
use rand::rngs::SysRng;
use shared::auth::{exotel, vocobase};

use crate::Failure;
use crate::stack::{Purpose, Stack};

/// Set, rotate and retire the secrets of a deployed stack.
#[derive(Args, Clone)]
#[command(after_help = "\
Examples:
  hookswitch secret set vocobase --stack hookswitch            asks for the secret, without showing it
  pass vocobase | hookswitch secret set vocobase --stack hookswitch
  hookswitch secret rotate exotel --stack hookswitch           a new key for the tokens in Exotel's URLs
  hookswitch secret retire exotel --stack hookswitch           only the newest key is accepted from now on
  hookswitch secret set vocobase-api-key --stack hookswitch    the reconciler looks for calls that never came
  hookswitch secret retire vocobase-api-key --stack hookswitch    it is off again

A new secret is taken up by the first delivery that needs it; a retired one is accepted for five more minutes at most.
The local run has its secrets from its environment: see `hookswitch dev --help`.

Exit code: 0, or 1 if nothing was changed.")]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone)]
enum Command {
    /// Take a secret that the platform has made, from a prompt or from standard input. Earlier signing secrets stay
    /// accepted.
    Set {
        #[command(flatten)]
        place: Place,
    },
    /// Make a new key for the platform's URLs. Earlier ones stay accepted.
    Rotate {
        #[command(flatten)]
        place: Place,
    },
    /// Accept only the newest from now on; of the API key, forget it.
    Retire {
        #[command(flatten)]
        place: Place,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Args, Clone)]
struct Place {
    /// Which: exotel, vocobase or vocobase-api-key.
    #[arg(value_name = "SECRET", value_parser = purpose)]
    purpose: Purpose,
    /// The deployed stack, with credentials and region as the AWS CLI finds them.
    #[arg(long, value_name = "NAME")]
    stack: String,
}

fn purpose(name: &str) -> Result<Purpose, String> {
    let known = Purpose::ALL.into_iter().find(|purpose| purpose.name() == name);
    known.ok_or_else(|| "not exotel, vocobase or vocobase-api-key".to_owned())
}

/// A key of this length cannot be guessed.
const KEY_LENGTH: usize = 48;

/// Runs the command. `read` gets the secret from the person or the pipe, `ask` answers a question with yes or no.
pub async fn run(
    options: &Options,
    mut out: impl Write,
    read: impl FnOnce(&str) -> std::io::Result<String>,
    ask: impl FnOnce(&str) -> bool,
) -> Result<(), Failure> {
    let (Command::Set { place } | Command::Rotate { place } | Command::Retire { place, .. }) = &options.command;
    let (purpose, name) = (place.purpose, &place.stack);
    let instead = match (&options.command, purpose) {
        (Command::Set { .. }, Purpose::Exotel) => {
            Some("Exotel has no secret to set: a new key is made by `hookswitch secret rotate exotel")
        }
        (Command::Rotate { .. }, Purpose::Vocobase) => {
            Some("Vocobase makes its secrets itself: rotate it there, then `hookswitch secret set vocobase")
        }
        (Command::Rotate { .. }, Purpose::VocobaseApi) => {
            Some("Vocobase makes its API keys itself: make one there, then `hookswitch secret set vocobase-api-key")
        }
        _ => None,
    };
    if let Some(instead) = instead {
        return Err(Failure(format!("{instead} --stack {name}`")));
    }
    let stack = Stack::find(name).await?;
    let done = match &options.command {
        Command::Set { .. } => {
            let api = purpose == Purpose::VocobaseApi;
            let text = read(if api {
                "A key of Vocobase's API (rg_live_...): "
            } else {
                "Vocobase's signing secret (whsec_...): "
            });
            let text = text.map_err(|error| Failure(format!("the secret cannot be read: {error}")))?;
            let secret = accept(&text)?;
            if api { set_api_key(&stack, secret).await? } else { set(&stack, secret).await? }
        }
        Command::Rotate { .. } => rotate(&stack).await?,
        Command::Retire { yes, .. } if purpose == Purpose::VocobaseApi => {
            forget_api_key(&stack, |question| *yes || ask(question)).await?
        }
        Command::Retire { yes, .. } => retire(&stack, purpose, |question| *yes || ask(question)).await?,
    };
    // A closed pipe is a reader that has seen enough.
    let _ = writeln!(out, "{done}");
    Ok(())
}

/// A secret as it was typed or piped, if it can be one. What is wrong with it is said without saying it.
fn accept(text: &str) -> Result<&str, Failure> {
    let secret = text.strip_suffix('\n').unwrap_or(text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    let wrong = match secret.len() {
        0 => "is empty",
        1..8 | 513.. => "is none: those have between 8 and 512 characters",
        _ if secret.contains(',') => "holds a comma: set one secret at a time",
        _ if !secret.bytes().all(|byte| byte.is_ascii_graphic()) => {
            "holds a space, a line break or another character that a secret has not"
        }
        _ => return Ok(secret),
    };
    Err(Failure(format!("the secret {wrong}; nothing was changed")))
}

async fn set(stack: &Stack, secret: &str) -> Result<String, Failure> {
    let held = stack.secret(Purpose::Vocobase).await?;
    let list = in_front(secret, held.as_ref().map(|held| held.text.as_str()));
    if held.as_ref().is_some_and(|held| held.text == list) {
        return Ok("It is the newest already: nothing was changed.".to_owned());
    }
    let earlier = list.split(',').count() - 1;
    stack.replace_secret(Purpose::Vocobase, held.as_ref(), list).await?;
    let mut done = vec![];
    if !secret.starts_with("whsec_") {
        done.push("Warning: it does not begin with whsec_, as Vocobase's secrets do: is it the right one?".to_owned());
    }
    done.push("The secret is set: functions take it up with the first delivery that needs it.".to_owned());
    if earlier > 0 {
        done.push(format!(
            "What was accepted before still is, for deliveries under way: {earlier}. Once none come any more:"
        ));
        done.push(format!("  hookswitch secret retire vocobase --stack {}", stack.name));
    }
    Ok(done.join("\n"))
}

async fn set_api_key(stack: &Stack, key: &str) -> Result<String, Failure> {
    let held = stack.secret(Purpose::VocobaseApi).await?;
    stack.replace_secret(Purpose::VocobaseApi, held.as_ref(), key.to_owned()).await?;
    let odd = if key.starts_with("rg_live_") {
        ""
    } else {
        "Warning: it does not begin with rg_live_, as keys of Vocobase's API do: is it the right one?\n"
    };
    Ok(format!("{odd}The key is set: the reconciler asks with it from its next run on, in 15 minutes at most."))
}

async fn forget_api_key(stack: &Stack, sure: impl FnOnce(&str) -> bool) -> Result<String, Failure> {
    let held = stack.secret(Purpose::VocobaseApi).await?;
    if held.is_none() {
        return Ok("There is none: nothing to retire.".to_owned());
    }
    if !sure("Forget the API key? Calls whose webhook never came will not be looked for.") {
        return Err(Failure("nothing was changed".to_owned()));
    }
    // Secrets Manager keeps no empty text.
    stack.replace_secret(Purpose::VocobaseApi, held.as_ref(), " ".to_owned()).await?;
    Ok("The key is forgotten: the reconciler is off.".to_owned())
}

async fn rotate(stack: &Stack) -> Result<String, Failure> {
    let held = stack.secret(Purpose::Exotel).await?;
    let secret = Alphanumeric.sample_string(&mut UnwrapErr(SysRng), KEY_LENGTH);
    let (kid, list) = with_key(held.as_ref().map(|held| held.text.as_str()), &secret)
        .map_err(|why| Failure(format!("the Exotel secret {why}; nothing was changed")))?;
    stack.replace_secret(Purpose::Exotel, held.as_ref(), list).await?;
    let name = &stack.name;
    Ok(format!(
        "The key {kid} makes the tokens from now on. URLs with earlier tokens stay valid until they are retired.\n\
         Paste the new ones:\n  hookswitch urls --stack {name}\n\
         Once every bot has them, and the calls that begin in the next five minutes are over:\n  \
         hookswitch secret retire exotel --stack {name}"
    ))
}

async fn retire(stack: &Stack, purpose: Purpose, sure: impl FnOnce(&str) -> bool) -> Result<String, Failure> {
    let held = stack.secret(purpose).await?;
    let held = held.ok_or_else(|| Failure(format!("the {} secret holds no value", purpose.name())))?;
    let exotel = purpose == Purpose::Exotel;
    let newest = if exotel { newest_key(&held.text) } else { newest_signing_secret(&held.text) };
    let (newest, earlier) =
        newest.map_err(|why| Failure(format!("the {} secret {why}; nothing was changed", purpose.name())))?;
    if earlier == 0 {
        return Ok("There is one only: nothing to retire.".to_owned());
    }
    let question = if exotel {
        format!("Retire {earlier} earlier keys? URLs with their tokens will be refused.")
    } else {
        format!("Retire {earlier} earlier secrets? Deliveries that are signed with them will be refused.")
    };
    if !sure(&question) {
        return Err(Failure("nothing was changed".to_owned()));
    }
    stack.replace_secret(purpose, Some(&held), newest).await?;
    Ok(format!("Only the newest is accepted from now on, in five minutes at most; retired: {earlier}."))
}

/// A Vocobase secret before those that are accepted already.
fn in_front(secret: &str, held: Option<&str>) -> String {
    let earlier = held.unwrap_or_default().split(',').map(str::trim);
    let earlier = earlier.filter(|earlier| !earlier.is_empty() && *earlier != secret);
    std::iter::once(secret).chain(earlier).collect::<Vec<_>>().join(",")
}

/// An Exotel key under the next free name, before those that are accepted already.
fn with_key(held: Option<&str>, secret: &str) -> Result<(String, String), &'static str> {
    let Some(held) = held else {
        let kid = exotel::FIRST_KID;
        return Ok((kid.to_owned(), format!("{kid}:{secret}")));
    };
    let known = exotel::secrets(held)?;
    let number = |(kid, _): &(String, _)| kid.strip_prefix('k')?.parse::<u32>().ok();
    // One above the highest: what an old URL names never means another key.
    let kid = format!("k{}", known.iter().filter_map(number).max().map_or(1, |highest| u64::from(highest) + 1));
    let list = format!("{kid}:{secret},{}", named(held));
    Ok((kid, list))
}

/// The newest of Exotel's keys, as it is to be kept, and how many there are besides.
fn newest_key(held: &str) -> Result<(String, usize), &'static str> {
    Ok((first(&named(held)), exotel::secrets(held)?.len() - 1))
}

/// The newest of Vocobase's signing secrets, and how many there are besides.
fn newest_signing_secret(held: &str) -> Result<(String, usize), &'static str> {
    Ok((first(held), vocobase::secrets(held)?.len() - 1))
}

fn first(list: &str) -> String {
    list.split(',').next().unwrap_or_default().trim().to_owned()
}

/// Exotel's keys with their names: the one that the stack made has none.
fn named(held: &str) -> String {
    if held.contains(':') { held.trim().to_owned() } else { format!("{}:{}", exotel::FIRST_KID, held.trim()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_vocobase_secret_comes_first_and_once() {
        assert_eq!(in_front("whsec_b", None), "whsec_b");
        assert_eq!(in_front("whsec_b", Some("whsec_a")), "whsec_b,whsec_a");
        assert_eq!(in_front("whsec_a", Some("whsec_b, whsec_a")), "whsec_a,whsec_b");
        assert_eq!(newest_signing_secret("whsec_b,whsec_a"), Ok(("whsec_b".to_owned(), 1)));
    }

    #[test]
    fn a_new_exotel_key_has_a_name_that_no_url_names_yet() {
        let text = |held| with_key(held, "new").map(|(_, text)| text);
        assert_eq!(text(None).as_deref(), Ok("k1:new"));
        assert_eq!(text(Some("generated\n")).as_deref(), Ok("k2:new,k1:generated"));
        assert_eq!(text(Some("k7:c,mine:b,k2:a")).as_deref(), Ok("k8:new,k7:c,mine:b,k2:a"));
        assert_eq!(text(Some("mine:b")).as_deref(), Ok("k1:new,mine:b"));
        assert!(text(Some("k1:a,b")).is_err());
        // The name stays: as a bare text it would be k1 again.
        assert_eq!(newest_key("k2:b,k1:a"), Ok(("k2:b".to_owned(), 1)));
        assert_eq!(newest_key("generated"), Ok(("k1:generated".to_owned(), 0)));
    }

    #[test]
    fn what_cannot_be_a_signing_secret_is_refused_without_repeating_it() {
        for text in
            ["", "\n", "short", "hunter2 hunter2", "hunter2,hunter2", "hunter2hunter2\nhunter2", "hunter2hünter2"]
        {
            let error = accept(text).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(accept(&"x".repeat(513)).is_err());
        assert_eq!(accept("whsec_0123456789\r\n").unwrap(), "whsec_0123456789");
    }
}
