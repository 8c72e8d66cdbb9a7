//! Any text as the URL of a recording: what is fetched is on the list, whoever reads the URL.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use recording_archiver::source::{Hosts, is_public};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    list: u8,
    address: u128,
    parts: Vec<Part<'a>>,
    rest: &'a str,
}

/// A URL is these parts and the rest.
#[derive(Arbitrary, Debug)]
enum Part<'a> {
    Https,
    Http,
    Bucket,
    S3,
    Region,
    Dualstack,
    AmazonAws,
    Exactly,
    Below,
    Dot,
    At,
    Colon,
    Port,
    OtherPort,
    Slash,
    Backslash,
    Question,
    Hash,
    Address,
    Text(&'a str),
}

impl Part<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Https => "https://",
            Self::Http => "http://",
            Self::Bucket => "a.bucket",
            Self::S3 => "s3",
            Self::Region => "ap-south-1",
            Self::Dualstack => "dualstack",
            Self::AmazonAws => "amazonaws.com",
            Self::Exactly => "media.vocobase.example",
            Self::Below => "recordings.example",
            Self::Dot => ".",
            Self::At => "@",
            Self::Colon => ":",
            Self::Port => ":443",
            Self::OtherPort => ":8443",
            Self::Slash => "/",
            Self::Backslash => "\\",
            Self::Question => "?",
            Self::Hash => "#",
            Self::Address => "0x7f.1",
            Self::Text(text) => text,
        }
    }
}

const LISTS: [&str; 4] =
    ["s3", "media.vocobase.example", "*.recordings.example", "s3, Media.Vocobase.example,*.recordings.example"];

fuzz_target!(|input: Input| {
    check_address(input.address);
    // Not one that can be read but has no sense, either.
    let _ = Hosts::parse(input.rest);

    let list = usize::from(input.list) % LISTS.len();
    let hosts = Hosts::parse(LISTS[list]).expect("a list");
    let mut text: String = input.parts.iter().map(Part::text).collect();
    text.push_str(input.rest);
    let Ok(url) = hosts.check(&text) else { return };
    let host = url.host_str().expect("a host");
    let s3 = is_s3(host);
    let exactly = host == "media.vocobase.example";
    let below = host.ends_with(".recordings.example");
    assert!([s3, exactly, below, s3 || exactly || below][list], "{host} is not on the list");
    assert!(host.parse::<IpAddr>().is_err());
    assert_eq!((url.scheme(), url.port_or_known_default()), ("https", Some(443)));
    assert!(url.username().is_empty() && url.password().is_none());

    // What is sent is the URL as it was read, and others read it likewise: by RFC 3986 the authority ends at the first of
    // these, and the HTTP client has a parser of its own.
    let (authority, _) = url.as_str()["https://".len()..].split_once(['/', '?', '#']).expect("a path");
    assert_eq!(authority, host);
    assert_eq!(hosts.check(url.as_str()).as_ref(), Ok(&url));
    if let Ok(uri) = url.as_str().parse::<http::Uri>() {
        assert_eq!((uri.host(), uri.port_u16(), uri.scheme_str()), (Some(host), None, Some("https")));
    }
});

/// As S3's documentation has it, by other means than the code.
fn is_s3(host: &str) -> bool {
    let Some(labels) = host.strip_suffix(".amazonaws.com").map(|rest| rest.rsplit('.').collect::<Vec<_>>()) else {
        return false;
    };
    let is_region = |label: &str| {
        let (area, number) = label.rsplit_once('-').unwrap_or_default();
        !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
            && (1..=2).contains(&area.matches('-').count())
    };
    labels[0] == "s3"
        || is_region(labels[0]) && (labels.get(1) == Some(&"s3") || labels.get(1..3) == Some(&["dualstack", "s3"]))
}

/// An IPv4 address is as public as the IPv6 address that stands for it, and what only this machine or network has is
/// not.
fn check_address(bits: u128) {
    // The last four bytes.
    let v4 = Ipv4Addr::from_bits(bits as u32);
    let v6 = Ipv6Addr::from_bits(bits);
    assert_eq!(is_public(v4.into()), is_public(v4.to_ipv6_mapped().into()));
    if is_public(v4.into()) {
        assert!(!v4.is_private() && !v4.is_loopback() && !v4.is_link_local() && !v4.is_broadcast());
        assert!(!v4.is_unspecified() && !v4.is_multicast() && !v4.is_documentation());
    }
    if is_public(v6.into()) && v6.to_ipv4_mapped().is_none() {
        assert!(!v6.is_loopback() && !v6.is_unspecified() && !v6.is_multicast());
        assert!(!v6.is_unique_local() && !v6.is_unicast_link_local());
    }
}
