//! Every attack of the table in `attacks/`, against the whole core: what the caller reads, what the
//! log says, and that nothing went on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "attacks/cases.rs"]
mod cases;
#[path = "attacks/others.rs"]
mod others;
mod support;

use cases::{Case, MARK, Scene, Sent, assert_answer, refused_by_us};
use jagway_core::http::{Answer, CallFailed, Callout, Headers, Request};
use jagway_core::resource_server::Edits;
use jagway_core::worker::Verdict;
use others::{answer_to, config, scene};
use serde_json::Value;
use std::cell::RefCell;
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// The session that the server behind opens for everybody.
const SESSION: &str = "1868a90c";

#[test]
fn a_jwt_of_unsound_form_gets_nowhere() {
    try_all("jwt");
}

#[test]
fn a_jose_header_cannot_choose_how_it_is_verified() {
    try_all("header");
}

#[test]
fn a_signature_is_right_or_it_is_nothing() {
    try_all("signature");
}

#[test]
fn claims_mean_what_they_say_and_nothing_near_it() {
    try_all("claims");
}

#[test]
fn an_issuers_keys_are_its_own_few_and_fresh() {
    try_all("jwks");
}

#[test]
fn a_client_is_who_it_proves_to_be() {
    try_all("client");
}

#[test]
fn a_token_request_can_be_read_in_one_way_only() {
    try_all("http");
}

#[test]
fn what_was_used_is_used_up() {
    try_all("replay");
}

#[test]
fn a_resource_opens_for_its_own_tokens_alone() {
    try_all("token");
}

#[test]
fn no_spelling_of_a_path_leads_around_the_filter() {
    try_all("routing");
}

#[test]
fn header_fields_smuggle_nothing_in_or_out() {
    try_all("fields");
}

#[test]
fn what_is_bound_to_a_key_is_good_with_that_key_alone() {
    try_all("possession");
}

#[test]
fn a_message_to_an_mcp_server_can_be_read_in_one_way_only() {
    try_all("mcp");
}

#[test]
fn a_session_is_its_holders() {
    try_all("session");
}

#[test]
fn nobody_revokes_but_those_who_may() {
    try_all("revocation");
}

#[test]
fn what_others_answer_is_not_taken_on_trust() {
    try_all("callouts");
}

#[test]
fn nothing_leaks_from_one_user_or_tenant_to_another() {
    try_all("isolation");
}

#[test]
fn the_table_has_every_attack_it_should_and_says_why() {
    let numbers = [
        "A001 A003 A004 A006 A007 A009 A010 A012 A013 A015 A016",
        "A018 A019 A021 A022 A024 A025 A027 A028 A030 A031 A033 A034",
        "A036 A037 A039 A040 A042 A043 A045 A046",
        "A048 A049 A051 A052 A054 A055 A057 A058 A060 A061 A063 A064 A066 A067 A069 A070 A072 Z1.25 Z4.6 Z4.16",
        "A073 A075 A076 A078 A079 A081 A082 A084 A085",
        "A087 A088 A090 A091 A093 A094 A096 A097 A099 A100 A102 A103 Z4.12",
        "A105 A106 A108 A109 A111 A112 A114 A115 A117 A118 A120 Z1.6",
        "A121 A123 A124 A126 A127 A129 A130 Z4.5",
        "A132 A133 A135 A136 A138 A139 A141 A142",
        "A144 A145 A147 A148 A150 A151",
        "A153 A154 A156 A157 A159 A160",
        "Z4.8",
        "A162 A163 A165 A166 A168 A169 A171 A172 A174 A175 A177 A178 A180 A181 A183 A184 Z4.14",
        "SE01 SE02 SE03 SE04 SE05",
        "RV01 RV02 RV03 RV04 RV05 RV06 RV07 RV08",
        "A201 A202 A204 A205 A207 A208 A210 A211",
        "A213 A214 A216 A217",
    ];

    let mut seen = Vec::new();
    for ((group, _), expected) in cases::TABLE.iter().zip(numbers) {
        let entries = cases::entries(group);
        let ids: Vec<&str> = entries.iter().map(|entry| entry["id"].as_str().unwrap()).collect();
        for id in expected.split(' ') {
            assert!(ids.contains(&id), "{id} is not in {group}");
        }
        for (id, entry) in ids.iter().zip(&entries) {
            let text = |name: &str| entry[name].as_str().is_some_and(|text| text.len() > 20);
            let tried = entry["inputs"].as_array().is_some_and(|inputs| !inputs.is_empty());
            assert!(text("why"), "{id} has no reason to be");
            assert!(tried || text("not_here"), "{id} is neither tried nor explained");
            assert!(!seen.contains(&id.to_string()), "{id} is there twice");
            seen.push(id.to_string());
        }
    }
}

