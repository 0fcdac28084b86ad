//! SAML assertions as callers present them: sound ones, hostile ones, and another reader's view of them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use jagway_core::saml::{Assertion, Encoding, Expected, Fault, Payload, check};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// 2027-01-15T08:00:00Z
const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://idp.example/entity?a=1&b=2";
const AUDIENCE: &str = "urn:acme:gateway";

const SIGNATURE: &str = r##"<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:SignedInfo><ds:Reference URI="#_a1"><ds:DigestValue>eA==</ds:DigestValue></ds:Reference></ds:SignedInfo><ds:SignatureValue>eHh4&#13;
eA==</ds:SignatureValue></ds:Signature>"##;
const ASSERTION: &str = r##"<saml:Assertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" xmlns:xs="http://www.w3.org/2001/XMLSchema" ID="_a1" IssueInstant="2027-01-15T07:59:59Z" Version="2.0">
  <saml:Issuer>https://idp.example/entity?a=1&amp;b=2</saml:Issuer>$SIGNATURE
  <saml:Subject>
    <saml:NameID>alice@acme.example</saml:NameID>
    <saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer">
      <saml:SubjectConfirmationData NotOnOrAfter="2027-01-15T08:05:00Z" Recipient="https://x.example/acs?a=1&amp;b=2"/>
    </saml:SubjectConfirmation>
  </saml:Subject>
  <saml:Conditions NotBefore="2027-01-15T07:59:00.123Z" NotOnOrAfter="2027-01-15T09:00:00.999Z">
    <saml:AudienceRestriction><saml:Audience>urn:acme:other</saml:Audience><saml:Audience>urn:acme:gateway</saml:Audience></saml:AudienceRestriction>
  </saml:Conditions>
  <saml:AuthnStatement AuthnInstant="2027-01-15T07:59:59Z"><saml:AuthnContext/></saml:AuthnStatement>
  <saml:AttributeStatement><saml:Attribute Name="groups">
    <saml:AttributeValue xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="xs:string">Füße > &lt;Hände&gt; &#xe9;</saml:AttributeValue>
  </saml:Attribute></saml:AttributeStatement>
</saml:Assertion>"##;
const RESPONSE: &str = r##"<?xml version="1.0" encoding="UTF-8"?>
<samlp:Response xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" ID='_r1' Version='2.0' Destination="https://x.example/acs">
  <Issuer xmlns="urn:oasis:names:tc:SAML:2.0:assertion">https://idp.example/entity?a=1&amp;b=2</Issuer>
  <samlp:Status><samlp:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success" /></samlp:Status>
  $ASSERTION
</samlp:Response>
"##;

fn assertion() -> String {
    ASSERTION.replace("$SIGNATURE", SIGNATURE)
}

fn response() -> String {
    RESPONSE.replace("$ASSERTION", &assertion())
}

fn expected(payload: Payload, now: u64) -> Expected<'static> {
    Expected { issuer: ISSUER, audience: AUDIENCE, now, skew: 60, payload }
}

fn read(xml: impl AsRef<[u8]>, payload: Payload) -> Result<Assertion, Fault> {
    check(STANDARD.encode(xml).as_bytes(), &expected(payload, NOW))
}

fn assert_refused(cases: &[(&str, String, Fault)], payload: Payload) {
    for (what, xml, fault) in cases {
        assert_eq!(read(xml, payload).err(), Some(*fault), "{what}");
    }
}

/// The assertion with `old`, which is in it, replaced.
fn with(old: &str, new: &str) -> String {
    let assertion = assertion();
    assert!(assertion.contains(old), "{old}");
    assertion.replace(old, new)
}

#[test]
fn a_sound_assertion_is_passed_on_as_it_came() {
    let as_sent = assertion();
    let spellings = [
        STANDARD.encode(&as_sent),
        STANDARD_NO_PAD.encode(&as_sent),
        URL_SAFE.encode(&as_sent),
        URL_SAFE_NO_PAD.encode(&as_sent),
    ];

    for text in spellings {
        let assertion = check(text.as_bytes(), &expected(Payload::Assertion, NOW)).unwrap();

        assert_eq!((assertion.id.as_str(), assertion.expires_at), ("_a1", NOW + 300));
        assert_eq!(assertion.xml(), as_sent.as_bytes());
        assert_eq!(assertion.encode(Encoding::Base64).expose(), STANDARD.encode(&as_sent));
        let url = URL_SAFE_NO_PAD.encode(&as_sent);
        assert_eq!(assertion.encode(Encoding::Base64Url).expose(), url);
        assert!(!format!("{assertion:?}").contains("Subject"));
    }
}

