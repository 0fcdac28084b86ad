//! From a resource to its authorization server (RFC 9728): what is asked for, in which order, and whose
//! word is taken.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::config::Discovery;
use jagway_core::flow::{Moment, Step, Told, start};
use jagway_core::http::{Answer, CallFailed, Headers, Url};
use jagway_core::job::JobError;
use jagway_core::resource_discovery::{Fault, fetch, metadata_url, parse as read, well_known};
use jagway_core::site::{Note, Site};
use jagway_core::store::Memory;
use serde_json::{Value, json};
use std::rc::Rc;
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const RESOURCE: &str = "https://tickets.example/mcp";
const NAMED: &str = "https://tickets.example/metadata?of=mcp";
const PATH_FORM: &str = "https://tickets.example/.well-known/oauth-protected-resource/mcp";
const ROOT_FORM: &str = "https://tickets.example/.well-known/oauth-protected-resource";
const ALLOWED: [&str; 2] = ["https://one.example", "https://two.example/t"];

type Answered = Result<Answer, CallFailed>;

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

fn document(resource: &str, servers: Value) -> Value {
    json!({ "resource": resource, "authorization_servers": servers })
}

fn sound() -> Answered {
    json_answer(200, &document(RESOURCE, json!([ALLOWED[1]])))
}

fn challenged(challenges: &[&str]) -> Answer {
    let field = |text: &&str| ("www-authenticate".to_owned(), text.as_bytes().to_vec());
    let headers = Headers::new(challenges.iter().map(field).collect());
    Answer { status: 401, headers, body: b"not read".to_vec() }
}

fn naming(url: &str) -> Answered {
    Ok(challenged(&[&format!("Bearer resource_metadata=\"{url}\"")]))
}

/// Runs the discovery of `resource` with what `answer` says to each URL: the result, the URLs asked for,
/// and the log.
fn discovered(
    resource: &str,
    answer: &dyn Fn(&str) -> Answered,
) -> (Result<usize, JobError>, Vec<String>, String) {
    let site = Rc::new(Site::new(parse(&upgrade_config()), Rc::new(Memory::default())));
    let moment = Moment { now: NOW, entropy: [7; 32] };
    let discovery = Discovery {
        path: format!("resource {resource:?}"),
        cluster: "tickets".to_owned(),
        resource: url(resource),
        allowed: ALLOWED.map(str::to_owned).to_vec(),
    };
    let inside = site.clone();
    let journey = |ctx| async move { fetch(&ctx, &inside, &discovery).await };
    let mut asked = Vec::new();
    let mut step = start(journey, moment);
    loop {
        let (callout, flow) = match step {
            Step::Ask(jagway_core::flow::Ask::Call(callout), flow) => (callout, flow),
            Step::Done(result) => {
                let line = |note| match note {
                    Note::Warn(line) => line,
                    note => panic!("{note:?}"),
                };
                let log: Vec<_> = site.take_notes().into_iter().map(line).collect();
                return (result, asked, log.join("\n"));
            }
            _ => panic!("asks for what it must not"),
        };
        assert_eq!((callout.method, callout.cluster.as_str()), ("GET", "tickets"));
        assert!(callout.headers.iter().all(|(name, _)| *name == "accept"), "no credentials");
        let url = format!("https://{}{}", callout.authority, callout.path);
        step = flow.resume(Told::Call(answer(&url)), moment);
        asked.push(url);
    }
}

#[test]
fn the_metadata_that_a_challenge_names_is_asked_for_and_nothing_else() {
    let (result, asked, log) = discovered(RESOURCE, &|url| match url {
        RESOURCE => naming(NAMED),
        _ => sound(),
    });

    assert_eq!((result, log.as_str()), (Ok(1), ""));
    assert_eq!(asked, [RESOURCE, NAMED]);
}

#[test]
fn without_a_challenge_the_well_known_urls_are_asked_for() {
    let probes: [&dyn Fn() -> Answered; 5] = [
        &|| Ok(challenged(&[])),
        &|| answer(200, b""),
        &|| answer(404, b""),
        &|| Err(CallFailed::NoAnswer),
        &|| naming("https://elsewhere.example/metadata"),
    ];

    for probe in probes {
        let (at_path, asked_path, _) = discovered(RESOURCE, &|url| match url {
            RESOURCE => probe(),
            _ => sound(),
        });
        let (at_root, asked_root, _) = discovered(RESOURCE, &|url| match url {
            RESOURCE => probe(),
            ROOT_FORM => sound(),
            _ => answer(404, b""),
        });
        assert_eq!((at_path, asked_path), (Ok(1), vec![RESOURCE.into(), PATH_FORM.into()]));
        assert_eq!(at_root, Ok(1));
        assert_eq!(asked_root, [RESOURCE, PATH_FORM, ROOT_FORM]);
    }
}