fn try_all(group: &str) {
    for case in cases::cases(group, "core") {
        try_one(&case);
    }
}

/// One case, in a process of its own.
fn try_one(case: &Case) {
    let first = &case.steps[0];
    let workers = first["together"].as_u64().unwrap_or(2) as usize;
    let mut process = Process::new(&config(first, &case.name), workers);
    let (calls, mut keys, mut session) = (RefCell::new(0), Value::Null, None);
    for (number, step) in case.steps.iter().enumerate() {
        let name = format!("{} step {}", case.name, number + 1);
        if step["restart"] == true {
            let now = process.now;
            process = Process::new(&config(step, &case.name), workers);
            process.now = now;
        }
        if step["beside"] == true {
            let other = Process::beside(&process, &config(step, &case.name));
            process.workers.extend(other.workers);
        }
        process.now += step["later"].as_u64().unwrap_or(0);
        if !step["jwks"].is_null() {
            keys = step["jwks"].clone();
        }
        let mut scene = scene(process.now, &case.name);
        scene.names.extend(session.clone().map(|session| ("SESSION", session)));
        let mut world = |callout: &Callout| {
            *calls.borrow_mut() += 1;
            answer_to(callout, &scene, &keys, step)
        };
        if step["later"].as_u64().is_some() {
            // Time passes for an idle worker as for a busy one.
            process.tick();
            process.answer(&mut world);
        }
        let sent = scene.request(step);
        let worker = step["worker"].as_u64().unwrap_or(0) as usize;
        if step["together"].as_u64().is_some() {
            together(&name, step, &mut process, &sent, &mut world);
            continue;
        }
        for turn in 0..step["repeat"].as_u64().unwrap_or(1) as usize {
            process.log.clear();
            let worker = (worker + turn) % process.workers.len();
            match step["unfinished"].as_u64() {
                Some(seconds) => leave_unfinished(&mut process, &sent, seconds),
                None => put(&mut process, worker, &sent),
            }
            if step["twice"] == true {
                let again = process.callouts.clone();
                process.callouts.extend(again);
            }
            if step["gone"] == true {
                process.workers[worker].gone(1);
                continue;
            }
            process.answer(&mut world);
            let verdict = process.verdict();
            assert_as_told(&name, &scene, step, &sent, &verdict, &process.log);
            session = opened(&mut process, worker, &verdict).or(session);
        }
        process.answer(&mut world);
        assert!(process.concluded.is_empty(), "{name}: nobody is there any more");
    }
    if let Some(expected) = first["callouts"].as_u64() {
        assert_eq!(*calls.borrow(), expected, "{}: callouts", case.name);
    }
}

/// What the client gets for the session that the server behind opens, if sessions are bound there.
fn opened(process: &mut Process, worker: usize, verdict: &Verdict) -> Option<String> {
    let Verdict::Forward(_, after) = verdict else { return None };
    let fields = [(":status", "200"), ("mcp-session-id", SESSION)];
    let fields = fields.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    let answer = Headers::new(fields.to_vec());
    let (edits, _) = process.responds(worker, 1, after, &answer);
    edits.set.into_iter().find(|(name, _)| *name == "mcp-session-id").map(|(_, value)| value)
}

