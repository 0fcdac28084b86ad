//! SAML 2.0 assertions that callers present, to be exchanged at the identity provider (SAML Core §2,
//! SAML Profiles §4.1.4.2, RFC 8693 §3).
//!
//! **The signature is not verified here.** One must be there, and the identity provider, which the
//! assertion is sent on to and which issued it, verifies it. So nothing that is read here tells who the
//! user is, and nothing of it may become the key of a cache but a hash of all its bytes.

use crate::secret::Secret;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use document::{Document, Name, Node};

mod date_time;
mod document;

/// Longest credential read, encoded.
pub const MAX_TEXT: usize = 48 * 1024;
/// Longest `ID`.
const MAX_ID: usize = 256;
/// Most IDs. Each is compared with all others.
const MAX_IDS: usize = 64;

const ASSERTION: Name = ("urn:oasis:names:tc:SAML:2.0:assertion", "Assertion");
const RESPONSE: Name = ("urn:oasis:names:tc:SAML:2.0:protocol", "Response");
const SIGNATURE: Name = ("http://www.w3.org/2000/09/xmldsig#", "Signature");
const SUCCESS: &str = "urn:oasis:names:tc:SAML:2.0:status:Success";
const BEARER: &str = "urn:oasis:names:tc:SAML:2.0:cm:bearer";

/// What is wrong with an assertion. The caller learns none of this; the log does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Longer than 48 KiB, or more elements, attributes or namespaces than any real one has.
    TooLarge,
    /// Neither base64 nor base64url, with right padding or none.
    Base64,
    /// Not UTF-8, or declared to be something else.
    Charset,
    /// A DTD, a comment, a CDATA section or a processing instruction: SAML has no use for them.
    Markup,
    /// Not well-formed XML with namespaces.
    Xml,
    /// The root is not the element that was expected, or not of version 2.0.
    Root,
    /// More than one assertion, an encrypted one, a signature over something else, an ID used twice: two
    /// readers could take different elements for the assertion.
    Wrapping,
    /// An element is absent or there more than once, or an attribute is absent.
    Missing(&'static str),
    /// The response does not say that authentication succeeded.
    Status,
    /// There is no signature.
    Unsigned,
    /// `Issuer` is not the identity provider.
    Issuer,
    /// An `AudienceRestriction` leaves us out, or there is none.
    Audience,
    /// A condition that is not known here (SAML Core §2.5.1.1).
    Condition,
    /// No bearer confirmation that is good now.
    Confirmation,
    /// A time is not an `xsd:dateTime` in UTC.
    Time,
    /// `NotBefore` has not come.
    NotYetValid,
    /// `NotOnOrAfter` has passed.
    Expired,
}

impl Fault {
    /// Stable code for logs and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::TooLarge => "saml_too_large",
            Self::Base64 => "saml_base64",
            Self::Charset => "saml_charset",
            Self::Markup => "saml_markup",
            Self::Xml => "saml_xml",
            Self::Root => "saml_root",
            Self::Wrapping => "saml_wrapping",
            Self::Missing(_) => "saml_missing",
            Self::Status => "saml_status",
            Self::Unsigned => "saml_unsigned",
            Self::Issuer => "saml_issuer",
            Self::Audience => "saml_audience",
            Self::Condition => "saml_condition",
            Self::Confirmation => "saml_confirmation",
            Self::Time => "saml_time",
            Self::NotYetValid => "saml_not_yet_valid",
            Self::Expired => "saml_expired",
        }
    }
}

/// Which element the credential is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// An `Assertion`.
    Assertion,
    /// A `Response` with one `Assertion` in it.
    Response,
}

/// What an assertion is checked against.
pub struct Expected<'a> {
    /// Entity identifier of the identity provider.
    pub issuer: &'a str,
    /// Entity identifier of the service provider that it must have been issued to.
    pub audience: &'a str,
    /// Now, in seconds since the epoch.
    pub now: u64,
    /// Clock skew allowed, in seconds.
    pub skew: u64,
    /// What the identity provider wants sent, hence the only thing taken.
    pub payload: Payload,
}

/// How an assertion is written in a token request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 4648 §4, padded.
    Base64,
    /// RFC 4648 §5 without padding (RFC 8693 §3).
    Base64Url,
}

