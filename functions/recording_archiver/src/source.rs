//! Where a recording may be fetched from. The URL comes from a webhook, so it is what an attacker would choose: only
//! HTTPS on 443, only hosts on the list, only public addresses, and the same again for every redirect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Response, header};
use tokio::time::Instant;
use url::{Host, Url};

/// The word in `RECORDING_HOSTS` that stands for S3's endpoints.
const S3: &str = "s3";

/// Hosts that recordings may be fetched from.
#[derive(Debug, Clone)]
pub struct Hosts(Vec<Pattern>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    /// S3's endpoints: virtual-hosted and path style, regional, dual-stack. Nothing else of amazonaws.com.
    S3,
    /// This host.
    Exactly(String),
    /// Any host below this domain.
    Below(String),
}

/// Why a URL is not fetched. Names the host at most: the rest of the URL is a credential.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It is no URL.
    #[error("the recording's address is not a URL")]
    NoUrl,
    /// Anything but `https:` on port 443.
    #[error("the recording's URL is not https on port 443")]
    NotHttps,
    /// It has a user name or password.
    #[error("the recording's URL has a user name or password")]
    UserInfo,
    /// An address, or a name that ends in a dot.
    #[error("the recording's host {0} is not a plain name")]
    NoName(String),
    /// Not on the list.
    #[error("the recording's host {0} is not allowed: add it to RECORDING_HOSTS if it should be")]
    Host(String),
    /// It resolves to an address of a private network.
    #[error("the recording's host {0} has no public address")]
    Private(String),
}

impl Hosts {
    /// Reads `RECORDING_HOSTS`: names, `*.example.com` for everything below a domain, and `s3` for S3's endpoints,
    /// separated by commas. `None` if a part is none of these.
    pub fn parse(list: &str) -> Option<Self> {
        list.split(',').map(|part| pattern(part.trim())).collect::<Option<Vec<_>>>().map(Self)
    }

    /// S3's endpoints.
    pub fn s3() -> Self {
        Self(vec![Pattern::S3])
    }

    /// Checks everything that can be known of a URL without a connection.
    pub fn check(&self, url: &str) -> Result<Url, Rejected> {
        let url = Url::parse(url).map_err(|_| Rejected::NoUrl)?;
        // `port` is `None` where it is the scheme's own.
        if url.scheme() != "https" || url.port().is_some() {
            return Err(Rejected::NotHttps);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Rejected::UserInfo);
        }
        // Decimal, octal and hexadecimal spellings of an address have become addresses by now.
        let host = match url.host() {
            Some(Host::Domain(name)) if !name.ends_with('.') => name,
            Some(host) => return Err(Rejected::NoName(host.to_string())),
            None => return Err(Rejected::NoUrl),
        };
        if self.0.iter().any(|pattern| pattern.matches(host)) { Ok(url) } else { Err(Rejected::Host(host.to_owned())) }
    }
}

fn pattern(part: &str) -> Option<Pattern> {
    let name = part.to_ascii_lowercase();
    let is_name = |name: &str| {
        name.split('.').count() > 1
            && name.split('.').all(|label| {
                !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            })
            && name.parse::<Ipv4Addr>().is_err()
    };
    match name.strip_prefix("*.") {
        Some(domain) => is_name(domain).then(|| Pattern::Below(domain.to_owned())),
        None if name == S3 => Some(Pattern::S3),
        None => is_name(&name).then_some(Pattern::Exactly(name)),
    }
}

impl Pattern {
    fn matches(&self, host: &str) -> bool {
        match self {
            Self::S3 => is_s3(host),
            Self::Exactly(name) => host == name,
            Self::Below(domain) => {
                host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
        }
    }
}

/// `[<bucket>.]s3[.dualstack][.<region>].amazonaws.com`. Source: Amazon S3 User Guide, "Methods for accessing a bucket"
/// and "Using dual-stack endpoints". A bucket's name may hold dots, but no label of it stands right of `s3`.
fn is_s3(host: &str) -> bool {
    let Some(rest) = host.strip_suffix(".amazonaws.com") else { return false };
    let labels: Vec<&str> = rest.split('.').collect();
    let is_region = |label: &str| {
        let parts: Vec<&str> = label.split('-').collect();
        (3..=4).contains(&parts.len())
            && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric()))
            && parts.last().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()))
    };
    match labels.as_slice() {
        [.., "s3"] => true,
        [.., "s3", "dualstack", region] | [.., "s3", region] => is_region(region),
        _ => false,
    }
}