#[test]
fn the_metadata_at_the_root_counts_only_if_it_is_this_resources() {
    let (result, _, log) = discovered(RESOURCE, &|url| match url {
        ROOT_FORM => json_answer(200, &document("https://tickets.example", json!([ALLOWED[0]]))),
        _ => answer(404, b""),
    });

    assert_eq!(result, Err(JobError::BadAnswer));
    assert!(
        log.contains("resource_metadata_of_another: OtherResource(\"https://tickets.example\")")
    );
}

#[test]
fn a_resource_without_a_path_has_one_well_known_url() {
    let (_, asked, _) = discovered("https://tickets.example/", &|_| answer(404, b""));

    assert_eq!(asked, ["https://tickets.example/", ROOT_FORM]);
}

#[test]
fn a_redirect_is_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let location = ("location".to_owned(), b"https://tickets.example/other".to_vec());
        let (result, asked, _) = discovered(RESOURCE, &|_| {
            let headers = Headers::new(vec![location.clone()]);
            Ok(Answer { status, headers, body: Vec::new() })
        });

        assert_eq!(result, Err(JobError::BadAnswer));
        assert_eq!(asked, [RESOURCE, PATH_FORM, ROOT_FORM]);
    }
}

#[test]
fn a_server_that_is_down_is_not_asked_for_another_document() {
    let (result, asked, _) = discovered(RESOURCE, &|_| Err(CallFailed::NoAnswer));

    assert_eq!(result, Err(JobError::Unavailable));
    assert_eq!(asked, [RESOURCE, PATH_FORM, PATH_FORM], "nothing came back, so once more");
}

#[test]
fn each_way_to_fail_has_its_reason() {
    let of = |answer: &dyn Fn() -> Answered| discovered(RESOURCE, &|_| answer()).0;

    let foreign = || json_answer(200, &document(RESOURCE, json!(["https://evil.example"])));
    assert_eq!(of(&|| answer(500, b"")), Err(JobError::Unavailable));
    assert_eq!(of(&|| answer(429, b"")), Err(JobError::Unavailable));
    assert_eq!(of(&|| Err(CallFailed::NoAnswer)), Err(JobError::Unavailable));
    assert_eq!(of(&|| Err(CallFailed::NoCluster)), Err(JobError::Unavailable));
    assert_eq!(of(&|| answer(404, b"")), Err(JobError::BadAnswer));
    assert_eq!(of(&|| answer(200, b"<html>")), Err(JobError::BadAnswer));
    assert_eq!(of(&foreign), Err(JobError::Misconfigured));
}

#[test]
fn the_log_says_which_servers_a_resource_names() {
    let (_, asked, log) = discovered(RESOURCE, &|url| match url {
        PATH_FORM => json_answer(200, &document(RESOURCE, json!(["https://evil.example\n"]))),
        ROOT_FORM => sound(),
        _ => answer(404, b""),
    });

    assert_eq!(asked, [RESOURCE, PATH_FORM], "its own document is the last word");
    let said =
        "resource_metadata_no_allowed_server: NoAllowedServer([\"https://evil.example\\n\"])";
    assert!(log.ends_with(said), "{log}");
}

#[test]
fn the_well_known_url_has_the_resources_path_behind_it() {
    let cases = [
        (RESOURCE, PATH_FORM),
        ("https://tickets.example", ROOT_FORM),
        ("https://tickets.example/", ROOT_FORM),
        (
            "http://a.example:8080/x/?k=v",
            "http://a.example:8080/.well-known/oauth-protected-resource/x/?k=v",
        ),
    ];

    for (resource, expected) in cases {
        assert_eq!(well_known(&url(resource)).as_str(), expected);
    }
}