#[test]
fn a_response_is_taken_where_a_response_is_expected_and_an_assertion_where_that_is() {
    let of_response = SIGNATURE.replace("_a1", "_r1");
    let signed_outside = RESPONSE
        .replace("$ASSERTION", &ASSERTION.replace("$SIGNATURE", ""))
        .replace("  <samlp:Status>", &format!("{of_response}<samlp:Status>"));

    assert_eq!(read(response(), Payload::Response).unwrap().id, "_a1");
    assert_eq!(read(signed_outside, Payload::Response).unwrap().id, "_a1");
    assert_eq!(read(assertion(), Payload::Response).err(), Some(Fault::Root));
    assert_eq!(read(response(), Payload::Assertion).err(), Some(Fault::Root));
}

#[test]
fn what_is_not_the_encoding_of_a_text_is_refused() {
    let sound = STANDARD.encode(assertion());
    let mixed = "-_+/".repeat(4);
    let cases: Vec<(&str, Vec<u8>, Fault)> = vec![
        ("nothing", Vec::new(), Fault::Xml),
        ("a blank", format!("{sound} ").into_bytes(), Fault::Base64),
        ("a line break", format!("{}\n{}", &sound[..4], &sound[4..]).into_bytes(), Fault::Base64),
        ("the XML itself", assertion().into_bytes(), Fault::Base64),
        ("two alphabets", mixed.into_bytes(), Fault::Base64),
        ("too much padding", b"PGE+==".to_vec(), Fault::Base64),
        ("too little padding", b"PGEvPg=".to_vec(), Fault::Base64),
        ("trailing bits", b"PGEvPh==".to_vec(), Fault::Base64),
        ("a megabyte", vec![b'A'; 1 << 20], Fault::TooLarge),
        ("a byte too many", vec![b'A'; 48 * 1024 + 1], Fault::TooLarge),
        ("no UTF-8", STANDARD.encode(b"<a>\xff</a>").into_bytes(), Fault::Charset),
        ("UTF-16", STANDARD.encode(b"\xff\xfe<\0a\0/\0>\0").into_bytes(), Fault::Charset),
    ];

    for (what, text, fault) in cases {
        let result = check(&text, &expected(Payload::Assertion, NOW));
        assert_eq!(result.err(), Some(fault), "{what}");
    }
}