/// Whether an address is one of the public internet: what it is not is as good as inside our network. Source: IANA's
/// special-purpose address registries for IPv4 and IPv6.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || (a == 100 && (64..128).contains(&b)) // shared by carriers
        || (a == 192 && b == 0 && c == 0) // protocol assignments
        || (a == 192 && b == 88 && c == 99) // 6to4 relays
        || (a == 198 && (18..20).contains(&b)) // benchmarks
        || a >= 224) // multicast, reserved, broadcast
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    let segments = address.segments();
    // Only 2000::/3 is global unicast; of that, what is for documentation or carries IPv4 addresses inside is not ours
    // to follow.
    (segments[0] & 0xe000) == 0x2000
        && !(segments[0] == 0x2001 && segments[1] < 0x0200) // protocol assignments, Teredo
        && !(segments[0] == 0x2001 && segments[1] == 0x0db8)
        && !(segments[0] == 0x3fff && segments[1] < 0x1000)
        && segments[0] != 0x2002 // 6to4
}

/// Why a source gave no recording, in words for an operator.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// It may not be fetched from there.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// 403, 404 or 410: no longer, or not yet.
    #[error("the source answered {0}")]
    Refused(u16),
    /// 429 or 5xx, and when to come again, in seconds.
    #[error("the source is busy: it answered {0}")]
    Busy(u16, Option<u64>),
    /// Any other answer.
    #[error("the source answered {0}, which is no recording")]
    Odd(u16),
    /// More than three redirects, or one to nowhere.
    #[error("the source redirects without end")]
    Redirects,
    /// No connection.
    #[error("the source cannot be reached")]
    Unreachable,
    /// The connection broke.
    #[error("the connection to the source broke again and again")]
    Cut,
    /// It sends, but hardly anything.
    #[error("the source is too slow")]
    Slow,
    /// It is not the recording that was begun: read from the beginning.
    #[error("the source changed while it was read")]
    Changed,
    /// Longer than is taken.
    #[error("the recording is over {0} bytes")]
    TooLong(u64),
    /// Not what the source itself says it is.
    #[error("the recording does not have the checksum that the source names")]
    Checksum,
}

/// What identifies a recording at its source while it is read, and what the source says of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Version {
    /// A strong entity tag.
    pub etag: Option<String>,
    /// Bytes in all.
    pub length: Option<u64>,
    /// As declared.
    pub content_type: Option<String>,
    /// `x-amz-checksum-sha256` of a whole object, base64.
    sha256: Option<String>,
    /// An entity tag that is the content's MD5, as hex.
    pub(crate) md5: Option<String>,
}

/// Of a whole recording.
#[derive(Debug, Clone, Copy)]
pub struct Digests {
    /// SHA-256.
    pub sha256: [u8; 32],
    /// MD5, which S3's entity tags are made of, where the source names one.
    pub md5: Option<[u8; 16]>,
}

impl Version {
    /// Compares the content's hashes with those that the source names, where it does.
    pub fn verify(&self, found: &Digests) -> Result<(), Trouble> {
        let sha256 = self.sha256.as_ref().is_none_or(|named| *named == BASE64.encode(found.sha256));
        let md5 = self.md5.as_ref().is_none_or(|named| found.md5.is_some_and(|md5| *named == hex::encode(md5)));
        if sha256 && md5 { Ok(()) } else { Err(Trouble::Checksum) }
    }
}

/// Looks a host name up.
pub type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// How patient the archiver is with a source.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest recording, in bytes.
    pub max_bytes: u64,
    /// To connect.
    pub connect: Duration,
    /// To the first byte of an answer, and between any two.
    pub stall: Duration,
    /// In each of these spans at least `slow_bytes` must come.
    pub slow_span: Duration,
    /// See `slow_span`.
    pub slow_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 5 * 1024 * 1024 * 1024,
            connect: Duration::from_secs(5),
            stall: Duration::from_secs(20),
            slow_span: Duration::from_secs(30),
            slow_bytes: 256 * 1024,
        }
    }
}