/// An assertion that has passed every check made here. Only [`check`] makes one.
#[derive(Debug, Clone)]
pub struct Assertion {
    /// `ID` of the assertion. Not verified: to be remembered, against replay, once the identity provider
    /// has taken the assertion and no sooner, or anybody could use up the ID of another's.
    pub id: String,
    /// When the first of its limits is reached, in seconds since the epoch. Not verified.
    pub expires_at: u64,
    xml: Secret,
}

impl Assertion {
    /// The XML as it was received, byte for byte.
    pub fn xml(&self) -> &[u8] {
        self.xml.expose().as_bytes()
    }

    /// The XML as it is sent on.
    pub fn encode(&self, encoding: Encoding) -> Secret {
        Secret::new(match encoding {
            Encoding::Base64 => STANDARD.encode(self.xml()),
            Encoding::Base64Url => URL_SAFE_NO_PAD.encode(self.xml()),
        })
    }
}

/// Checks a credential: `credential` is base64 or base64url, padded or not, of the XML.
///
/// In this order: form; one signed `Assertion` where it belongs; `Issuer`; `Conditions`, of which the
/// window and an audience must be there; a bearer `SubjectConfirmation` that has not ended.
///
/// Does *not* check: the signature, see above; `Recipient`, `InResponseTo` and `Destination`, which bind
/// the assertion to a login that this filter did not make; single use.
pub fn check(credential: &[u8], expected: &Expected<'_>) -> Result<Assertion, Fault> {
    let xml = String::from_utf8(decode(credential)?).map_err(|_| Fault::Charset)?;
    let (id, expires_at) = read(&xml, expected)?;
    Ok(Assertion { id, expires_at, xml: Secret::new(xml) })
}

/// ID and end of the assertion in `xml`.
fn read(xml: &str, expected: &Expected<'_>) -> Result<(String, u64), Fault> {
    let document = document::parse(xml)?;
    refuse_wrapping(&document)?;
    let root = document.elements().next().ok_or(Fault::Xml)?;
    let (assertion, in_signed) = match expected.payload {
        Payload::Assertion => (root, false),
        Payload::Response => in_response(root, expected)?,
    };
    let id = id(assertion, ASSERTION)?;
    if !is_signed(assertion)? && !in_signed {
        return Err(Fault::Unsigned);
    }
    if !assertion.only((ASSERTION.0, "Issuer"))?.says(expected.issuer) {
        return Err(Fault::Issuer);
    }
    let ends = conditions(assertion, expected)?.min(confirmation(assertion, expected)?);
    Ok((id.to_owned(), ends))
}

fn decode(credential: &[u8]) -> Result<Vec<u8>, Fault> {
    if credential.len() > MAX_TEXT {
        return Err(Fault::TooLarge);
    }
    let is_url = credential.iter().any(|byte| matches!(byte, b'-' | b'_'));
    let engine = match (is_url, credential.ends_with(b"=")) {
        (false, false) => &STANDARD_NO_PAD,
        (false, true) => &STANDARD,
        (true, false) => &URL_SAFE_NO_PAD,
        (true, true) => &URL_SAFE,
    };
    engine.decode(credential).map_err(|_| Fault::Base64)
}

/// Whoever verifies the signature must not be led to another element than we read (XML signature
/// wrapping). Names count in any namespace.
fn refuse_wrapping(document: &Document<'_>) -> Result<(), Fault> {
    let mut assertions = 0;
    let mut ids = Vec::new();
    for node in document.elements() {
        let is_misplaced = match node.local_name() {
            "Assertion" => {
                assertions += 1;
                assertions > 1
            }
            "EncryptedAssertion" => true,
            "Response" => !node.is_root(),
            "Signature" => !matches!(node.parent_name(), "Assertion" | "Response"),
            _ => false,
        };
        if is_misplaced {
            return Err(Fault::Wrapping);
        }
        // `ID` in SAML, `Id` in XML Signature, `xml:id` anywhere.
        let is_id = |name: &str| {
            name.rsplit(':').next().is_some_and(|name| name.eq_ignore_ascii_case("id"))
        };
        for (_, id) in node.attributes().filter(|(name, _)| is_id(name)) {
            if ids.contains(&id) || !is_plain(id) {
                return Err(Fault::Wrapping);
            }
            if ids.len() == MAX_IDS {
                return Err(Fault::TooLarge);
            }
            ids.push(id);
        }
    }
    Ok(())
}