#[test]
fn whatever_of_xml_saml_has_no_use_for_is_refused() {
    let sound = assertion();
    let laughs =
        r#"<!DOCTYPE a [<!ENTITY l "ha"><!ENTITY m "&l;&l;&l;&l;&l;&l;&l;&l;">]><a>&m;</a>"#;
    let xxe = r#"<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>"#;
    let deep = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
    let wide = format!("<a>{}</a>", "<b/>".repeat(2048));
    let attributes: Vec<String> = (0..33).map(|n| format!("a{n}=''")).collect();
    let declared = |declaration: &str| format!("{declaration}{sound}");
    let utf7 = "<?xml version=\"1.0\" encoding=\"utf-7\"?>";
    let tricky = "<?xml version=\"1.0\" encoding=\"utf-7\" standalone=\"encoding=utf-8\"?>";

    let cases = [
        ("a DTD", format!("{xxe}{sound}"), Fault::Markup),
        ("a DTD after blanks", format!(" \n{xxe}{sound}"), Fault::Markup),
        ("a billion laughs", laughs.to_owned(), Fault::Markup),
        ("an entity of no DTD", with("alice", "&x;"), Fault::Xml),
        ("a stylesheet", declared("<?xml-stylesheet href='x'?>"), Fault::Xml),
        ("an instruction", with("<saml:Subject>", "<?x y?><saml:Subject>"), Fault::Markup),
        ("a comment in a name", with("alice@", "alice<!---->@"), Fault::Markup),
        ("a comment in the issuer", with("idp.example/e", "idp.exam<!-- -->ple/e"), Fault::Markup),
        ("a CDATA section", with("alice", "<![CDATA[alice]]>"), Fault::Markup),
        ("another encoding", declared(utf7), Fault::Charset),
        ("another encoding, hidden", declared(tricky), Fault::Charset),
        ("XML 1.1", declared("<?xml version='1.1'?>"), Fault::Xml),
        ("no version", declared("<?xml encoding='utf-8'?>"), Fault::Xml),
        ("blanks before the declaration", format!(" {}", response()), Fault::Markup),
        ("two roots", format!("{sound}{sound}"), Fault::Xml),
        ("text after the root", format!("{sound}x"), Fault::Xml),
        ("text before the root", format!("x{sound}"), Fault::Xml),
        ("a root that does not end", sound.replace("</saml:Assertion>", ""), Fault::Xml),
        ("an end too many", format!("{sound}</saml:Assertion>"), Fault::Xml),
        ("a prefix nobody declared", with("<saml:NameID>", "<x:NameID>"), Fault::Xml),
        ("an attribute twice", with("Version=", "ID='_a2' Version="), Fault::Xml),
        ("an attribute under two prefixes", with("Version=", "saml:ID='_a2' Version="), Fault::Xml),
        ("attributes not set apart", with("\" Version=", "\"Version="), Fault::Xml),
        ("a null", with("alice", "al\0ice"), Fault::Xml),
        ("a reference to null", with("alice", "al&#0;ice"), Fault::Xml),
        ("no XML", "x".repeat(1000), Fault::Xml),
        ("all openings", "<".repeat(30_000), Fault::Xml),
        ("all references", "&".repeat(30_000), Fault::Xml),
        ("65 levels", deep(65), Fault::TooLarge),
        ("5,000 levels", deep(5000), Fault::TooLarge),
        ("10,000 levels that do not end", "<a>".repeat(10_000), Fault::TooLarge),
        ("2,049 elements", wide, Fault::TooLarge),
        ("33 attributes", format!("<a {}/>", attributes.join(" ")), Fault::TooLarge),
    ];

    assert_refused(&cases, Payload::Assertion);
}

#[test]
fn what_could_lead_two_readers_to_two_assertions_is_refused() {
    let sound = assertion();
    let evil = ASSERTION.replace("$SIGNATURE", "").replace("_a1", "_evil");
    let in_response = |content: &str| RESPONSE.replace("$ASSERTION", content);
    // XSW1 and XSW2 wrap the response, XSW3 to XSW8 the assertion.
    let object = format!("{sound}</ds:Object></ds:Signature>");
    let evil_around =
        |inside: &str| evil.replace("<saml:Subject>", &format!("{inside}<saml:Subject>"));
    let signature_around = SIGNATURE.replace("</ds:Signature>", &format!("<ds:Object>{object}"));

    let cases = [
        ("beside, first", in_response(&format!("{evil}{sound}"))),
        ("beside, last", in_response(&format!("{sound}{evil}"))),
        ("in the forged one", in_response(&evil_around(&sound))),
        ("in the forged one's signature", in_response(&evil_around(&signature_around))),
        (
            "in extensions",
            in_response(&format!("<samlp:Extensions>{sound}</samlp:Extensions>{evil}")),
        ),
        ("in advice", in_response(&evil_around(&format!("<saml:Advice>{sound}</saml:Advice>")))),
        ("of another namespace", in_response(&format!("{sound}<x:Assertion xmlns:x='urn:x'/>"))),
        ("a response in a response", in_response(&response().replace(&RESPONSE[..39], ""))),
        (
            "encrypted",
            in_response(&format!("{sound}<saml:EncryptedAssertion xmlns:saml='urn:x'/>")),
        ),
        ("an ID twice", response().replace("_r1", "_a1")),
        (
            "an ID twice, in another case",
            in_response(&sound.replace("<saml:NameID>", "<saml:NameID Id='_a1'>")),
        ),
        ("an xml:id", in_response(&sound.replace("<saml:NameID>", "<saml:NameID xml:id='_a1'>"))),
        ("an ID spelled with a reference", response().replace("'_r1'", "'&#95;a1'")),
        ("an ID with blanks", response().replace("'_r1'", "' _a1'")),
        ("an empty ID", response().replace("'_r1'", "''")),
        ("a signature over another", response().replace("#_a1", "#_r1")),
        ("a signature over all", response().replace("#_a1", "")),
        (
            "a signature that is elsewhere",
            in_response(
                &ASSERTION
                    .replace("$SIGNATURE", "")
                    .replace("<saml:NameID>", &format!("{SIGNATURE}<saml:NameID>")),
            ),
        ),
    ];

    for (what, xml) in cases {
        assert_eq!(read(&xml, Payload::Response).err(), Some(Fault::Wrapping), "{what}");
    }
}