/// Fetches recordings, under the rules above.
pub struct Sources {
    hosts: Hosts,
    limits: Limits,
    client: reqwest::Client,
    loopback: bool,
}

/// The client cannot be built: a CA file that holds no certificates.
#[derive(Debug, thiserror::Error)]
#[error("RECORDING_CA_FILE holds no certificate that can be read")]
pub struct BadCertificates;

const REDIRECTS: usize = 3;

impl Sources {
    /// Sources on the public internet. `lookup` resolves names; `ca` holds further root certificates, as PEM.
    pub fn public(hosts: Hosts, limits: Limits, lookup: Lookup, ca: Option<&[u8]>) -> Result<Self, BadCertificates> {
        let client = client(limits, ca)?.dns_resolver(Arc::new(PublicOnly(lookup)));
        Ok(Self { hosts, limits, client: client.build().map_err(|_| BadCertificates)?, loopback: false })
    }

    /// The same, and plain HTTP on this machine's own loopback: for the local run, which calls this. Nothing that a
    /// deployed function reads can.
    pub fn and_loopback(hosts: Hosts, limits: Limits, lookup: Lookup) -> Result<Self, BadCertificates> {
        Ok(Self { loopback: true, ..Self::public(hosts, limits, lookup, None)? })
    }

    /// Opens a recording from byte `from` on; `known` is what was found when it was opened first.
    pub async fn open(&self, url: &str, from: u64, known: Option<&Version>) -> Result<Stream, Trouble> {
        if from > 0 && known.is_none_or(|known| known.etag.is_none()) {
            // Nothing would tell whether the rest belongs to what was read: from the beginning, then.
            return Err(Trouble::Changed);
        }
        let mut url = self.check(url)?;
        for _ in 0..=REDIRECTS {
            let mut request = self.client.get(url.clone());
            if let Some(known) = known.filter(|_| from > 0) {
                request = request.header(header::RANGE, format!("bytes={from}-"));
                if let Some(etag) = &known.etag {
                    request = request.header(header::IF_MATCH, etag);
                }
            }
            let response = request.send().await.map_err(|error| unreachable(&error, &url))?;
            if response.status().is_redirection() {
                let target = response.headers().get(header::LOCATION).and_then(|target| target.to_str().ok());
                let target = target.and_then(|target| url.join(target).ok()).ok_or(Trouble::Redirects)?;
                url = self.check(target.as_str())?;
                continue;
            }
            return self.stream(response, from, known);
        }
        Err(Trouble::Redirects)
    }

    fn check(&self, url: &str) -> Result<Url, Rejected> {
        if self.loopback
            && let Ok(url) = Url::parse(url)
            && url.scheme() == "http"
            && matches!(url.host(), Some(Host::Ipv4(Ipv4Addr::LOCALHOST)))
        {
            return Ok(url);
        }
        self.hosts.check(url)
    }

