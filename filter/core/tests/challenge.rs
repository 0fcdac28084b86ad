//! What a server's `WWW-Authenticate` says, and all the ways in which it does not.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use jagway_core::challenge::{Challenge, Scheme, read};
use jagway_core::http::{Headers, Url};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn of(fields: &[&[u8]]) -> Vec<Challenge> {
    let field = |value: &&[u8]| ("www-authenticate".to_owned(), value.to_vec());
    read(&Headers::new(fields.iter().map(field).collect()))
}

fn schemes(field: &str) -> Vec<Scheme> {
    of(&[field.as_bytes()]).iter().map(|challenge| challenge.scheme).collect()
}

#[test]
fn a_challenge_says_what_is_wanted() {
    let field = br#"Bearer realm="mcp", error="invalid_token", scope="a b:c", max_age=60,
 resource_metadata="https://a.example/.well-known/oauth-protected-resource/mcp", acr_values="urn:x y""#;
    let field: Vec<u8> = field.iter().copied().filter(|byte| *byte != b'\n').collect();

    let found = of(&[&field]);

    let [challenge] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(challenge.scheme, Scheme::Bearer);
    assert_eq!(challenge.error(), Some("invalid_token"));
    assert_eq!(challenge.scope(), Some("a b:c"));
    assert_eq!(challenge.acr_values(), Some("urn:x y"));
    assert_eq!(challenge.max_age(), Some(60));
    let url = "https://a.example/.well-known/oauth-protected-resource/mcp";
    assert_eq!(challenge.resource_metadata(), Url::parse(url));
}

#[test]
fn challenges_come_in_one_field_or_in_several() {
    use Scheme::*;
    let cases: [(&str, &[Scheme]); 12] = [
        ("", &[]),
        (" , ,", &[]),
        ("Bearer", &[Bearer]),
        ("bEARER ,", &[Bearer]),
        ("Bearer,DPoP", &[Bearer, Dpop]),
        ("Bearer a=b, DPoP algs=\"ES256\", c=d, Basic", &[Bearer, Dpop, Other]),
        ("Negotiate abc==, Bearer a = \"b\"", &[Other, Bearer]),
        ("Newauth a=\"Bearer x=y, DPoP\", title=\"\\\"DPoP\\\"\" , Bearer", &[Other, Bearer]),
        ("Basic a+/~==\t,\tDPoP", &[Other, Dpop]),
        ("Bearer   error=x", &[Bearer]),
        ("Bearer , error=x", &[Bearer]),
        ("Bearer error\t=\tx", &[Bearer]),
    ];

    for (field, expected) in cases {
        assert_eq!(schemes(field), expected, "{field}");
    }
    let several = of(&[b"Bearer error=a", b"DPoP error=b"]);
    let errors: Vec<_> = several.iter().map(|challenge| challenge.error()).collect();
    assert_eq!(errors, [Some("a"), Some("b")]);
}

#[test]
fn a_parameter_belongs_to_the_challenge_before_it() {
    let found = of(&[br#"Bearer error="a", DPoP scope="x", ERROR="b", Basic error="c""#]);

    let errors: Vec<_> = found.iter().map(|challenge| challenge.error()).collect();
    let scopes: Vec<_> = found.iter().map(|challenge| challenge.scope()).collect();
    assert_eq!(errors, [Some("a"), Some("b"), None], "of another scheme nothing is kept");
    assert_eq!(scopes, [None, Some("x"), None]);
}

#[test]
fn a_field_that_is_malformed_is_left_out_and_the_others_are_not() {
    let malformed: [&[u8]; 20] = [
        b"error=\"x\"",
        b"\"Bearer\"",
        b"Bearer error=",
        b"Bearer a=b, error=",
        b"Bearer error=\"x",
        b"Bearer error=\"x\\",
        b"Bearer error=\"x\"y",
        b"Bearer error=\"x\" scope=\"y\"",
        b"Bearer error=\"x\ny\"",
        b"Bearer error=\"x\\\0\"",
        b"Bearer error=\"x\x7f\"",
        b"Bearer =x",
        b"Bearer\terror=x",
        b"Bearer \t error=x",
        b"Bearer/1 error=x",
        b"Bearer resource_metadata=https://a.example/",
        b"Bearer abc=, error=x",
        b"Bearer a==b",
        b"Bearer error=\xff",
        b"DPoP; error=x",
    ];

    for field in malformed {
        // `error=` alone could be a token68.
        let found = of(&[field, b"DPoP error=\"x\""]);
        let errors: Vec<_> = found.iter().filter_map(Challenge::error).collect();
        assert_eq!(errors, ["x"], "{}", String::from_utf8_lossy(field));
    }
}

#[test]
fn a_value_that_is_not_well_formed_is_none() {
    let cases = [
        r#"error="", scope="", acr_values="", max_age="", resource_metadata="""#,
        r#"error="a b", scope=" a", acr_values="a  b", max_age=+1, resource_metadata="/x""#,
        r#"error="a\"b", scope="a\"b", acr_values="a\"b", max_age=-1, resource_metadata=x"#,
        r#"error="a\\b", scope="a\\b", acr_values="a\\b", max_age=1.5"#,
        r#"error="ä", scope="ä", acr_values="ä", max_age=99999999999999999999"#,
        "error=\"a\tb\", scope=\"a\tb\", acr_values=\"a\tb\", max_age=\" 1\"",
        r#"resource_metadata="https://a.example/#x", max_age=0x1"#,
        r#"resource_metadata="https://u@a.example/", max_age="1 ""#,
        r#"resource_metadata="https://a.example/../x""#,
        r#"error=a, Error=a, scope=a, scope=b, acr_values=a, acr_values=a, max_age=1, max_age=1"#,
    ];

    for parameters in cases {
        let found = of(&[format!("Bearer {parameters}").as_bytes()]);
        let [challenge] = found.as_slice() else { panic!("{parameters}: {found:?}") };
        assert_eq!(challenge.error(), None, "{parameters}");
        assert_eq!(challenge.scope(), None, "{parameters}");
        assert_eq!(challenge.acr_values(), None, "{parameters}");
        assert_eq!(challenge.max_age(), None, "{parameters}");
        assert_eq!(challenge.resource_metadata(), None, "{parameters}");
    }
}

#[test]
fn there_is_a_bound_to_everything() {
    let challenges = |count| vec!["Bearer"; count].join(",");
    let parameters = |count| format!("DPoP {}", vec!["a=b"; count].join(","));
    let bytes = |count: usize| format!("DPoP a=\"{}\"", "x".repeat(count - 9));

    assert_eq!(schemes(&challenges(8)).len(), 8);
    assert_eq!(schemes(&challenges(9)).len(), 0);
    assert_eq!(schemes(&parameters(16)).len(), 1);
    assert_eq!(schemes(&parameters(17)).len(), 0);
    assert_eq!(schemes(&bytes(4096)).len(), 1);
    assert_eq!(schemes(&bytes(4097)).len(), 0);
    assert_eq!(of(&vec![b"Bearer".as_slice(); 1000]).len(), 8);
    let (long, short) = (bytes(4095), b"Bearer".as_slice());
    assert_eq!(of(&[long.as_bytes(), short]).len(), 1, "together they are too long");
}