/// Whether an ID has neither references nor blanks: one that had could be equal to another that does not
/// look it.
fn is_plain(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_ID && id.bytes().all(|byte| byte > b' ' && byte != b'&')
}

/// The ID of `node`, which must have this name and be of version 2.0.
fn id<'a>(node: Node<'a>, name: Name) -> Result<&'a str, Fault> {
    if !node.is(name) || node.attribute("Version")? != "2.0" {
        return Err(Fault::Root);
    }
    node.attribute("ID")
}

/// The assertion of a response that tells of success, and whether the response is signed.
fn in_response<'a>(response: Node<'a>, expected: &Expected<'_>) -> Result<(Node<'a>, bool), Fault> {
    id(response, RESPONSE)?;
    let status = response.only((RESPONSE.0, "Status"))?.only((RESPONSE.0, "StatusCode"))?;
    if status.attribute("Value")? != SUCCESS {
        return Err(Fault::Status);
    }
    if !response.each((ASSERTION.0, "Issuer")).all(|issuer| issuer.says(expected.issuer)) {
        return Err(Fault::Issuer);
    }
    Ok((response.only(ASSERTION)?, is_signed(response)?))
}

/// Whether `node` has a signature, which must say that it is over `node` (SAML Core §5.4.2: one
/// reference, to the ID of the element it is in). What it says is not verified.
fn is_signed(node: Node<'_>) -> Result<bool, Fault> {
    if node.each(SIGNATURE).next().is_none() {
        return Ok(false);
    }
    let info = node.only(SIGNATURE)?.only((SIGNATURE.0, "SignedInfo"))?;
    let uri = info.only((SIGNATURE.0, "Reference"))?.attribute("URI")?;
    if uri.strip_prefix('#') != Some(node.attribute("ID")?) {
        return Err(Fault::Wrapping);
    }
    Ok(true)
}

/// `Conditions` hold (SAML Core §2.5.1): the window, and each `AudienceRestriction` names us. Returns
/// when they end.
fn conditions(assertion: Node<'_>, expected: &Expected<'_>) -> Result<u64, Fault> {
    let conditions = assertion.only((ASSERTION.0, "Conditions"))?;
    let ends = ends(conditions, expected)?;
    if let Some(begins) = conditions.optional("NotBefore") {
        let begins = date_time::parse(begins).ok_or(Fault::Time)?;
        if begins > expected.now.saturating_add(expected.skew) {
            return Err(Fault::NotYetValid);
        }
    }
    let mut is_restricted = false;
    for condition in conditions.children() {
        if condition.is((ASSERTION.0, "AudienceRestriction")) {
            let mut audiences = condition.each((ASSERTION.0, "Audience"));
            if !audiences.any(|audience| audience.says(expected.audience)) {
                return Err(Fault::Audience);
            }
            is_restricted = true;
        } else if !condition.is((ASSERTION.0, "OneTimeUse"))
            && !condition.is((ASSERTION.0, "ProxyRestriction"))
        {
            return Err(Fault::Condition);
        }
    }
    if is_restricted { Ok(ends) } else { Err(Fault::Audience) }
}

/// When the last of the bearer confirmations ends that are good now. Such a one has a `NotOnOrAfter` and
/// no `NotBefore` (SAML Profiles §4.1.4.2).
fn confirmation(assertion: Node<'_>, expected: &Expected<'_>) -> Result<u64, Fault> {
    let subject = assertion.only((ASSERTION.0, "Subject"))?;
    let mut last = Err(Fault::Confirmation);
    for confirmation in subject.each((ASSERTION.0, "SubjectConfirmation")) {
        let data = confirmation.only((ASSERTION.0, "SubjectConfirmationData"));
        if let Ok(data) = data
            && confirmation.optional("Method") == Some(BEARER)
            && data.optional("NotBefore").is_none()
            && let Ok(ends) = ends(data, expected)
        {
            last = Ok(last.map_or(ends, |last: u64| last.max(ends)));
        }
    }
    last
}

/// `NotOnOrAfter` of `node`, which must be there and not have passed.
fn ends(node: Node<'_>, expected: &Expected<'_>) -> Result<u64, Fault> {
    let ends = date_time::parse(node.attribute("NotOnOrAfter")?).ok_or(Fault::Time)?;
    if expected.now >= ends.saturating_add(expected.skew) {
        return Err(Fault::Expired);
    }
    Ok(ends)
}