    fn stream(&self, response: Response, from: u64, known: Option<&Version>) -> Result<Stream, Trouble> {
        let text = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        let etag = text("etag").filter(|etag| etag.starts_with('"'));
        match response.status().as_u16() {
            200 if from == 0 => {
                let length = text("content-length").and_then(|length| length.parse().ok());
                if length.is_some_and(|length| length > self.limits.max_bytes) {
                    return Err(Trouble::TooLong(self.limits.max_bytes));
                }
                let whole = text("x-amz-checksum-type").is_none_or(|kind| kind == "FULL_OBJECT");
                let sha256 = text("x-amz-checksum-sha256").filter(|sum| whole && !sum.contains('-'));
                // S3 says whose tag it is, and how it was encrypted: only without a key of KMS or the customer, and not
                // in parts (those tags have a dash), is it the MD5 of the content.
                let s3 = text("server").is_some_and(|server| server == "AmazonS3");
                let plain = text("x-amz-server-side-encryption").is_none_or(|kind| kind == "AES256")
                    && text("x-amz-server-side-encryption-customer-algorithm").is_none();
                let is_md5 = |tag: &String| tag.len() == 32 && tag.bytes().all(|byte| byte.is_ascii_hexdigit());
                let md5 =
                    etag.as_ref().map(|tag| tag.trim_matches('"').to_owned()).filter(|tag| s3 && plain && is_md5(tag));
                let version = Version { etag, length, content_type: text("content-type"), sha256, md5 };
                Ok(Stream::new(response, version, from, self.limits))
            }
            206 if from > 0 => {
                let version = known.cloned().unwrap_or_default();
                let (first, total) =
                    text("content-range").as_deref().and_then(content_range).ok_or(Trouble::Changed)?;
                let same_length = version.length.is_none() || total.is_none() || total == version.length;
                if first != from || !same_length || etag != version.etag {
                    return Err(Trouble::Changed);
                }
                Ok(Stream::new(response, version, from, self.limits))
            }
            // It does not do ranges, or not from there, or it is another recording by now.
            200 | 206 | 412 | 416 => Err(Trouble::Changed),
            status @ (401 | 403 | 404 | 410) => Err(Trouble::Refused(status)),
            status @ (408 | 425 | 429 | 500..) => {
                Err(Trouble::Busy(status, text("retry-after").and_then(|seconds| seconds.trim().parse().ok())))
            }
            status => Err(Trouble::Odd(status)),
        }
    }
}

/// `bytes 5-9/10` → (5, 10).
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()))
}

fn client(limits: Limits, ca: Option<&[u8]>) -> Result<reqwest::ClientBuilder, BadCertificates> {
    // That one is installed already is what this wants.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .connect_timeout(limits.connect)
        .read_timeout(limits.stall);
    if let Some(pem) = ca {
        let certificates = reqwest::Certificate::from_pem_bundle(pem).map_err(|_| BadCertificates)?;
        if certificates.is_empty() {
            return Err(BadCertificates);
        }
        client = client.tls_certs_merge(certificates);
    }
    Ok(client)
}

/// Resolves to public addresses only. It is asked at each connect, and the connection goes to what it answers: a name
/// that changes its mind in between gains nothing.
struct PublicOnly(Lookup);

