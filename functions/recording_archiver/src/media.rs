//! What a recording is, by its first bytes: what the source says of it may be anything.

/// A kind of recording.
#[derive(Debug, PartialEq, Eq)]
pub struct Media {
    /// Of its object's key.
    pub extension: &'static str,
    /// As the source said, where that agrees with the bytes.
    pub content_type: String,
}

const UNKNOWN: &str = "application/octet-stream";

/// The kind that begins with `first` and was declared as `declared`.
pub fn of(first: &[u8], declared: Option<&str>) -> Media {
    // The names that each format goes by, the registered one first.
    let (extension, names): (_, &[&str]) = match first {
        [b'R', b'I', b'F' | b'X', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => {
            ("wav", &["audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"])
        }
        [b'I', b'D', b'3', ..] | [0xff, 0xe2..=0xe7 | 0xf2..=0xf7 | 0xfa..=0xfd, ..] => {
            ("mp3", &["audio/mpeg", "audio/mp3"])
        }
        [b'O', b'g', b'g', b'S', ..] => ("ogg", &["audio/ogg", "audio/opus", "application/ogg", "video/ogg"]),
        [0x1a, 0x45, 0xdf, 0xa3, ..] => ("webm", &["audio/webm", "video/webm"]),
        _ => ("bin", &[UNKNOWN]),
    };
    let declared = declared.map(|declared| declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let content_type =
        declared.filter(|declared| names.contains(&declared.as_str())).unwrap_or_else(|| names[0].to_owned());
    Media { extension, content_type }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_decide_and_the_sources_word_is_kept_where_it_agrees() {
        for (first, declared, extension, content_type) in [
            (b"RIFF\0\0\0\0WAVEfmt ".as_slice(), Some("audio/x-wav; rate=8000"), "wav", "audio/x-wav"),
            (b"RIFF\0\0\0\0WAVEfmt ", Some("text/html"), "wav", "audio/wav"),
            (b"RIFF\0\0\0\0AVI LIST", Some("audio/wav"), "bin", UNKNOWN),
            (b"ID3\x04\0\0", None, "mp3", "audio/mpeg"),
            (b"\xff\xfb\x90\x64", Some("binary/octet-stream"), "mp3", "audio/mpeg"),
            (b"OggS\0\x02", Some("AUDIO/OPUS"), "ogg", "audio/opus"),
            (b"\x1a\x45\xdf\xa3", Some("video/webm"), "webm", "video/webm"),
            (b"<!DOCTYPE html>", Some("text/html"), "bin", UNKNOWN),
            (b"", Some("audio/wav"), "bin", UNKNOWN),
            (b"R", None, "bin", UNKNOWN),
        ] {
            let media = of(first, declared);
            assert_eq!((media.extension, media.content_type.as_str()), (extension, content_type), "{first:?}");
        }
    }
}
