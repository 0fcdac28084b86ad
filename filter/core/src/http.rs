//! The little of HTTP that travels between the core and its host. There is no sending here.

use crate::client_certificate::ClientCertificate;
use crate::secret::Secret;
use std::borrow::Cow;

/// A request's head as the host saw it. Header values are bytes, not text.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// `:method`, `:authority`, `:path` and all fields, names in lower case.
    pub headers: Headers,
    /// Where the connection comes from, `address:port`; only for rate limits.
    pub source: String,
    /// The certificate the client showed in the TLS handshake, from Envoy itself.
    pub certificate: Option<ClientCertificate>,
}

impl Request {
    /// The method; empty if it is not text.
    pub fn method(&self) -> &str {
        self.headers.text(":method").unwrap_or_default()
    }

    /// The authority; empty if it is not text.
    pub fn authority(&self) -> &str {
        self.headers.text(":authority").unwrap_or_default()
    }

    /// The path without its query; empty if it is not text.
    pub fn path(&self) -> &str {
        let target = self.target();
        target.get(..query_at(target)).unwrap_or_default()
    }

    /// The query, if there is one.
    pub fn query(&self) -> Option<&str> {
        let target = self.target();
        target.get(query_at(target).checked_add(1)?..)
    }

    /// The proxy's identifier of this request, for the log.
    pub fn id(&self) -> RequestId {
        let id = self.headers.text("x-request-id").filter(|id| id.len() <= 64);
        RequestId(id.unwrap_or_default().to_owned())
    }

    fn target(&self) -> &str {
        self.headers.text(":path").unwrap_or_default()
    }
}

/// Where the query begins, or where the target ends.
fn query_at(target: &str) -> usize {
    target.bytes().position(|byte| byte == b'?').unwrap_or(target.len())
}

/// The proxy's identifier of a request.
#[derive(Clone, Default)]
pub struct RequestId(String);

impl core::fmt::Debug for RequestId {
    /// Empty if it is one that no proxy makes: a client may have chosen it.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let sound = self.0.bytes().all(plain);
        write!(f, "{:?}", if sound { &self.0 } else { "" })
    }
}

/// Header fields in order, names in lower case. All in one piece, as the host hands them over: a request
/// has a dozen fields, and most are never looked at.
#[derive(Clone, Default)]
pub struct Headers {
    bytes: Vec<u8>,
    fields: Vec<Field>,
}

/// Where in the bytes a field's name and value are: first and behind last.
#[derive(Clone, Copy)]
struct Field {
    name: (usize, usize),
    value: (usize, usize),
}

impl Headers {
    /// The fields as listed.
    pub fn new(fields: Vec<(String, Vec<u8>)>) -> Self {
        let mut headers = Self::default();
        for (name, value) in &fields {
            headers.push(name.as_bytes(), value);
        }
        headers
    }

    /// Reads a header map of the proxy-wasm ABI: a count, the sizes of each name and value, then each of
    /// them followed by a NUL; no bytes at all for no fields.
    ///
    /// `None` if it is anything else. A name that is no text, which no proxy lets through, reads as empty where text is
    /// asked for.
    pub fn from_host(bytes: Vec<u8>) -> Option<Self> {
        let Some((count, rest)) = bytes.split_first_chunk() else {
            return bytes.is_empty().then(Self::default);
        };
        let number = |bytes| usize::try_from(u32::from_le_bytes(bytes)).ok();
        let (sizes, _) = rest.split_at_checked(number(*count)?.checked_mul(8)?)?;
        let mut next = sizes.len().checked_add(4)?;
        let mut take = |size: [u8; 4]| {
            let part = (next, next.checked_add(number(size)?)?);
            next = part.1.checked_add(1)?;
            Some(part)
        };
        let mut fields = Vec::with_capacity(sizes.len() / 8);
        for size in sizes.as_chunks().0 {
            let [a, b, c, d, e, f, g, h] = *size;
            fields.push(Field { name: take([a, b, c, d])?, value: take([e, f, g, h])? });
        }
        (next <= bytes.len()).then_some(Self { bytes, fields })
    }

