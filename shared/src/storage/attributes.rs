//! Attribute values in few words.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Display;
use std::io::Read;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use flate2::{Compress, Compression, FlushCompress, Status};

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

thread_local! {
    /// Its tables take 260 KB: making them costs more than packing a small body.
    static COMPRESSOR: RefCell<Compress> = RefCell::new(Compress::new_gzip(Compression::default(), 15));
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    COMPRESSOR.with_borrow_mut(|compressor| {
        compressor.reset();
        let mut packed = Vec::with_capacity(bytes.len() / 3 + 64);
        loop {
            let rest = bytes.get(usize::try_from(compressor.total_in()).unwrap_or(usize::MAX)..).unwrap_or_default();
            match compressor.compress_vec(rest, &mut packed, FlushCompress::Finish) {
                Ok(Status::Ok | Status::BufError) => packed.reserve(packed.capacity()),
                // Packing into memory has no failing case.
                Ok(Status::StreamEnd) | Err(_) => return packed,
            }
        }
    })
}

pub(super) fn gunzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut out)?;
    Ok(out)
}