#[test]
fn an_assertion_that_is_not_what_it_should_be_is_refused() {
    let success = "status:Success";
    let twice = |element: &str| with(element, &format!("{element}{element}"));
    let issuer = "<saml:Issuer>https://idp.example/entity?a=1&amp;b=2</saml:Issuer>";
    let restriction = "<saml:AudienceRestriction>";
    let foreign =
        format!("{restriction}<saml:Audience>urn:x</saml:Audience></saml:AudienceRestriction>");
    let begin = "<saml:Conditions";
    let data = "NotOnOrAfter=\"2027-01-15T08:05:00Z\"";
    let unsigned = ASSERTION.replace("$SIGNATURE", "");

    assert_refused(
        &[
            ("SAML 1.1's namespace", with("SAML:2.0:assertion", "SAML:1.0:assertion"), Fault::Root),
            ("no namespace", assertion().replace("saml:", ""), Fault::Root),
            ("another version", with("Version=\"2.0\"", "Version=\"1.1\""), Fault::Root),
            ("no version", with("Version=\"2.0\"", ""), Fault::Missing("Version")),
            ("no ID", with(" ID=\"_a1\"", ""), Fault::Missing("ID")),
            ("an ID of another namespace", with(" ID=", " saml:ID="), Fault::Missing("ID")),
            ("no signature", unsigned, Fault::Unsigned),
            ("a signature that is none", with("09/xmldsig#", "09/xmldsig"), Fault::Unsigned),
            ("two signatures", twice(SIGNATURE), Fault::Missing("Signature")),
            ("another issuer", with("idp.example/entity", "evil.example/entity"), Fault::Issuer),
            ("an issuer and more", with("b=2</", "b=22</"), Fault::Issuer),
            ("an issuer with a blank", with("b=2</", "b=2 </"), Fault::Issuer),
            ("an issuer in an element", with("b=2</", "b=2<x/></"), Fault::Issuer),
            ("no issuer", with(issuer, ""), Fault::Missing("Issuer")),
            ("two issuers", twice(issuer), Fault::Missing("Issuer")),
            ("another audience", with(":gateway", ":gateway2"), Fault::Audience),
            ("an audience of another case", with(":gateway", ":Gateway"), Fault::Audience),
            (
                "a second restriction",
                with(restriction, &format!("{foreign}{restriction}")),
                Fault::Audience,
            ),
            (
                "no restriction",
                assertion().replace("AudienceRestriction", "ProxyRestriction"),
                Fault::Audience,
            ),
            (
                "a condition nobody knows",
                with(restriction, &format!("<saml:Condition/>{restriction}")),
                Fault::Condition,
            ),
            (
                "no conditions",
                assertion().replace("Conditions", "Other"),
                Fault::Missing("Conditions"),
            ),
            (
                "conditions twice",
                with(begin, "<saml:Conditions/><saml:Conditions"),
                Fault::Missing("Conditions"),
            ),
            (
                "no end",
                with("NotOnOrAfter=\"2027-01-15T09", "X=\"2027-01-15T09"),
                Fault::Missing("NotOnOrAfter"),
            ),
            (
                "an end of another namespace",
                with("NotOnOrAfter=\"2027-01-15T09", "xs:NotOnOrAfter=\"2027-01-15T09"),
                Fault::Missing("NotOnOrAfter"),
            ),
            ("a time of no zone", with("09:00:00.999Z", "09:00:00"), Fault::Time),
            ("a time of another zone", with("09:00:00.999Z", "09:00:00+01:00"), Fault::Time),
            ("a beginning that is no time", with("07:59:00.123Z", "soon"), Fault::Time),
            (
                "no subject",
                assertion().replace("saml:Subject>", "saml:Other>"),
                Fault::Missing("Subject"),
            ),
            ("a holder of a key", with("cm:bearer", "cm:holder-of-key"), Fault::Confirmation),
            ("no method", with("Method=", "method="), Fault::Confirmation),
            (
                "a confirmation with a beginning",
                with(data, &format!("{data} NotBefore=\"2027-01-15T07:00:00Z\"")),
                Fault::Confirmation,
            ),
            ("a confirmation with no end", with(data, ""), Fault::Confirmation),
            (
                "a confirmation that has ended",
                with(data, &data.replace("08:05", "07:05")),
                Fault::Confirmation,
            ),
        ],
        Payload::Assertion,
    );
    assert_refused(
        &[
            ("no success", response().replace(success, "status:Responder"), Fault::Status),
            (
                "no status",
                response().replace("samlp:Status>", "samlp:Other>"),
                Fault::Missing("Status"),
            ),
            ("no assertion", RESPONSE.replace("$ASSERTION", ""), Fault::Missing("Assertion")),
            ("another version", response().replace("'2.0'", "'3.0'"), Fault::Root),
            (
                "of another issuer",
                response().replacen("idp.example", "evil.example", 1),
                Fault::Issuer,
            ),
            (
                "no signature",
                RESPONSE.replace("$ASSERTION", &ASSERTION.replace("$SIGNATURE", "")),
                Fault::Unsigned,
            ),
        ],
        Payload::Response,
    );
}