    fn push(&mut self, name: &[u8], value: &[u8]) {
        let mut add = |part: &[u8]| {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(part);
            (start, self.bytes.len())
        };
        let field = Field { name: add(name), value: add(value) };
        self.fields.push(field);
    }

    fn part(&self, (start, end): (usize, usize)) -> &[u8] {
        self.bytes.get(start..end).unwrap_or_default()
    }

    /// Whether `field` is called `name`.
    #[inline(always)]
    fn is(&self, field: &Field, name: &str) -> bool {
        field.name.1.wrapping_sub(field.name.0) == name.len()
            && self.part(field.name) == name.as_bytes()
    }

    /// Every value of `name`.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let is_it = move |field: &&Field| self.is(field, name);
        self.fields.iter().filter(is_it).map(|field| self.part(field.value))
    }

    /// The value of `name` if the field is there exactly once.
    #[inline(always)]
    pub fn sole(&self, name: &str) -> Option<&[u8]> {
        // A dozen of these in each request: written into the caller, and as a loop, they cost the least in wasm.
        let mut found = None;
        for field in &self.fields {
            if self.is(field, name) && found.replace(field).is_some() {
                return None;
            }
        }
        found.map(|field| self.part(field.value))
    }

    /// The value of `name` if it is there exactly once and is UTF-8.
    #[inline(always)]
    pub fn text(&self, name: &str) -> Option<&str> {
        core::str::from_utf8(self.sole(name)?).ok()
    }

    /// Whether `name` is there at all.
    #[inline(always)]
    pub fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|field| self.is(field, name))
    }

    /// Names of all fields, each once.
    pub fn distinct(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.names().collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// All fields but those whose name `is_left_out`.
    pub fn without(mut self, is_left_out: impl Fn(&str) -> bool) -> Self {
        let Self { bytes, fields } = &mut self;
        fields.retain(|field| !is_left_out(text(bytes, field.name)));
        self
    }

    /// A copy of all fields but those named in `remove`, with those of `set` in the place of any of the same name.
    pub fn edited(&self, remove: &[String], set: &[(String, Secret)]) -> Self {
        let mut edited = Self {
            bytes: Vec::with_capacity(self.bytes.len()),
            fields: Vec::with_capacity(self.fields.len().saturating_add(set.len())),
        };
        for field in &self.fields {
            let name = self.part(field.name);
            let is_gone = remove.iter().any(|other| other.as_bytes() == name)
                || set.iter().any(|(other, _)| other.as_bytes() == name);
            if !is_gone {
                edited.push(name, self.part(field.value));
            }
        }
        for (name, value) in set {
            edited.push(name.as_bytes(), value.expose().as_bytes());
        }
        edited
    }

    /// All fields.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|field| (text(&self.bytes, field.name), self.part(field.value)))
    }

    /// All fields, with names in bytes.
    pub fn parts(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|field| (self.part(field.name), self.part(field.value)))
    }

    /// Names of all fields.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| text(&self.bytes, field.name))
    }
}

/// A name; empty if it is no text.
fn text(bytes: &[u8], (start, end): (usize, usize)) -> &str {
    core::str::from_utf8(bytes.get(start..end).unwrap_or_default()).unwrap_or_default()
}

impl core::fmt::Debug for Headers {
    /// Names only: values may be credentials.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// A request that the host shall make for a flow.
#[derive(Debug, Clone)]
pub struct Callout {
    /// The Envoy cluster, from configuration and nowhere else.
    pub cluster: String,
    /// `GET` or `POST`.
    pub method: &'static str,
    /// `:authority`.
    pub authority: String,
    /// `:path`, with query.
    pub path: String,
    /// Header fields.
    pub headers: Vec<(Cow<'static, str>, Secret)>,
    /// Body; empty for GET.
    pub body: Secret,
    /// Longest time the answer may take, in milliseconds.
    pub timeout: u32,
}

/// Longest time the answer of an authorization server may take, in milliseconds.
const TIMEOUT: u32 = 5000;

impl Callout {
    /// A GET of the JSON document at `url`.
    pub fn get_json(cluster: &str, url: &Url) -> Self {
        Self {
            cluster: cluster.to_owned(),
            method: "GET",
            authority: url.authority().to_owned(),
            path: url.path_and_query().to_owned(),
            headers: vec![("accept".into(), Secret::new(crate::names::JSON))],
            body: Secret::new(""),
            timeout: TIMEOUT,
        }
    }

