//! What a server that we call says of the credential it wants: `WWW-Authenticate` (RFC 9110 §11.6.1),
//! with the parameters of RFC 6750 §3, RFC 9470 §3 and RFC 9728 §5.1.

use crate::http::{Headers, Url};
use crate::token_endpoint::scope_tokens;

/// Most challenges of one answer.
const MAX_CHALLENGES: usize = 8;
/// Most parameters of one challenge.
const MAX_PARAMETERS: usize = 16;
/// Longest fields, all together, in bytes.
const MAX_BYTES: usize = 4096;

/// A challenge of a server. Only [`read`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// What it wants.
    pub scheme: Scheme,
    /// Names in lower case. `None` if there is a token68 in their place.
    parameters: Option<Vec<(String, String)>>,
}

/// The scheme of a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// RFC 6750.
    Bearer,
    /// RFC 9449 §7.1.
    Dpop,
    /// Any other. Its parameters are not kept.
    Other,
}

/// The challenges in the `WWW-Authenticate` fields of an answer, in order.
///
/// A field that is not of the form of RFC 9110 §11.6.1 is left out as a whole, as is one that goes over
/// a bound: 8 challenges and 4 KiB for all fields together, 16 parameters for a challenge. Does *not*
/// look at the answer's status, and does not make anything in a challenge true: it is the word of the
/// server that sent it.
pub fn read(headers: &Headers) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let mut room = MAX_BYTES;
    for field in headers.all("www-authenticate") {
        let Some(left) = room.checked_sub(field.len()) else {
            continue;
        };
        room = left;
        let found = Reader(field).challenges().unwrap_or_default();
        if challenges.len() + found.len() <= MAX_CHALLENGES {
            challenges.extend(found);
        }
    }
    challenges
}

impl Challenge {
    /// `error` (RFC 6750 §3.1): one word without quotes and backslashes.
    pub fn error(&self) -> Option<&str> {
        self.text("error").filter(|text| scope_tokens(text).is_some_and(|words| words.len() == 1))
    }

    /// `scope` (RFC 6750 §3): scope tokens with one space between (RFC 6749 §3.3).
    pub fn scope(&self) -> Option<&str> {
        self.text("scope").filter(|text| scope_tokens(text).is_some())
    }

    /// `resource_metadata` (RFC 9728 §5.1), if it is a URL in normal form. Does *not* check where it
    /// leads: see [`crate::resource_discovery::metadata_url`].
    pub fn resource_metadata(&self) -> Option<Url> {
        Url::parse(self.text("resource_metadata")?)
    }

    /// `acr_values` (RFC 9470 §3): words without quotes and backslashes, one space between.
    pub fn acr_values(&self) -> Option<&str> {
        self.text("acr_values").filter(|text| scope_tokens(text).is_some())
    }

    /// `max_age` in seconds (RFC 9470 §3): digits only.
    pub fn max_age(&self) -> Option<u64> {
        let text = self.text("max_age")?;
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
    }

    /// The parameter `name`, if it is there once: RFC 9110 §11.2 allows no more.
    fn text(&self, name: &str) -> Option<&str> {
        let mut values = self.parameters.iter().flatten().filter(|(found, _)| found == name);
        let (_, value) = values.next()?;
        values.next().is_none().then_some(value)
    }

    fn keep(&mut self, name: &str, value: String) -> Option<()> {
        let parameters = self.parameters.as_mut()?;
        if self.scheme != Scheme::Other {
            parameters.push((name.to_ascii_lowercase(), value));
        }
        (parameters.len() <= MAX_PARAMETERS).then_some(())
    }
}

/// What is left of a field.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The whole field: a list of challenges, which are lists themselves. What stands between two
    /// commas is a challenge with its first parameter, or one more parameter (§11.6.1, last note).
    fn challenges(mut self) -> Option<Vec<Challenge>> {
        let mut found = Vec::new();
        loop {
            // §5.6.1.2: empty elements of a list count for nothing.
            self.run(|byte| matches!(byte, b' ' | b'\t' | b','));
            if self.0.is_empty() {
                return Some(found);
            }
            self.element(&mut found)?;
            if !self.is_at_end_of_element() {
                return None;
            }
        }
    }

    fn element(&mut self, found: &mut Vec<Challenge>) -> Option<()> {
        let word = self.token()?;
        if self.eat_equals() {
            let value = self.value()?;
            return found.last_mut()?.keep(word, value);
        }
        if found.len() == MAX_CHALLENGES {
            return None;
        }
        let scheme = match () {
            () if word.eq_ignore_ascii_case("bearer") => Scheme::Bearer,
            () if word.eq_ignore_ascii_case("dpop") => Scheme::Dpop,
            () => Scheme::Other,
        };
        let mut challenge = Challenge { scheme, parameters: Some(Vec::new()) };
        let has_space = !self.run(|byte| byte == b' ').is_empty();
        if !self.is_at_end_of_element() {
            if !has_space {
                return None;
            } else if self.skip_token68() {
                challenge.parameters = None;
            } else {
                let name = self.token()?;
                let value = self.eat_equals().then(|| self.value())??;
                challenge.keep(name, value)?;
            }
        }
        found.push(challenge);
        Some(())
    }

    /// A token or a quoted-string (§11.2).
    fn value(&mut self) -> Option<String> {
        match self.0.split_first() {
            Some((b'"', rest)) => {
                self.0 = rest;
                self.quoted()
            }
            _ => self.token().map(str::to_owned),
        }
    }

    /// What follows the opening quote, unescaped (§5.6.4). A byte that is not ASCII becomes a character
    /// that is not: nothing read here has any.
    fn quoted(&mut self) -> Option<String> {
        let mut text = String::new();
        loop {
            let byte = match self.next()? {
                b'"' => return Some(text),
                b'\\' => self.next()?,
                byte => byte,
            };
            if byte.is_ascii_control() && byte != b'\t' {
                return None;
            }
            text.push(char::from(byte));
        }
    }

    /// Skips a token68 (§11.2) if that is all that is left of this element.
    fn skip_token68(&mut self) -> bool {
        let mut ahead = *self;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        let is_there = !ahead.run(allowed).is_empty();
        ahead.run(|byte| byte == b'=');
        let is_all = is_there && ahead.is_at_end_of_element();
        if is_all {
            *self = ahead;
        }
        is_all
    }

    fn token(&mut self) -> Option<&'a str> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        core::str::from_utf8(self.run(allowed)).ok().filter(|token| !token.is_empty())
    }

    /// Skips an equals sign and the white space around it, if there is one; else nothing.
    fn eat_equals(&mut self) -> bool {
        let mut ahead = *self;
        ahead.skip_blank();
        let is_there = ahead.next() == Some(b'=');
        if is_there {
            ahead.skip_blank();
            *self = ahead;
        }
        is_there
    }

    fn is_at_end_of_element(mut self) -> bool {
        self.skip_blank();
        matches!(self.next(), None | Some(b','))
    }

    fn skip_blank(&mut self) {
        self.run(|byte| matches!(byte, b' ' | b'\t'));
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The bytes from here on that are allowed.
    fn run(&mut self, allowed: fn(u8) -> bool) -> &'a [u8] {
        let end = self.0.iter().position(|byte| !allowed(*byte)).unwrap_or(self.0.len());
        let (run, rest) = self.0.split_at(end);
        self.0 = rest;
        run
    }
}
