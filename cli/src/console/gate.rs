//! Who is let in: requests that call this machine by its own name and come from the console's own pages or from a
//! person's address bar, and, where a stack is looked into, from the browser that opened the link that was printed.

use std::sync::Mutex;

use http::{HeaderMap, Method, Request, header};
use sha2::{Digest, Sha256};

use crate::dev::is_local;

/// What a browser says of where a request comes from. Source: Fetch Metadata Request Headers, W3C.
const SITE: &str = "sec-fetch-site";

/// The way in.
pub(super) enum Gate {
    /// The local run: whoever is on this machine may look.
    Open,
    /// Whoever has the printed link, once, and then that browser.
    Link {
        /// Until it was used.
        token: Mutex<Option<String>>,
        /// What that browser shows from then on: `<name>=<value>`.
        cookie: String,
    },
}

/// What comes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passage {
    /// It is answered.
    Granted,
    /// The link was used for the first time: the browser gets this cookie, and goes on without the token.
    Opened(String),
    /// It is not answered, and why.
    Refused(&'static str),
}

impl Gate {
    /// A gate that one link opens, and that link's token. Cookies know no ports: the name tells consoles apart.
    pub(super) fn with_link(port: u16) -> (Self, String) {
        let random = || hex::encode(rand::random::<[u8; 16]>());
        let token = random();
        let cookie = format!("hookswitch_console_{port}={}", random());
        (Self::Link { token: Mutex::new(Some(token.clone())), cookie }, token)
    }

    /// Decides by the head of a request. `token` is the one in its URL.
    pub(super) fn pass<B>(&self, request: &Request<B>, token: Option<&str>) -> Passage {
        if !is_local(request) {
            return Passage::Refused("Ask as 127.0.0.1 or localhost.");
        }
        if !is_from_here(request) {
            return Passage::Refused(
                "The request comes from another page. Type the address, or open it from the terminal.",
            );
        }
        let Self::Link { token: unused, cookie } = self else { return Passage::Granted };
        if let Some(token) = token.filter(|_| request.method() == Method::GET) {
            let mut unused = unused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if unused.as_ref().is_some_and(|unused| same(unused, token)) {
                *unused = None;
                return Passage::Opened(cookie.clone());
            }
        }
        if cookies(request.headers()).any(|shown| same(shown, cookie)) {
            return Passage::Granted;
        }
        Passage::Refused(
            "Open the link that `hookswitch console` printed. It works once: start the command again for another.",
        )
    }
}

/// Whether no other site's page made this request. What changes something must say that one of the console's pages did.
fn is_from_here<B>(request: &Request<B>) -> bool {
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap_or("?"));
    let own = header(header::HOST.as_str()).map(|host| format!("http://{host}"));
    let origin = header(header::ORIGIN.as_str());
    if origin.is_some() && origin != own.as_deref() {
        return false;
    }
    match header(SITE) {
        Some("same-origin") => true,
        Some("none") => is_read(request.method()),
        Some(_) => false,
        None => is_read(request.method()) || origin.is_some(),
    }
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).map(str::trim)
}

/// Compares digests: how long that takes says nothing of the secret.
fn same(one: &str, two: &str) -> bool {
    Sha256::digest(one) == Sha256::digest(two)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, headers: &[(&str, &str)]) -> Request<()> {
        let request = Request::builder().method(method).uri("/console/").header("host", "127.0.0.1:9000");
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).unwrap()
    }

    #[test]
    fn what_another_site_makes_a_browser_ask_is_refused() {
        let passes = |method: Method, headers: &[(&str, &str)]| {
            Gate::Open.pass(&request(method, headers), None) == Passage::Granted
        };
        let (own, other) = (("origin", "http://127.0.0.1:9000"), ("origin", "http://evil.example"));
        let (here, typed) = ((SITE, "same-origin"), (SITE, "none"));
        for (method, headers, expected) in [
            (Method::GET, &[][..], true),
            (Method::GET, &[typed], true),
            (Method::GET, &[here], true),
            (Method::GET, &[own], true),
            (Method::GET, &[other], false),
            (Method::GET, &[("origin", "null")], false),
            (Method::GET, &[("origin", "http://127.0.0.1:9001")], false),
            (Method::GET, &[(SITE, "cross-site")], false),
            (Method::GET, &[(SITE, "same-site")], false),
            (Method::POST, &[], false),
            (Method::POST, &[typed], false),
            (Method::POST, &[other], false),
            (Method::POST, &[other, here], false),
            (Method::POST, &[own, (SITE, "same-site")], false),
            (Method::POST, &[here], true),
            (Method::POST, &[own], true),
            (Method::POST, &[own, here], true),
        ] {
            assert_eq!(passes(method.clone(), headers), expected, "{method} {headers:?}");
        }
    }

    #[test]
    fn a_link_opens_the_gate_once_and_only_for_who_shows_the_cookie_then() {
        let (gate, token) = Gate::with_link(9000);
        let get = |cookie: Option<&str>, token: Option<&str>| {
            let headers: Vec<_> = cookie.map(|cookie| ("cookie", cookie)).into_iter().collect();
            gate.pass(&request(Method::GET, &headers), token)
        };
        assert!(matches!(get(None, None), Passage::Refused(_)));
        assert!(matches!(get(None, Some("0123456789abcdef")), Passage::Refused(_)));
        // Only a person who opens the link uses it up.
        let head = gate.pass(&request(Method::HEAD, &[]), Some(&token));
        assert!(matches!(head, Passage::Refused(_)));
        let Passage::Opened(cookie) = get(None, Some(&token)) else { panic!("the link opens it") };
        assert!(matches!(get(None, Some(&token)), Passage::Refused(_)));
        assert!(matches!(get(Some("hookswitch_console_9000=other"), None), Passage::Refused(_)));
        assert_eq!(get(Some(&cookie), None), Passage::Granted);
        assert_eq!(get(Some(&format!("theme=dark; {cookie}")), None), Passage::Granted);
        assert_eq!(get(Some(&cookie), Some(&token)), Passage::Granted);
        let other = Gate::with_link(9000).0;
        let shown = other.pass(&request(Method::GET, &[("cookie", &cookie)]), None);
        assert!(matches!(shown, Passage::Refused(_)));
    }
}
