//! Whose call it is: telephone numbers in E.164, so that one caller has one spelling, and those that name nobody.

use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumberFormat};
use serde::{Deserialize, Serialize};

/// The country of telephone numbers that come without its code, as ISO 3166-1 alpha-2 names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Country([u8; 2]);

impl Country {
    /// Where Exotel's platform is at home.
    pub const INDIA: Self = Self(*b"IN");

    /// Two capital letters, such as `IN`. One that there is not makes no number international.
    pub fn parse(text: &str) -> Option<Self> {
        let letters: [u8; 2] = text.as_bytes().try_into().ok()?;
        letters.iter().all(u8::is_ascii_uppercase).then_some(Self(letters))
    }

    fn name(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Default for Country {
    fn default() -> Self {
        Self::INDIA
    }
}

impl From<Country> for String {
    fn from(country: Country) -> Self {
        country.name().to_owned()
    }
}

impl TryFrom<String> for Country {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("a country is two capital letters, such as IN")
    }
}

/// What carriers send for a caller who withholds the number: words as a telephone's keys spell them.
const WITHHELD: [&str; 5] = ["266696687", "7378742833", "2562533", "8656696", "86282452253"];

/// What nobody's number is longer than, `tel:` and separators included.
const MAX_BYTES: usize = 64;

/// A telephone number in E.164 (`+919876543210`), from any usual spelling, `tel:` and `sip:` addresses included. What is
/// no number stays as it is.
pub fn normalised(contact: String, country: Country) -> String {
    number(&contact, country).unwrap_or(contact)
}

/// The normalised contact, if it is one person's: a valid telephone number that is not withheld. Other endpoints may be
/// shared, and so have no history.
pub fn caller(contact: &str) -> Option<&str> {
    let withheld = WITHHELD.contains(&contact.strip_prefix('+')?);
    let valid = || PHONE_NUMBER_UTIL.parse(contact).is_ok_and(|number| PHONE_NUMBER_UTIL.is_valid_number(&number));
    (is_e164(contact) && !withheld && valid()).then_some(contact)
}

fn number(contact: &str, country: Country) -> Option<String> {
    if contact.len() > MAX_BYTES {
        return None;
    }
    let contact = contact.trim();
    let scheme = |name: &str| {
        let (scheme, rest) = contact.split_once(':')?;
        scheme.eq_ignore_ascii_case(name).then_some(rest)
    };
    let address = scheme("tel").or_else(|| scheme("sip")).or_else(|| scheme("sips")).unwrap_or(contact);
    let number = address.split(['@', ';']).next().unwrap_or_default().trim();
    // The library reads its tables on first use, some milliseconds of a cold start: most numbers can do without.
    if is_e164(number) {
        return Some(number.to_owned());
    }
    // It would take letters for keys, and an endpoint's name for a number.
    if number.chars().any(char::is_alphabetic) || !number.chars().any(char::is_numeric) {
        return None;
    }
    let read = PHONE_NUMBER_UTIL.parse_with_default_region(number, country.name()).ok()?;
    // An extension is somebody else's than the number's.
    if read.has_extension() || !PHONE_NUMBER_UTIL.is_valid_number(&read) {
        return None;
    }
    Some(PHONE_NUMBER_UTIL.format(&read, PhoneNumberFormat::E164).into_owned())
}

/// Source: ITU-T E.164, 6.1 and 6.2: a country code and a number, 15 digits together at most.
fn is_e164(text: &str) -> bool {
    let digits = text.strip_prefix('+').unwrap_or_default().as_bytes();
    (8..=15).contains(&digits.len()) && digits[0] != b'0' && digits.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(contact: &str) -> String {
        normalised(contact.to_owned(), Country::INDIA)
    }

    #[test]
    fn one_number_has_one_spelling() {
        for spelling in [
            "+919876543210",
            "+91 98765 43210",
            "+91-98765-43210",
            "+91 (0) 98765 43210",
            "09876543210",
            "9876543210",
            "0098765 43210 ",
            "00919876543210",
            "tel:+919876543210",
            "TEL:+91-98765-43210",
            "sip:+919876543210@gateway.example;user=phone",
            "sips:09876543210@gateway.example",
            "\u{ff0b}\u{ff19}\u{ff11}9876543210",
            "+\u{966}\u{966}",
        ] {
            let expected = match spelling {
                // Zeros of India's trunk prefix twice, and no number at all.
                "0098765 43210 " | "+\u{966}\u{966}" => spelling,
                _ => "+919876543210",
            };
            assert_eq!(normal(spelling), expected, "{spelling}");
        }
        assert_eq!(normalised("020 7946 0958".to_owned(), Country::parse("GB").unwrap()), "+442079460958");
    }

    #[test]
    fn what_is_no_number_stays_as_it_is() {
        for contact in [
            "",
            "<phone number / endpoint>",
            "agent-42",
            "sip:alice@example.com",
            "sip:1001@pbx.example",
            "1800FLOWERS",
            "anonymous",
            "100",
            "+91 98765 43210 ext. 7",
            "+91 98765 43210;ext=7",
            &"9".repeat(500),
        ] {
            let kept = if contact.contains(";ext") { "+919876543210" } else { contact };
            assert_eq!(normal(contact), kept, "{contact}");
        }
    }

    #[test]
    fn only_a_valid_number_that_is_not_withheld_is_a_caller() {
        assert_eq!(caller("+919876543210"), Some("+919876543210"));
        for nobody in [
            "",
            "9876543210",
            "anonymous",
            "sip:alice@example.com",
            "+266696687",
            "+86282452253",
            "+910000000000",
            "+00000000000",
            "+1234567890123456",
        ] {
            assert_eq!(caller(nobody), None, "{nobody}");
        }
    }

    #[test]
    fn a_country_is_two_capital_letters() {
        assert_eq!(Country::parse("IN"), Some(Country::INDIA));
        for text in ["", "I", "in", "IND", "+91", "\u{e9}"] {
            assert_eq!(Country::parse(text), None, "{text}");
        }
        // One that does not exist reads no national number, and leaves international ones.
        let nowhere = Country::parse("ZZ").unwrap();
        assert_eq!(normalised("9876543210".to_owned(), nowhere), "9876543210");
        assert_eq!(normalised("+91 98765 43210".to_owned(), nowhere), "+919876543210");
    }
}
