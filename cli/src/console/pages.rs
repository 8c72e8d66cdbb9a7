//! The templates, and how they write what they are given. Everything that is not made here is escaped.

use std::fmt::Write;

use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, context};
use shared::Instant;

use super::Place;
use crate::Failure;

const PAGES: [(&str, &str); 9] = [
    ("layout.html", include_str!("pages/layout.html")),
    ("list.html", include_str!("pages/list.html")),
    ("call.html", include_str!("pages/call.html")),
    ("recordings.html", include_str!("pages/recordings.html")),
    ("quarantine.html", include_str!("pages/quarantine.html")),
    ("delivery.html", include_str!("pages/delivery.html")),
    ("undelivered.html", include_str!("pages/undelivered.html")),
    ("totals.html", include_str!("pages/totals.html")),
    ("problem.html", include_str!("pages/problem.html")),
];

/// 24 by 24, drawn with a line.
const ICONS: [(&str, &str); 15] = [
    ("calls", "M5 4h4l2 5-2.5 1.5a11 11 0 0 0 5 5L15 13l5 2v4a2 2 0 0 1-2 2A16 16 0 0 1 3 6a2 2 0 0 1 2-2z"),
    ("recordings", "M4 12v0M8 8v8M12 4v16M16 8v8M20 11v2"),
    ("quarantine", "M12 3l8 3v6c0 5-3.5 8-8 9-4.5-1-8-4-8-9V6zM12 8v4M12 16v.01"),
    ("undelivered", "M3 7h18v12H3zM3 8l9 6 9-6"),
    ("totals", "M5 20V11M12 20V4M19 20v-7"),
    ("transfer", "M4 8h14M14 4l4 4-4 4M20 16H6M10 12l-4 4 4 4"),
    ("download", "M12 4v11M7 11l5 5 5-5M5 20h14"),
    ("copy", "M9 9h10v11H9zM5 15V4h10"),
    ("search", "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zM15.5 15.5L20 20"),
    ("retry", "M4 12a8 8 0 1 1 2.5 5.8M4 20v-5h5"),
    ("next", "M9 5l7 7-7 7"),
    ("back", "M15 5l-7 7 7 7"),
    ("sound", "M5 10v4h3l4 4V6L8 10zM16 9a4 4 0 0 1 0 6"),
    ("inbound", "M18 6L7 17M7 9v8h8"),
    ("outbound", "M6 18L17 7M9 7h8v8"),
];

pub(super) struct Pages(Environment<'static>);

impl Pages {
    pub(super) fn new() -> Result<Self, Failure> {
        let mut pages = Environment::new();
        pages.add_filter("time", time);
        pages.add_filter("seconds", |seconds: f64| duration(seconds));
        pages.add_filter("clock", |seconds: f64| clock(seconds));
        pages.add_filter("bytes", bytes);
        pages.add_filter("count", |count: u64| grouped(count));
        pages.add_filter("number", |number: f64| number.to_string());
        pages.add_filter("words", |name: &str| name.replace('_', " "));
        pages.add_function("icon", icon);
        for (name, source) in PAGES {
            let added = pages.add_template(name, source);
            added.map_err(|error| Failure(format!("the page {name} is no template: {error:#}")))?;
        }
        Ok(Self(pages))
    }

    /// A whole page: `context` for its own template, which may set `title` and `here`, inside the layout.
    pub(super) fn render(&self, page: &str, place: &Place, context: &Value) -> Result<String, Error> {
        let body = self.0.get_template(page)?.render(context)?;
        let section = page.trim_end_matches(".html");
        let layout = context! {
            title => context.get_attr("title")?, section, place => Value::from_serialize(place),
            body => Value::from_safe_string(body),
        };
        self.0.get_template("layout.html")?.render(layout)
    }
}

/// An instant, for the reader's own clock where there is a script: `date`, `day` or `time` of it are shown.
fn time(at: &str, shown: Option<&str>) -> Result<Value, Error> {
    let at = Instant::parse(at).ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "no instant"))?.to_string();
    let (shown, text) = match shown {
        Some("time") => ("time", &at[11..19]),
        Some("day") => ("day", &at[..10]),
        _ => ("full", &*format!("{} {}", &at[..10], &at[11..19])),
    };
    let text = format!(
        r#"<time datetime="{at}" data-shown="{shown}" title="{} UTC">{text}</time>"#,
        at[..19].replace('T', " ")
    );
    Ok(Value::from_safe_string(text))
}

/// As people say how long something took: `42s`, `2m 05s`, `1h 02m`.
pub(super) fn duration(seconds: f64) -> String {
    let whole = whole(seconds.max(0.0));
    match whole {
        0..60 => format!("{whole}s"),
        60..3_600 => format!("{}m {:02}s", whole / 60, whole % 60),
        _ => format!("{}h {:02}m", whole / 3_600, whole % 3_600 / 60),
    }
}

/// As a player counts: `0:42`, `1:02:03`.
fn clock(seconds: f64) -> String {
    // What is half over has not begun to be the next second.
    let whole = whole((seconds - 0.5).max(0.0));
    let (hours, minutes, seconds) = (whole / 3_600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is not negative, and saturates")]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

#[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}

/// `12,345`.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn icon(name: &str) -> Result<Value, Error> {
    let (_, path) = ICONS
        .iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "no such icon"))?;
    let mut svg = String::new();
    let _ = write!(svg, r#"<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d="{path}"/></svg>"#);
    Ok(Value::from_safe_string(svg))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_a_template() {
        Pages::new().unwrap();
    }

    #[test]
    fn times_are_written_as_people_say_and_players_count_them() {
        let said = |seconds| (duration(seconds), clock(seconds));
        let both = |one: &str, two: &str| (one.to_owned(), two.to_owned());
        assert_eq!(said(-1.0), both("0s", "0:00"));
        assert_eq!(said(59.4), both("59s", "0:59"));
        assert_eq!(said(125.0), both("2m 05s", "2:05"));
        assert_eq!(said(3_725.0), both("1h 02m", "1:02:05"));
        assert_eq!((bytes(999), bytes(45_120), bytes(1_234_567)), ("999 B".into(), "45.1 kB".into(), "1.2 MB".into()));
        assert_eq!((grouped(0), grouped(999), grouped(1_234_567)), ("0".into(), "999".into(), "1,234,567".into()));
    }

    #[test]
    fn an_instant_is_shown_in_part_and_said_in_full() {
        let shown = time("2026-03-15T14:30:01.5Z", Some("time")).unwrap().to_string();
        assert_eq!(
            shown,
            r#"<time datetime="2026-03-15T14:30:01.500000Z" data-shown="time" title="2026-03-15 14:30:01 UTC">14:30:01</time>"#
        );
        assert!(time("soon", None).is_err());
    }
}