    /// A POST of form `fields` to `url`.
    pub fn post_form(cluster: &str, url: &Url, fields: &[(&str, &str)]) -> Self {
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(fields);
        Self {
            cluster: cluster.to_owned(),
            method: "POST",
            authority: url.authority().to_owned(),
            path: url.path_and_query().to_owned(),
            headers: vec![
                ("accept".into(), Secret::new(crate::names::JSON)),
                ("content-type".into(), Secret::new(crate::names::FORM)),
            ],
            body: Secret::new(body.finish()),
            timeout: TIMEOUT,
        }
    }
}

/// What came back.
#[derive(Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Header fields.
    pub headers: Headers,
    /// Body, cut by the host at [`MAX_ANSWER`] + 1 bytes.
    pub body: Vec<u8>,
}

impl core::fmt::Debug for Answer {
    /// Without the body, which may be a token.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Answer({}, {} bytes)", self.status, self.body.len())
    }
}

/// Largest answer body read.
pub const MAX_ANSWER: usize = 256 * 1024;

/// A callout without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallFailed {
    /// Envoy has no cluster of that name, or has not loaded it yet.
    NoCluster,
    /// No host, timeout, reset.
    NoAnswer,
}

/// An absolute `http` or `https` URL, kept exactly as written. Two are equal only if their text is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url {
    text: String,
    authority: (usize, usize),
}

impl Url {
    /// `text` as an absolute URL in normal form: scheme `https` (or `http`), a host, no user
    /// information, no fragment, no dot segments, nothing that a parser would rewrite.
    pub fn parse(text: &str) -> Option<Self> {
        let parsed = url::Url::parse(text).ok()?;
        let plain = matches!(parsed.scheme(), "https" | "http")
            && parsed.username().is_empty()
            && parsed.password().is_none()
            && !text.contains(['#', '@', '\\']);
        let start = text.find("://")? + 3;
        let rest = text.get(start..)?;
        let end = start + rest.find(['/', '?']).unwrap_or(rest.len());
        let slashless = end == text.len();
        let normal = parsed.as_str() == text || slashless && parsed.as_str() == format!("{text}/");
        (plain && normal).then(|| Self { text: text.to_owned(), authority: (start, end) })
    }

    /// The URL as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Host, and port if the URL has one.
    pub fn authority(&self) -> &str {
        self.text.get(self.authority.0..self.authority.1).unwrap_or_default()
    }

    /// Path as written; `/` if there is none. Without the query.
    pub fn path(&self) -> &str {
        let target = self.path_and_query();
        target.get(..query_at(target)).unwrap_or("/")
    }

    /// Path and query as written; `/` if there is none.
    pub fn path_and_query(&self) -> &str {
        match self.text.get(self.authority.1..) {
            None | Some("") => "/",
            Some(rest) => rest,
        }
    }

    /// Whether the scheme is `https`.
    pub fn is_https(&self) -> bool {
        self.text.starts_with("https:")
    }

    /// Scheme and authority: the origin (RFC 6454).
    pub fn origin(&self) -> &str {
        self.text.get(..self.authority.1).unwrap_or_default()
    }

    /// Whether `authority`, as a client sent it, is this URL's: host in any case, the scheme's
    /// default port written or not.
    pub fn is_at(&self, authority: &str) -> bool {
        let own = self.authority();
        let port = if self.is_https() { ":443" } else { ":80" };
        authority.eq_ignore_ascii_case(own)
            || authority.strip_suffix(port).is_some_and(|host| host.eq_ignore_ascii_case(own))
    }

    /// This URL with `suffix` inserted between authority and path, a terminating slash of the
    /// authority dropped first (RFC 8414 §3.1, RFC 9728 §3.1).
    pub fn with_well_known(&self, suffix: &str) -> Self {
        let path = match self.path_and_query() {
            "/" => "",
            path => path,
        };
        let text = format!("{}{suffix}{path}", self.origin());
        Self { text, authority: self.authority }
    }

