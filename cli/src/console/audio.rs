//! A call's recording out of the bucket, or the stretch of it that a player asks for.

use aws_sdk_s3::error::ProvideErrorMetadata;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use shared::SessionKey;
use shared::recording::State;

use super::{Body, Console, Problem, Reply, text};
use crate::why;

/// What a browser may be told that it is; everything else it only saves.
const PLAYED: [&str; 2] = ["audio/", "video/"];

/// Answers with the recording, passed on as the bucket sends it. `save` asks for a file.
pub(super) async fn recording(
    console: &Console,
    key: &SessionKey,
    headers: &HeaderMap,
    save: bool,
) -> Result<Reply, Problem> {
    let job = console.store.recording(key).await?.filter(|job| job.state == State::Archived);
    let s3_key = job.and_then(|job| job.s3_key).ok_or(Problem::NotFound("The call has no archived recording."))?;
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok()).filter(|range| is_one_range(range));
    let mut get = console.opened.clients.s3.get_object().bucket(&console.opened.bucket).key(&s3_key);
    if let Some(range) = range {
        get = get.range(range);
    }
    let object = match get.send().await {
        Ok(object) => object,
        Err(error) => {
            return match error.as_service_error().and_then(ProvideErrorMetadata::code) {
                Some("InvalidRange") => Ok(Reply::Other(text(StatusCode::RANGE_NOT_SATISFIABLE, "no such range"))),
                Some("NoSuchKey") => Err(Problem::NotFound("The recording is no longer in the bucket.")),
                _ => Err(Problem::Failed(format!("the recording cannot be read: {}", why(&error)))),
            };
        }
    };
    let content_type = object.content_type().filter(|kind| PLAYED.iter().any(|played| kind.starts_with(played)));
    let content_type = content_type.unwrap_or("application/octet-stream").to_owned();
    let file_name = s3_key.rsplit('/').next().unwrap_or_default().replace(|letter: char| !is_plain(letter), "_");
    let disposition = format!("{}; filename=\"{file_name}\"", if save { "attachment" } else { "inline" });
    let mut answer = vec![
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_DISPOSITION, disposition),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
    ];
    answer.extend(object.content_length().map(|length| (header::CONTENT_LENGTH, length.to_string())));
    let content_range = object.content_range().filter(|_| range.is_some()).map(str::to_owned);
    let status = if content_range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    answer.extend(content_range.map(|range| (header::CONTENT_RANGE, range)));
    let chunks = stream::unfold(object.body, |mut body| async move {
        let chunk: Result<Bytes, _> = body.next().await?;
        Some((chunk.map(Frame::data).map_err(Into::into), body))
    });
    let mut response: Response<Body> = Response::new(BodyExt::boxed(StreamBody::new(chunks)));
    *response.status_mut() = status;
    let header = |(name, value): (HeaderName, String)| Some((name, HeaderValue::from_str(&value).ok()?));
    response.headers_mut().extend(answer.into_iter().filter_map(header));
    Ok(Reply::Other(response))
}

/// `bytes=<from>-`, `bytes=<from>-<to>` or `bytes=-<last>`. Any other may be ignored. Source: RFC 9110, section 14.2.
fn is_one_range(range: &str) -> bool {
    let Some((from, to)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else { return false };
    let is_number = |text: &str| text.len() < 20 && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number(from) && is_number(to) && !(from.is_empty() && to.is_empty())
}

/// Of a file's name.
fn is_plain(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_')
}

#[cfg(test)]
mod tests {
    use super::is_one_range;

    #[test]
    fn one_range_is_passed_on_and_anything_else_ignored() {
        for range in ["bytes=0-", "bytes=10-19", "bytes=-5"] {
            assert!(is_one_range(range), "{range}");
        }
        for range in ["", "bytes=-", "bytes=0-1,5-6", "items=0-1", "bytes=a-", "bytes=0-1\r\n", "bytes=1"] {
            assert!(!is_one_range(range), "{range}");
        }
    }
}