#[test]
fn only_a_bearer_or_dpop_challenge_of_a_401_names_metadata_at_the_same_origin() {
    let named = |text: &str| metadata_url(&url(RESOURCE), &challenged(&[text]));
    let naming = |url: &str| format!("Bearer resource_metadata=\"{url}\"");
    let elsewhere = [
        "http://tickets.example/m",
        "https://tickets.example:8443/m",
        "https://tickets.example.evil.example/m",
        "https://evil.example/m",
        "https://tickets.example@evil.example/m",
        "https://TICKETS.example/m",
        "//tickets.example/m",
        "/m",
        "https://tickets.example/../m",
        "",
    ];

    for elsewhere in elsewhere {
        assert_eq!(named(&naming(elsewhere)), None, "{elsewhere}");
    }
    assert_eq!(named(&naming(NAMED)), Some(url(NAMED)));
    assert_eq!(named(&naming(NAMED).replace("Bearer", "dpop")), Some(url(NAMED)));
    assert_eq!(named(&naming(NAMED).replace("Bearer", "Basic")), None);
    let second = format!("{}, DPoP resource_metadata=\"{NAMED}\"", naming(elsewhere[3]));
    assert_eq!(named(&second), Some(url(NAMED)));
    for status in [200, 302, 403, 500] {
        let answer = Answer { status, ..challenged(&[&naming(NAMED)]) };
        assert_eq!(metadata_url(&url(RESOURCE), &answer), None, "{status}");
    }
}

#[test]
fn the_first_server_of_the_document_that_is_allowed_is_taken() {
    let index = |servers| {
        let body = document(RESOURCE, servers).to_string();
        read(&url(RESOURCE), body.as_bytes(), &ALLOWED)
    };

    assert_eq!(index(json!([ALLOWED[0], ALLOWED[1]])), Ok(0));
    assert_eq!(index(json!([ALLOWED[1], ALLOWED[0]])), Ok(1));
    assert_eq!(index(json!(["https://evil.example", ALLOWED[1]])), Ok(1));
}

#[test]
fn a_server_is_allowed_as_written_and_not_nearly() {
    let near = [
        "",
        "https://one.example/",
        "https://ONE.example",
        "http://one.example",
        "https://one.example ",
        "https://two.example",
        "https://two.example/t/",
        "https://two.example/t/x",
        "https://one.example.evil.example",
    ];

    for server in near {
        let body = document(RESOURCE, json!([server])).to_string();
        let refused = Err(Fault::NoAllowedServer(vec![server.to_owned()]));
        assert_eq!(read(&url(RESOURCE), body.as_bytes(), &ALLOWED), refused);
    }
}

#[test]
fn the_document_is_that_of_the_resource_as_written_and_not_nearly() {
    let near = [
        "",
        "https://tickets.example",
        "https://tickets.example/mcp/",
        "https://tickets.example/MCP",
        "https://tickets.example/mcp?",
        "https://tickets.example:443/mcp",
        "http://tickets.example/mcp",
        "https://evil.example/mcp",
    ];

    for resource in near {
        let body = document(resource, json!([ALLOWED[0]])).to_string();
        let refused = Err(Fault::OtherResource(resource.to_owned()));
        assert_eq!(read(&url(RESOURCE), body.as_bytes(), &ALLOWED), refused);
    }
}

#[test]
fn what_is_no_metadata_leads_nowhere() {
    let twice = format!(r#"{{"resource":"https://x.example","resource":"{RESOURCE}"}}"#);
    let cases = [
        String::new(),
        "[]".into(),
        "{}".into(),
        "<html>".into(),
        twice,
        json!({ "resource": [RESOURCE], "authorization_servers": [ALLOWED[0]] }).to_string(),
        json!({ "authorization_servers": [ALLOWED[0]] }).to_string(),
        document(RESOURCE, json!(ALLOWED[0])).to_string(),
        document(RESOURCE, json!(null)).to_string(),
        document(RESOURCE, json!([1, ALLOWED[0]])).to_string(),
        document(RESOURCE, json!([[ALLOWED[0]]])).to_string(),
        document(RESOURCE, json!({ "0": ALLOWED[0] })).to_string(),
    ];

    for body in cases {
        let refused = Err(Fault::NotMetadata);
        assert_eq!(read(&url(RESOURCE), body.as_bytes(), &ALLOWED), refused, "{body}");
    }
}

#[test]
fn of_what_a_document_says_only_a_little_is_repeated() {
    let long = "ä".repeat(1000);
    let fault = |resource: &str, servers| {
        let body = document(resource, servers).to_string();
        read(&url(RESOURCE), body.as_bytes(), &ALLOWED)
    };

    let cut = "ä".repeat(200);
    assert_eq!(fault(&long, json!([])), Err(Fault::OtherResource(cut.clone())));
    let many = fault(RESOURCE, json!(vec![&long; 100]));
    assert_eq!(many, Err(Fault::NoAllowedServer(vec![cut; 4])));
    assert_eq!(fault(RESOURCE, json!([])), Err(Fault::NoAllowedServer(Vec::new())));
    let absent = json!({ "resource": RESOURCE }).to_string();
    let refused = read(&url(RESOURCE), absent.as_bytes(), &ALLOWED);
    assert_eq!(refused, Err(Fault::NoAllowedServer(Vec::new())));
}