#[test]
fn a_second_confirmation_may_be_of_another_kind() {
    let key = "<saml:SubjectConfirmation Method=\"urn:oasis:names:tc:SAML:2.0:cm:holder-of-key\"/>";
    let long = with("</saml:NameID>", &format!("</saml:NameID>{key}"));

    assert_eq!(read(long, Payload::Assertion).unwrap().expires_at, NOW + 300);
}

#[test]
fn an_assertion_is_good_within_its_times_and_the_skew() {
    let short = "2027-01-15T08:10:00Z";
    let by_conditions = with(":05:00Z", ":55:00Z").replace("2027-01-15T09:00:00.999Z", short);
    let by_confirmation = assertion();
    let cases = [
        (&by_conditions, NOW - 120, None),
        (&by_conditions, NOW - 121, Some(Fault::NotYetValid)),
        (&by_conditions, NOW + 659, None),
        (&by_conditions, NOW + 660, Some(Fault::Expired)),
        (&by_confirmation, NOW + 359, None),
        (&by_confirmation, NOW + 360, Some(Fault::Confirmation)),
        (&by_confirmation, u64::MAX, Some(Fault::Expired)),
    ];

    for (xml, now, fault) in cases {
        let text = STANDARD.encode(xml);
        let result = check(text.as_bytes(), &expected(Payload::Assertion, now));
        assert_eq!(result.err(), fault, "{now}");
    }
}

/// What is accepted here is well-formed to a reader of all XML too, and says the same to it.
#[test]
fn another_reader_of_xml_reads_the_same() {
    let sound = response();
    let bytes = br#"<>&;"'/=:!?-]# Aa_0"#;
    let mut accepted = 0;

    for at in 0..sound.len() {
        for (byte, cut) in [(at, 0), (at * 7 + 3, 1), (at * 5 + 1, 0), (at * 11 + 2, 1)] {
            let mut xml = sound.clone().into_bytes();
            xml.splice(at..at + cut, [bytes[byte % bytes.len()]]);
            if let Ok(assertion) = read(&xml, Payload::Response) {
                accepted += 1;
                assert_reads_the_same(core::str::from_utf8(&xml).unwrap(), &assertion);
            }
        }
    }

    assert!(accepted > 1000, "{accepted}");
}

fn assert_reads_the_same(xml: &str, assertion: &Assertion) {
    let document = match roxmltree::Document::parse(xml) {
        Ok(document) => document,
        Err(error) => panic!("{error} in {xml}"),
    };
    let saml = "urn:oasis:names:tc:SAML:2.0:assertion";
    let text = |name| {
        let mut nodes = document.descendants().filter(|node| node.has_tag_name((saml, name)));
        nodes.next_back().and_then(|node| node.text().map(str::to_owned))
    };

    let mut nodes = document.descendants();
    let element = nodes.find(|node| node.has_tag_name((saml, "Assertion"))).unwrap();
    assert_eq!(element.attribute("ID"), Some(assertion.id.as_str()), "{xml}");
    assert_eq!(text("Issuer").as_deref(), Some(ISSUER), "{xml}");
    let mut audiences = document.descendants().filter(|node| node.has_tag_name((saml, "Audience")));
    assert!(audiences.any(|audience| audience.text() == Some(AUDIENCE)), "{xml}");
}
