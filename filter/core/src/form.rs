//! `application/x-www-form-urlencoded`, read strictly (RFC 6749 §3.2 and appendix B).

/// Most parameters one form may have.
const MAX_PARAMETERS: usize = 64;

/// The parameters of a request. Empty ones count as absent.
pub struct Form(Vec<(String, String)>);

impl core::fmt::Debug for Form {
    /// Names only: values may be credentials.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// Why a form is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A bad percent code, a byte outside ASCII, a NUL, or text that is not UTF-8.
    Syntax,
    /// A parameter other than `resource` is there twice.
    Repeated,
    /// More than 64 parameters.
    TooMany,
}

impl Form {
    /// The parameters in `body`. Only `resource` may repeat (RFC 8707 §2).
    pub fn parse(body: &[u8]) -> Result<Self, Fault> {
        let text = core::str::from_utf8(body).map_err(|_| Fault::Syntax)?;
        let mut form = Self(Vec::new());
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            if form.0.len() == MAX_PARAMETERS {
                return Err(Fault::TooMany);
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).ok_or(Fault::Syntax)?;
            let value = decode(value).ok_or(Fault::Syntax)?;
            if name != "resource" && form.0.iter().any(|(other, _)| *other == name) {
                return Err(Fault::Repeated);
            }
            form.0.push((name, value));
        }
        form.0.retain(|(_, value)| !value.is_empty());
        Ok(form)
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The names of all parameters.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The values of all parameters.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(_, value)| value.as_str())
    }

    /// Every value of `name`.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// One form-encoded name or value, decoded. The lenient decoders of libraries let bad codes pass
/// and replace bad UTF-8; two of them may then read different parameters.
pub fn decode(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => match hex(bytes.next()?)? << 4 | hex(bytes.next()?)? {
                0 => return None,
                byte => byte,
            },
            b' '..=b'~' => byte,
            _ => return None,
        });
    }
    String::from_utf8(decoded).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| value.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_form_is_decoded_and_empty_parameters_are_absent() {
        let form = Form::parse(b"a=1+2&b=%3A%2F&c=&resource=x&resource=y&d").unwrap();

        assert_eq!(form.get("a"), Some("1 2"));
        assert_eq!(form.get("b"), Some(":/"));
        assert_eq!(form.get("c"), None);
        assert_eq!(form.get("d"), None);
        assert_eq!(form.all("resource").collect::<Vec<_>>(), ["x", "y"]);
    }

    #[test]
    fn what_decoders_could_read_differently_is_refused() {
        let many: Vec<String> = (0..65).map(|n| format!("p{n}=1")).collect();
        let cases: &[(&[u8], Fault)] = &[
            (b"a=%", Fault::Syntax),
            (b"a=%zz", Fault::Syntax),
            (b"a=%4", Fault::Syntax),
            (b"a=%00", Fault::Syntax),
            (b"a=%c0%af", Fault::Syntax),
            (b"a=\xff", Fault::Syntax),
            (b"a=1\n", Fault::Syntax),
            (b"a=1&a=2", Fault::Repeated),
            (b"a=&a=2", Fault::Repeated),
            (b"scope=a&%73cope=b", Fault::Repeated),
            (many.join("&").leak().as_bytes(), Fault::TooMany),
        ];

        for (body, fault) in cases {
            assert_eq!(Form::parse(body).map(|_| ()), Err(*fault), "{}", body.escape_ascii());
        }
    }
}
