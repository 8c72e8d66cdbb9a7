//! Attribute values in few words.

use std::collections::HashMap;
use std::fmt::Display;
use std::io::{Read, Write};

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use flate2::Compression;

/// An item of a table: attribute name → value.
pub type Item = HashMap<String, AttributeValue>;

pub(super) fn s(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

pub(super) fn n(number: impl Display) -> AttributeValue {
    AttributeValue::N(format!("{number}"))
}

pub(super) fn b(bytes: Vec<u8>) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes))
}

/// A number where `DynamoDB` can hold it: a plain decimal of at most 38 digits. Else its text.
pub(super) fn number_or_text(text: &str) -> AttributeValue {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if plain && !digits.is_empty() && digits.len() <= 39 && digits.bytes().filter(u8::is_ascii_digit).count() <= 38 {
        n(text)
    } else {
        s(text)
    }
}

/// The text of a text or a number.
pub fn text<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    match item.get(name)? {
        AttributeValue::S(text) | AttributeValue::N(text) => Some(text),
        _ => None,
    }
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(bytes.len() / 3 + 64), Compression::default());
    // Writing to memory has no failing case.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

pub(super) fn gunzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut out)?;
    Ok(out)
}