    /// This URL with its path and query replaced by `path`.
    pub fn with_path(&self, path: &str) -> Self {
        Self { text: format!("{}{path}", self.origin()), authority: self.authority }
    }
}

impl core::fmt::Debug for Url {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// A header map as the host writes it.
    fn map(fields: &[(&str, &[u8])]) -> Vec<u8> {
        let size = |bytes: &[u8]| (bytes.len() as u32).to_le_bytes();
        let mut bytes = (fields.len() as u32).to_le_bytes().to_vec();
        for (name, value) in fields {
            bytes.extend([size(name.as_bytes()), size(value)].concat());
        }
        for part in fields.iter().flat_map(|(name, value)| [name.as_bytes(), value]) {
            bytes.extend_from_slice(part);
            bytes.push(0);
        }
        bytes
    }

    #[test]
    fn the_hosts_header_map_is_read_as_it_is_written() {
        let fields: [(&str, &[u8]); 4] =
            [(":path", b"/mcp"), ("x", b"\xff\0"), ("x", b""), ("accept", b"a, b")];

        let headers = Headers::from_host(map(&fields)).unwrap();

        assert!(headers.fields().eq(fields));
        assert_eq!(headers.all("x").collect::<Vec<_>>(), [&b"\xff\0"[..], b""]);
        assert_eq!((headers.sole("x"), headers.text(":path")), (None, Some("/mcp")));
        assert_eq!(Headers::from_host(Vec::new()).unwrap().names().count(), 0);
    }

    #[test]
    fn a_header_map_that_is_cut_or_lies_about_its_sizes_is_none() {
        let whole = map(&[("a", b"1"), ("b", b"2")]);

        for end in 1..whole.len() {
            assert!(Headers::from_host(whole[..end].to_vec()).is_none(), "{end}");
        }
        for at in 0..5 {
            let mut lying = whole.clone();
            lying[at * 4..at * 4 + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            assert!(Headers::from_host(lying).is_none(), "{at}");
        }
    }

    #[test]
    fn what_is_set_takes_the_place_of_every_field_of_its_name_and_what_is_removed_is_gone() {
        let fields = ["a", "b", "a", "c"].map(|name| (name.to_owned(), b"old".to_vec()));
        let fields = Headers::new(fields.to_vec());

        let headers = fields.edited(&["c".into()], &[("a".into(), Secret::new("new"))]);

        let expected: [(&str, &[u8]); 2] = [("b", b"old"), ("a", b"new")];
        assert!(headers.fields().eq(expected));
    }

    #[test]
    fn urls_in_normal_form_are_kept_as_written() {
        for text in [
            "https://acme.example",
            "https://acme.example/",
            "https://acme.example:8443/a/b?x=y",
            "http://127.0.0.1:80/mcp",
            "http://[::1]:8080/mcp",
        ] {
            let text = text.replace(":80/", ":8000/");
            assert_eq!(Url::parse(&text).map(|url| url.as_str().to_owned()), Some(text));
        }
    }

    #[test]
    fn urls_that_a_parser_would_rewrite_are_refused() {
        for text in [
            "",
            "acme.example",
            "ftp://acme.example",
            "https://ACME.example/",
            "https://acme.example:443/",
            "https://acme.example/a/../b",
            "https://acme.example/a b",
            "https://acme.example/#x",
            "https://u:p@acme.example/",
            "https://acme.example ",
            " https://acme.example",
            "https:///x",
            "https:\\\\acme.example",
        ] {
            assert_eq!(Url::parse(text), None, "{text}");
        }
    }

    #[test]
    fn well_known_suffixes_go_between_authority_and_path() {
        let well_known = |text| Url::parse(text).unwrap().with_well_known("/.well-known/x");

        assert_eq!(well_known("https://a.example").as_str(), "https://a.example/.well-known/x");
        assert_eq!(well_known("https://a.example/").as_str(), "https://a.example/.well-known/x");
        assert_eq!(
            well_known("https://a.example/t?k=v").as_str(),
            "https://a.example/.well-known/x/t?k=v"
        );
    }
}