/// The same request at every worker before anything is answered: one is served.
fn together(
    name: &str,
    step: &Value,
    process: &mut Process,
    sent: &Sent,
    world: &mut dyn FnMut(&Callout) -> Result<Answer, CallFailed>,
) {
    for worker in 0..process.workers.len() {
        put(process, worker, sent);
    }
    process.answer(world);
    let verdicts: Vec<Verdict> = process.concluded.drain(..).map(|(.., verdict)| verdict).collect();
    let (served, refused): (Vec<_>, Vec<_>) =
        verdicts.iter().partition(|verdict| status(verdict) == 200);
    assert_eq!((served.len(), verdicts.len()), (1, process.workers.len()), "{name}");
    for verdict in refused {
        assert_as_told(name, &scene(process.now, name), step, sent, verdict, &process.log);
    }
}

/// The head of a request, and then nothing for so many seconds.
fn leave_unfinished(process: &mut Process, sent: &Sent, seconds: u64) {
    let moment = process.moment();
    process.workers[0].request(1, head(sent), true, moment);
    process.now += seconds - 1;
    process.tick();
    assert!(process.concluded.is_empty(), "a second is left");
    process.now += 1;
    process.tick();
}

fn put(process: &mut Process, worker: usize, sent: &Sent) {
    match sent.body.is_empty() {
        true => process.request(worker, 1, head(sent)),
        false => process.request_with_body(worker, 1, head(sent), sent.body.clone()),
    }
}

fn head(sent: &Sent) -> Request {
    let usual = "mcp.acme.example".to_owned();
    let host = sent.host.as_ref().unwrap_or(&usual);
    let head = [(":method", &sent.method), (":authority", host)];
    let head = head.into_iter().chain([(":path", &sent.path)]);
    let head = head.map(|(name, value)| (name.to_owned(), value.clone().into_bytes()));
    let fields = sent.headers.iter().map(|(name, value)| (name.to_lowercase(), value.clone()));
    let headers = Headers::new(head.chain(fields).collect());
    Request { headers, source: "192.0.2.1:1234".to_owned(), certificate: None }
}

fn assert_as_told(
    name: &str,
    scene: &Scene,
    step: &Value,
    sent: &Sent,
    verdict: &Verdict,
    log: &[String],
) {
    // But for the request's identifier, which is there to be found again.
    let said = |line: &String| line.split(" request=").next().unwrap_or_default().to_owned();
    let harmless = |line: &String| !said(line).contains(MARK) && !line.contains("eyJ");
    assert!(log.iter().all(harmless), "{name}: {log:?}");
    let reply = match verdict {
        Verdict::Reply(reply) => reply,
        Verdict::Forward(edits, _) => {
            assert!(step["forwarded"] == true, "{name}: went on");
            return assert_clean(name, step, sent, edits);
        }
        other => panic!("{other:?}"),
    };
    assert!(step["forwarded"] != true, "{name}: {log:?}");
    let field = |name: &str| {
        let fields = reply.headers.iter().filter(|(other, _)| *other == name);
        fields.map(|(_, value)| value.clone()).collect()
    };
    let mut step = step.clone();
    step["answers"] = scene.value(&step["answers"]);
    let name = format!("{name} {log:?}");
    assert_answer(&name, &step, sent.to_token_endpoint, reply.status, &field, &reply.body);
    if reply.status >= 400 {
        assert!(refused_by_us(&step) || reply.body.is_empty(), "{name}");
        let reason = format!("refused [{}]", step["reason"].as_str().expect("a reason"));
        assert!(log.iter().any(|line| line.starts_with(&reason)), "{name}: no {reason}");
    }
}

/// Nothing that the client proved itself with goes on, and our credential does.
fn assert_clean(name: &str, step: &Value, sent: &Sent, edits: &Edits) {
    let mark = |value: &[u8]| String::from_utf8_lossy(value).contains(MARK);
    for (field, value) in &sent.headers {
        if field == "authorization" || mark(value) {
            assert!(edits.remove.contains(&field.to_lowercase()), "{name}: {field} stays");
        }
    }
    let mut expected = match step["to"] == "relay" {
        true => vec![("authorization", "Bearer backend-token")],
        false => vec![("x-api-key", "warehouse-key")],
    };
    if sent.headers.iter().any(|(name, _)| name == "mcp-session-id") {
        assert!(edits.remove.contains(&"mcp-session-id".to_owned()), "{name}");
        expected.push(("mcp-session-id", SESSION));
    }
    let set: Vec<_> =
        edits.set.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(set, expected, "{name}");
}