/// A name without any public address.
#[derive(Debug, thiserror::Error)]
#[error("no public address")]
struct NoPublicAddress;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let found = (self.0)(name.as_str().to_owned());
        Box::pin(async move {
            let public: Vec<SocketAddr> = found.await?.into_iter().filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(NoPublicAddress.into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

fn unreachable(error: &reqwest::Error, url: &Url) -> Trouble {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.is::<NoPublicAddress>() {
            return Rejected::Private(url.host_str().unwrap_or_default().to_owned()).into();
        }
        cause = error.source();
    }
    Trouble::Unreachable
}

/// A recording that is being read.
pub struct Stream {
    /// What the source says of it.
    pub version: Version,
    response: Response,
    received: u64,
    limits: Limits,
    /// Time spent waiting for the source, since `span_bytes` were counted from 0.
    span_waited: Duration,
    span_bytes: u64,
}

impl Stream {
    fn new(response: Response, version: Version, from: u64, limits: Limits) -> Self {
        Self { version, response, received: from, limits, span_waited: Duration::ZERO, span_bytes: 0 }
    }

    /// The next bytes, `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Trouble> {
        let asked = Instant::now();
        let bytes = self
            .response
            .chunk()
            .await
            .map_err(|error| if error.is_timeout() { Trouble::Slow } else { Trouble::Cut })?;
        let Some(bytes) = bytes else { return Ok(None) };
        self.received += bytes.len() as u64;
        self.span_bytes += bytes.len() as u64;
        if self.received > self.limits.max_bytes {
            return Err(Trouble::TooLong(self.limits.max_bytes));
        }
        // Time that the bucket takes is not the source's.
        self.span_waited += asked.elapsed();
        if self.span_waited >= self.limits.slow_span {
            if self.span_bytes < self.limits.slow_bytes {
                return Err(Trouble::Slow);
            }
            (self.span_waited, self.span_bytes) = (Duration::ZERO, 0);
        }
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoints_of_s3_are_allowed_and_nothing_else_of_amazon() {
        for host in [
            "vocobase-recordings.s3.amazonaws.com",
            "a.b.c.s3.eu-west-1.amazonaws.com",
            "b.s3.dualstack.ap-south-1.amazonaws.com",
            "s3.amazonaws.com",
            "s3.us-gov-west-1.amazonaws.com",
            "s3.dualstack.us-east-1.amazonaws.com",
            "B.S3.AMAZONAWS.COM",
        ] {
            let url = format!("https://{host}/path/r.wav?X-Amz-Signature=s");
            assert!(Hosts::s3().check(&url).is_ok(), "{host}");
        }
        for host in [
            "evil-s3.amazonaws.com.example",
            "s3.amazonaws.com.evil",
            "evil-s3.amazonaws.com",
            "abc123.execute-api.us-east-1.amazonaws.com",
            "my-lb-1234.us-east-1.elb.amazonaws.com",
            "s3.execute-api.us-east-1.amazonaws.com",
            "b.s3.evil.amazonaws.com",
            "b.s3-accesspoint.us-east-1.amazonaws.com",
            "s3.dualstack.amazonaws.com",
            "amazonaws.com",
            "example.com",
        ] {
            let url = format!("https://{host}/r.wav?X-Amz-Signature=secret");
            assert_eq!(Hosts::s3().check(&url), Err(Rejected::Host(host.to_owned())));
        }
    }

    #[test]
    fn what_is_not_https_on_443_by_a_plain_name_is_rejected_without_telling_the_url() {
        let rejected = |url: &str| {
            let why = Hosts::s3().check(url).unwrap_err();
            assert!(!why.to_string().contains("secret"), "{why}");
            why
        };
        for url in [
            "http://b.s3.amazonaws.com/r.wav?secret",
            "file:///etc/passwd?secret",
            "ftp://b.s3.amazonaws.com/secret",
            "https://b.s3.amazonaws.com:8443/secret",
            "https://b.s3.amazonaws.com:80/secret",
        ] {
            assert_eq!(rejected(url), Rejected::NotHttps, "{url}");
        }
        for url in [
            "https://2130706433/secret",
            "https://0177.0.0.1/secret",
            "https://0x7f.1/secret",
            "https://127.0.0.1/secret",
            "https://[::1]/secret",
            "https://[::ffff:10.0.0.1]/secret",
            "https://b.s3.amazonaws.com./secret",
        ] {
            assert!(matches!(rejected(url), Rejected::NoName(_)), "{url}");
        }
        assert_eq!(rejected("https://b.s3.amazonaws.com@evil.example/secret"), Rejected::UserInfo);
        assert_eq!(rejected("https://user:secret@b.s3.amazonaws.com/"), Rejected::UserInfo);
        assert_eq!(rejected("//b.s3.amazonaws.com/secret"), Rejected::NoUrl);
        assert_eq!(rejected("secret"), Rejected::NoUrl);
        // The port that HTTPS has anyway may be spelled out.
        assert!(Hosts::s3().check("https://b.s3.amazonaws.com:443/r.wav").is_ok());
    }

    #[test]
    fn the_list_takes_names_domains_and_the_word_s3() {
        let hosts = Hosts::parse("s3, recordings.example.com ,*.cdn.example").unwrap();
        let allows = |host: &str| hosts.check(&format!("https://{host}/r.wav")).is_ok();
        assert!(allows("b.s3.amazonaws.com") && allows("recordings.example.com") && allows("a.b.cdn.example"));
        assert!(!allows("cdn.example") && !allows("evilcdn.example") && !allows("x.recordings.example.com"));
        for list in ["", "s3,,", "https://example.com", "*", "*.", "localhost", "10.0.0.1", "a b.example"] {
            assert!(Hosts::parse(list).is_none(), "{list}");
        }
    }

    #[test]
    fn only_addresses_of_the_public_internet_are_public() {
        for address in ["52.216.1.1", "8.8.8.8", "100.63.255.255", "2600:1fa0::1", "::ffff:52.216.1.1"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "100.64.0.1",
            "192.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fd00::1",
            "fe80::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::a00:1",
            "2001:db8::1",
            "2001::1",
            "2002:a00:1::1",
            "fec0::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }
}
