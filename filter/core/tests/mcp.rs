//! Calls of an accepted resource where `accept.mcp` is set: message, headers, session, scope, and how
//! the user authenticated (MCP 2025-03-26 to 2026-07-28, RFC 6750, RFC 9470).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::config::Config;
use jagway_core::http::{Headers, Request};
use jagway_core::resource_server::Edits;
use jagway_core::signing::SigningKey;
use jagway_core::worker::{AfterResponse, ResponseEdits, Todo, Verdict};
use serde_json::{Value, json};
use std::rc::Rc;
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const METADATA: &str = "https://mcp.acme.example/.well-known/oauth-protected-resource/warehouse";
const JSON: (&str, &str) = ("content-type", "application/json");
const V25: (&str, &str) = ("mcp-protocol-version", "2025-11-25");
const V26: (&str, &str) = ("mcp-protocol-version", "2026-07-28");

fn config(mcp: Value) -> Value {
    let mut config = accept_config();
    config["resources"][0]["accept"]["mcp"] = mcp;
    config
}

/// To delete needs two scopes, to call a tool one of them.
fn scoped() -> Value {
    json!({ "scopes": [
        { "method": "tools/call", "scopes": ["stock.read"] },
        { "method": "tools/call", "name": "stock_delete", "scopes": ["stock.write"] },
    ]})
}

/// A token of ours for Warehouse, with `change`.
fn token(change: Value) -> String {
    let mut claims = json!({
        "iss": AS, "aud": WAREHOUSE, "sub": "s", "client_id": "claude", "iat": NOW,
        "exp": NOW + 300, "jti": "t", "scope": "stock.read",
        "sub_id": { "format": "iss_sub", "iss": IDP, "sub": "alice" },
    });
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let key = SigningKey::from_pem(&pem(9), Some("own-1")).unwrap();
    format!("Bearer {}", key.sign("at+jwt", &claims))
}

fn call(method: &str, fields: &[(&str, &str)], token: &str) -> Request {
    let all: Vec<_> = [("authorization", token)].iter().chain(fields).copied().collect();
    request(method, "mcp.acme.example", "/warehouse", &all)
}

fn message(method: &str, params: Value) -> Vec<u8> {
    let message = json!({ "jsonrpc": "2.0", "id": "a-7", "method": method, "params": params });
    message.to_string().into_bytes()
}

fn tool(name: &str) -> Vec<u8> {
    message("tools/call", json!({ "name": name }))
}

/// What came of one request, and the process with its log.
fn judge(config: &Value, request: Request, body: Vec<u8>) -> (Verdict, Process) {
    let mut process = Process::new(config, 1);
    process.request_with_body(0, 1, request, body);
    (process.verdict(), process)
}

fn post(mcp: Value, fields: &[(&str, &str)], body: Vec<u8>) -> (Verdict, Process) {
    judge(&config(mcp), call("POST", fields, &token(json!({}))), body)
}

fn forwarded(verdict: Verdict) -> (Edits, Rc<AfterResponse>) {
    match verdict {
        Verdict::Forward(edits, after) => (edits, after),
        other => panic!("{other:?}"),
    }
}

/// That it was refused, and how: status, JSON-RPC code, reason in the log and in the counter.
fn assert_refused((verdict, process): &(Verdict, Process), status: u16, rpc: i32, reason: &str) {
    assert_eq!(support::status(verdict), status, "{reason} {:?}", process.log);
    let body = body(verdict);
    assert_eq!(body["jsonrpc"], "2.0", "{reason}");
    assert_eq!(body["error"]["code"], rpc, "{reason}");
    assert_eq!(header(verdict, "content-type"), Some("application/json"), "{reason}");
    assert_eq!(header(verdict, "cache-control"), Some("no-store"), "{reason}");
    let line = format!("refused [{reason}]");
    assert!(process.log.iter().any(|log| log.starts_with(&line)), "{reason} {:?}", process.log);
    assert_eq!(process.counts.get(&format!("refused.{reason}")), Some(&1), "{reason}");
}

#[test]
fn without_the_setting_a_body_is_neither_held_nor_looked_at() {
    let mut process = Process::new(&accept_config(), 1);
    let moment = process.moment();
    let fields = [("mcp-session-id", "theirs"), ("mcp-method", "x")];

    let todo = process.workers[0].request(1, call("PUT", &fields, &token(json!({}))), true, moment);

    let [Todo::Conclude(1, Verdict::Forward(edits, after))] = todo.as_slice() else {
        panic!("{todo:?}")
    };
    assert_eq!(edits.remove, ["authorization"]);
    assert!(after.session.is_none() && !after.hide.contains(&"mcp-session-id".to_owned()));
}

#[test]
fn a_body_is_collected_up_to_the_limit_and_no_further() {
    for (mcp, limit) in [(json!({}), 1024 * 1024), (json!({ "max_body": 2048 }), 2048)] {
        let mut process = Process::new(&config(mcp), 1);
        let moment = process.moment();
        let request = call("POST", &[JSON], &token(json!({})));

        let todo = process.workers[0].request(1, request, true, moment);

        assert!(
            matches!(todo.as_slice(), [Todo::Collect(1, found)] if *found == limit),
            "{todo:?}"
        );
        let todo = process.workers[0].body_too_large(1);
        let reply = todo.iter().find_map(|todo| match todo {
            Todo::Conclude(1, Verdict::Reply(reply)) => Some(reply),
            _ => None,
        });
        let reply = reply.unwrap();
        assert_eq!(reply.status, 413);
        let body: Value = serde_json::from_str(&reply.body).unwrap();
        assert_eq!(body["error"]["code"], -32600);
        assert!(format!("{todo:?}").contains("refused [mcp_body_too_large]"), "{todo:?}");
    }
}

#[test]
fn a_token_is_asked_for_before_anything_is_said_of_the_message() {
    let (verdict, _) = judge(&config(json!({})), call("PUT", &[], "Bearer x"), b"[".to_vec());

    assert_eq!(status(&verdict), 401);
    assert_eq!(body(&verdict)["error"], "invalid_token");
}

#[test]
fn messages_that_can_be_read_in_two_ways_are_refused() {
    let cases: &[(&[u8], i32, &str)] = &[
        (b"", -32700, "mcp_not_json"),
        (b"{", -32700, "mcp_not_json"),
        (br#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#, -32700, "mcp_not_json"),
        (br#"{"jsonrpc":"2.0","id":1,"method":"\ud800"}"#, -32700, "mcp_not_json"),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}", -32700, "mcp_not_json"),
        (b"access_token=x", -32700, "mcp_not_json"),
        (br#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, -32600, "mcp_batch"),
        (br#"{"id":1,"method":"ping"}"#, -32600, "mcp_not_a_message"),
        (br#"{"jsonrpc":"2.0","id":1,"Method":"x","method":"ping"}"#, -32600, "mcp_case_variant"),
        (br#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, -32600, "mcp_id"),
        (br#"{"jsonrpc":"2.0","method":"tools/call"}"#, -32600, "mcp_notification_mismatch"),
        (br#"{"jsonrpc":"2.0","id":1,"method":"x","params":[]}"#, -32602, "mcp_params"),
        (br#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#, -32602, "mcp_missing_name"),
    ];

    for (body, rpc, reason) in cases {
        let refused = post(json!({}), &[JSON], body.to_vec());
        assert_refused(&refused, 400, *rpc, reason);
        // The token is not what is wrong: no client shall ask for another.
        assert_eq!(header(&refused.0, "www-authenticate"), None, "{reason}");
    }
}

#[test]
fn content_that_is_not_plain_json_is_refused_before_it_is_collected() {
    for (fields, reason) in [
        (&[][..], "mcp_content_type"),
        (&[("content-type", "text/plain")], "mcp_content_type"),
        (&[JSON, JSON], "mcp_content_type"),
        (&[("content-type", "application/json; charset=utf-16")], "mcp_content_type"),
        (&[JSON, ("content-encoding", "gzip")], "mcp_content_encoding"),
    ] {
        let mut process = Process::new(&config(json!({})), 1);
        let moment = process.moment();
        let request = call("POST", fields, &token(json!({})));

        let todo = process.workers[0].request(1, request, true, moment);

        assert!(!todo.iter().any(|todo| matches!(todo, Todo::Collect(..))), "{todo:?}");
        assert_refused(&post(json!({}), fields, tool("a")), 415, -32600, reason);
    }
}

#[test]
fn http_methods_go_by_the_revision() {
    let judge = |method: &str, fields: &[(&str, &str)]| {
        judge(&config(json!({})), call(method, fields, &token(json!({}))), Vec::new())
    };
    for (method, version, allow) in [
        ("GET", Some(V26), Some("POST")),
        ("DELETE", Some(V26), Some("POST")),
        ("PUT", Some(V25), Some("POST, GET, DELETE")),
        ("HEAD", None, Some("POST, GET, DELETE")),
        ("OPTIONS", None, Some("POST, GET, DELETE")),
        ("GET", Some(V25), None),
        ("GET", None, None),
        ("DELETE", Some(V25), None),
    ] {
        let fields: Vec<_> = version.into_iter().collect();
        let found = judge(method, &fields);
        match allow {
            None => assert_eq!(status(&found.0), 0, "{method} {version:?}"),
            Some(allow) => {
                assert_refused(&found, 405, -32600, "mcp_method_not_allowed");
                assert_eq!(header(&found.0, "allow"), Some(allow), "{method} {version:?}");
            }
        }
    }
}

#[test]
fn a_body_that_nobody_looks_at_does_not_travel_on() {
    for method in ["GET", "DELETE"] {
        let request = call(method, &[V25, JSON], &token(json!({})));

        let refused = judge(&config(json!({})), request, tool("stock_delete"));

        assert_refused(&refused, 400, -32600, "mcp_body_not_taken");
    }
}

#[test]
fn headers_of_2026_must_say_what_the_body_says() {
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" });
    let body = message("tools/call", json!({ "name": "stock_delete", "_meta": meta }));
    let (to_call, name) = (("mcp-method", "tools/call"), ("mcp-name", "stock_delete"));

    for fields in [
        &[JSON, V26, to_call, ("mcp-name", "stock_list")][..],
        &[JSON, V26, ("mcp-method", "tools/list"), name],
        &[JSON, V26, to_call],
        &[JSON, V26, to_call, name, name],
        &[JSON, V26, V26, to_call, name],
        &[JSON, V25, to_call, name],
        &[JSON, to_call, name],
        &[JSON, V26, to_call, name, ("mcp_name", "stock_list")],
    ] {
        let refused = post(json!({}), fields, body.clone());
        assert_refused(&refused, 400, -32020, "mcp_header_mismatch");
    }
    let (passed, _) = post(json!({}), &[JSON, V26, to_call, name], body);
    assert_eq!(status(&passed), 0);
}

#[test]
fn headers_that_were_not_compared_do_not_reach_the_server() {
    let fields = [JSON, V25, ("mcp-method", "tools/list"), ("mcp-name", "harmless")];

    let (edits, _) = forwarded(post(json!({}), &fields, tool("stock_list")).0);

    for name in ["mcp-method", "mcp-name", "mcp-session-id", "authorization"] {
        assert!(edits.remove.contains(&name.to_owned()), "{name}");
    }
}

#[test]
fn a_refusal_tells_the_id_of_the_request_and_nothing_else_that_was_sent() {
    let mcp = json!({ "unlisted": "deny", "scopes": [{ "method": "ping" }] });
    let answer = br#"{"jsonrpc":"2.0","id":"a-7","result":{}}"#.to_vec();

    let refused = post(mcp, &[JSON, V25], message("SECRET/call", json!({ "name": "SECRET" })));
    let unread = post(json!({}), &[JSON], br#"{"jsonrpc":"2.0","id":"a-7"}"#.to_vec());
    let response = post(json!({}), &[JSON, V26], answer);

    assert_eq!(body(&refused.0)["id"], "a-7");
    assert!(!format!("{:?} {:?}", refused.0, refused.1.log).contains("SECRET"));
    assert!(!format!("{:?}", refused.1.log).contains("a-7"));
    assert_eq!(body(&unread.0).get("id"), None);
    assert_refused(&response, 400, -32600, "mcp_response_not_taken");
    assert_eq!(body(&response.0).get("id"), None, "it is an id of the server's");
}

#[test]
fn what_fails_after_the_message_is_told_in_json_rpc_to_those_who_wait_for_it() {
    let mut config = config(json!({}));
    config["resources"][0]["accept"]["credential"]["for"] = json!({ "scope": "stock.write" });
    let judge = |body: Vec<u8>| judge(&config, call("POST", &[JSON, V25], &token(json!({}))), body);

    let request = judge(tool("stock_list"));
    let notification = judge(br#"{"jsonrpc":"2.0","method":"notifications/x"}"#.to_vec());

    assert_refused(&request, 403, -32001, "no_backend_credential");
    assert_eq!(body(&request.0)["id"], "a-7");
    assert_eq!(header(&request.0, "www-authenticate"), None);
    assert_eq!(body(&notification.0)["error"], "access_denied");
}

#[test]
fn a_page_that_may_call_may_read_why_it_may_not() {
    let page = ("origin", "https://app.example");
    let mut config = config(json!({}));
    config["resources"][0]["accept"]["allowed_origins"] = json!(["https://app.example"]);
    let request = call("POST", &[page, JSON], &token(json!({})));

    let refused = judge(&config, request, b"[]".to_vec());

    assert_refused(&refused, 400, -32600, "mcp_batch");
    assert_eq!(header(&refused.0, "access-control-allow-origin"), Some("https://app.example"));
    let exposed = header(&refused.0, "access-control-expose-headers").unwrap();
    assert!(exposed.contains("WWW-Authenticate") && exposed.contains("Mcp-Session-Id"));
    let preflight = [page, ("access-control-request-method", "POST")];
    let request = support::request("OPTIONS", "mcp.acme.example", "/warehouse", &preflight);
    let (preflight, _) = judge(&config, request, Vec::new());
    assert_eq!(status(&preflight), 204);
    let allowed = header(&preflight, "access-control-allow-headers").unwrap();
    for name in ["MCP-Protocol-Version", "Mcp-Session-Id", "Mcp-Method", "Mcp-Name"] {
        assert!(allowed.contains(name), "{name}");
    }
}

// --- versions ---

#[test]
fn only_listed_versions_are_accepted_and_the_refusal_lists_them() {
    let new = json!({ "revisions": ["2026-07-28"] });
    let old = json!({ "revisions": ["2025-11-25", "2025-06-18"] });
    let oldest = json!({ "revisions": ["2025-03-26"] });
    let (list, start) = (message("tools/list", json!({})), message("initialize", json!({})));
    let unknown = ("mcp-protocol-version", "2024-11-05");
    let odd = ("mcp-protocol-version", "\u{ff}");

    for (mcp, version, body, accepted) in [
        (&new, Some(V25), &list, false),
        (&new, None, &list, false),
        (&new, None, &start, false),
        (&old, Some(V25), &list, true),
        (&old, None, &start, true),
        (&old, None, &list, false),
        (&old, Some(V26), &list, false),
        (&oldest, None, &list, true),
        (&oldest, Some(V25), &list, false),
        (&json!({}), Some(unknown), &list, false),
        (&json!({}), Some(odd), &list, false),
        (&json!({}), None, &list, true),
    ] {
        let fields: Vec<_> = version.into_iter().chain([JSON]).collect();
        let found = post(mcp.clone(), &fields, body.clone());
        if accepted {
            assert_eq!(status(&found.0), 0, "{mcp} {version:?}");
            continue;
        }
        assert_refused(&found, 400, -32022, "mcp_unsupported_version");
        let listed = &support::body(&found.0)["error"]["data"]["supported"];
        match mcp.get("revisions") {
            Some(revisions) => assert_eq!(listed, revisions),
            None => assert_eq!(listed.as_array().unwrap().len(), 4),
        }
    }
    let get = call("GET", &[], &token(json!({})));
    assert_eq!(status(&judge(&config(new), get, Vec::new()).0), 400);
}

// --- scope ---

#[test]
fn an_operation_needs_all_of_its_scope() {
    for (granted, tool_name, passes) in [
        ("stock.read", "stock_list", true),
        ("", "stock_list", false),
        ("stock.read", "stock_delete", false),
        ("stock.write", "stock_delete", false),
        ("stock.reader stock.write", "stock_delete", false),
        ("stock.write stock.read", "stock_delete", true),
    ] {
        let request = call("POST", &[JSON, V25], &token(json!({ "scope": granted })));

        let found = judge(&config(scoped()), request, tool(tool_name));

        if passes {
            assert_eq!(status(&found.0), 0, "{granted} {tool_name}");
            continue;
        }
        assert_refused(&found, 403, -32001, "insufficient_scope");
        assert_eq!(body(&found.0)["id"], "a-7");
        let needed = match tool_name {
            "stock_delete" => "stock.read stock.write",
            _ => "stock.read",
        };
        let challenge = format!(
            "Bearer realm=\"mcp\", error=\"insufficient_scope\", \
             resource_metadata=\"{METADATA}\", scope=\"{needed}\""
        );
        assert_eq!(header(&found.0, "www-authenticate"), Some(challenge.as_str()));
    }
}

#[test]
fn what_is_not_listed_passes_unless_the_operator_denies_it() {
    let deny = json!({ "unlisted": "deny", "scopes": [
        { "method": "initialize" },
        { "method": "tools/call", "name": "stock_list", "scopes": ["stock.read"] },
    ]});
    let response = br#"{"jsonrpc":"2.0","id":1,"result":{}}"#.to_vec();
    let notification = br#"{"jsonrpc":"2.0","method":"notifications/x"}"#.to_vec();

    for (body, allowed, denied) in [
        (tool("stock_list"), true, true),
        (tool("Stock_list"), true, false),
        (tool("stock_list "), true, false),
        (tool("other"), true, false),
        (message("initialize", json!({})), true, true),
        (message("tools/list", json!({})), true, false),
        (message("Tools/call", json!({ "name": "stock_list" })), true, false),
        (notification, true, false),
        (response, true, true),
    ] {
        for (mcp, passes) in [(&scoped(), allowed), (&deny, denied)] {
            let found = post(mcp.clone(), &[JSON, V25], body.clone());
            if passes {
                assert_eq!(status(&found.0), 0, "{}", String::from_utf8_lossy(&body));
            } else {
                // Not 404: a client of 2025 would take its session for ended.
                assert_refused(&found, 403, -32601, "mcp_not_offered");
                assert_eq!(header(&found.0, "www-authenticate"), None);
            }
        }
    }
}

// --- sessions ---

/// Everything that the client sees of an answer with `ids` as the server's `Mcp-Session-Id`.
fn answered(process: &mut Process, after: &AfterResponse, ids: &[&[u8]]) -> ResponseEdits {
    let mut fields = vec![(":status".to_owned(), b"200".to_vec())];
    fields.extend(ids.iter().map(|id| ("mcp-session-id".to_owned(), id.to_vec())));
    let (edits, todo) = process.responds(0, 1, after, &Headers::new(fields));
    process.log.extend(todo.iter().map(|todo| format!("{todo:?}")));
    edits
}

fn set<'a>(edits: &'a ResponseEdits, name: &str) -> Option<&'a str> {
    edits.set.iter().find(|(field, _)| *field == name).map(|(_, value)| value.as_str())
}

/// A session of the server's, `id`, as its holder gets to see it.
fn opened(config: &Value, id: &str, holder: &str) -> String {
    let (verdict, mut process) =
        judge(config, call("POST", &[JSON], holder), message("initialize", json!({})));
    let (_, after) = forwarded(verdict);
    let edits = answered(&mut process, &after, &[id.as_bytes()]);
    assert!(edits.remove.contains(&"mcp-session-id".to_owned()));
    set(&edits, "mcp-session-id").unwrap().to_owned()
}

#[test]
fn a_session_is_used_by_its_holder_with_every_method() {
    let config = config(json!({}));
    let bound = opened(&config, "server-1", &token(json!({})));
    assert!(bound.starts_with("server-1.") && bound.len() == "server-1.".len() + 22);

    for (method, body) in [("POST", tool("a")), ("GET", vec![]), ("DELETE", vec![])] {
        // Another token of the same user and client.
        let token = token(json!({ "jti": "other", "scope": "" }));
        let fields = [JSON, V25, ("mcp-session-id", bound.as_str())];

        let (verdict, _) = judge(&config, call(method, &fields, &token), body);

        let (edits, _) = forwarded(verdict);
        assert!(edits.remove.contains(&"mcp-session-id".to_owned()), "{method}");
        let id = edits.set.iter().find(|(name, _)| name == "mcp-session-id").unwrap();
        assert_eq!(id.1.expose(), "server-1", "{method}");
    }
}

#[test]
fn a_session_of_another_is_not_known_nor_is_one_that_was_not_given_out() {
    let mut config = config(json!({}));
    let mut other = config["resources"][0].clone();
    other["resource"] = json!(format!("{WAREHOUSE}/other"));
    config["resources"].as_array_mut().unwrap().push(other);
    let alice = token(json!({}));
    let bound = opened(&config, "server-1", &alice);
    let forged = format!("server-2.{}", bound.rsplit('.').next().unwrap());
    let at_other = token(json!({ "aud": format!("{WAREHOUSE}/other") }));

    for (holder, path, presented) in [
        (token(json!({ "sub": "mallory" })), "/warehouse", bound.as_str()),
        (token(json!({ "client_id": "other" })), "/warehouse", &bound),
        (at_other, "/warehouse/other", &bound),
        (alice.clone(), "/warehouse", "server-1"),
        (alice.clone(), "/warehouse", &forged),
        (alice.clone(), "/warehouse", ""),
        (alice.clone(), "/warehouse", "server-1."),
    ] {
        for (method, body) in [("POST", tool("a")), ("GET", vec![]), ("DELETE", vec![])] {
            let fields =
                [("authorization", holder.as_str()), JSON, V25, ("mcp-session-id", presented)];
            let request = request(method, "mcp.acme.example", path, &fields);

            let refused = judge(&config, request, body);

            assert_refused(&refused, 404, -32600, "mcp_session_unknown");
            assert_eq!(header(&refused.0, "www-authenticate"), None);
        }
    }
    let twice = [JSON, V25, ("mcp-session-id", &bound), ("mcp-session-id", &bound)];
    let refused = judge(&config, call("POST", &twice, &alice), tool("a"));
    assert_refused(&refused, 400, -32020, "mcp_header_mismatch");
}

#[test]
fn a_session_that_cannot_be_bound_stays_here() {
    let config = config(json!({}));
    let request = call("POST", &[JSON], &token(json!({})));
    let (verdict, mut process) = judge(&config, request, message("initialize", json!({})));
    let (_, after) = forwarded(verdict);
    let long = [b'x'; 1025];

    for ids in [&[&b""[..]][..], &[b"a b"], &[b"a", b"b"], &[b"\xff"], &[&long]] {
        let edits = answered(&mut process, &after, ids);

        assert_eq!(set(&edits, ":status"), Some("502"), "{ids:?}");
        assert_eq!(set(&edits, "mcp-session-id"), None, "{ids:?}");
        assert!(edits.remove.contains(&"mcp-session-id".to_owned()), "{ids:?}");
        assert!(process.log.pop().unwrap().contains("Warn"), "{ids:?}");
    }
    let edits = answered(&mut process, &after, &[]);
    assert_eq!((set(&edits, ":status"), set(&edits, "mcp-session-id")), (None, None));
}

#[test]
fn there_are_no_sessions_in_2026() {
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" });
    let body = message("tools/list", json!({ "_meta": meta }));
    let fields = [JSON, V26, ("mcp-method", "tools/list"), ("mcp-session-id", "server-1")];

    let (verdict, mut process) = post(json!({}), &fields, body);

    let (edits, after) = forwarded(verdict);
    assert!(edits.remove.contains(&"mcp-session-id".to_owned()));
    assert!(edits.set.iter().all(|(name, _)| name != "mcp-session-id"));
    let edits = answered(&mut process, &after, &[b"server-2"]);
    assert!(edits.remove.contains(&"mcp-session-id".to_owned()));
    assert_eq!(set(&edits, "mcp-session-id"), None);
}

#[test]
fn sessions_that_are_ignored_pass_as_they_are() {
    let fields = [JSON, V25, ("mcp-session-id", "server-1")];

    let (verdict, mut process) = post(json!({ "sessions": "ignore" }), &fields, tool("a"));

    let (edits, after) = forwarded(verdict);
    assert!(!edits.remove.contains(&"mcp-session-id".to_owned()));
    let edits = answered(&mut process, &after, &[b"server-1"]);
    assert!(!edits.remove.contains(&"mcp-session-id".to_owned()));
    assert_eq!(set(&edits, "mcp-session-id"), None);
}

#[test]
fn sessions_outlive_a_change_of_signing_keys_and_end_with_the_last_of_them() {
    let with_keys = |keys: Value| {
        let mut config = config(json!({}));
        config["authorization_server"]["signing_keys"] = keys;
        config
    };
    let env = |name: &str| match name {
        "NEXT_KEY" => Some(pem(8)),
        name => support::env(name),
    };
    let own = json!({ "key": { "env": "SIGNING_KEY" }, "kid": "own-1" });
    let next = json!({ "key": { "env": "NEXT_KEY" }, "kid": "own-2" });
    let sessions = |keys: Value| {
        let config = with_keys(keys).to_string();
        Config::parse(config.as_bytes(), &env).unwrap().authorization_server.unwrap().sessions
    };
    let alice =
        jagway_core::session::Holder { resource: WAREHOUSE, subject: "alice", client_id: "claude" };
    let before = sessions(json!([own])).bind(b"id", &alice).unwrap();

    assert!(sessions(json!([next, own])).unbind(before.as_bytes(), &alice).is_some());
    assert!(sessions(json!([next])).unbind(before.as_bytes(), &alice).is_none());
    let after = sessions(json!([next, own])).bind(b"id", &alice).unwrap();
    assert!(sessions(json!([next])).unbind(after.as_bytes(), &alice).is_some());
}

// --- how the user authenticated ---

#[test]
fn a_token_of_a_weak_or_old_authentication_is_challenged_for_another() {
    let mut config = config(json!({}));
    config["resources"][0]["accept"]["required_acr"] = json!(["phr", "phrh"]);
    config["resources"][0]["accept"]["max_auth_age"] = json!(600);

    for (claims, code) in [
        (json!({ "acr": "phr", "auth_time": NOW - 660 }), 0),
        (json!({ "acr": "phrh", "auth_time": NOW }), 0),
        (json!({ "acr": "phr", "auth_time": NOW - 661 }), 401),
        (json!({ "acr": "phr" }), 401),
        (json!({ "acr": "pwd", "auth_time": NOW }), 401),
        (json!({ "acr": "phr phrh", "auth_time": NOW }), 401),
        (json!({ "auth_time": NOW }), 401),
        (json!({}), 401),
    ] {
        // The head alone decides: the body is not waited for.
        let mut process = Process::new(&config, 1);
        process.request_with_body(0, 1, call("POST", &[JSON], &token(claims.clone())), tool("a"));
        let verdict = process.verdict();

        assert_eq!(status(&verdict), code, "{claims}");
        if code == 401 {
            let challenge = format!(
                "Bearer realm=\"mcp\", error=\"insufficient_user_authentication\", \
                 resource_metadata=\"{METADATA}\", scope=\"stock.read stock.write\", \
                 acr_values=\"phr phrh\", max_age=\"600\""
            );
            assert_eq!(header(&verdict, "www-authenticate"), Some(challenge.as_str()));
            assert_eq!(body(&verdict)["error"], "insufficient_user_authentication");
            let line = "refused [insufficient_authentication]";
            assert!(process.log[0].starts_with(line), "{:?}", process.log);
        }
    }
}

#[test]
fn authentication_can_be_asked_for_without_looking_into_bodies() {
    let mut config = accept_config();
    config["resources"][0]["accept"]["max_auth_age"] = json!(600);

    let (verdict, _) = judge(&config, call("POST", &[], &token(json!({}))), b"x".to_vec());

    assert_eq!(status(&verdict), 401);
    let challenge = header(&verdict, "www-authenticate").unwrap();
    assert!(challenge.ends_with(", max_age=\"600\"") && !challenge.contains("acr_values"));
}

// --- configuration ---

#[test]
fn a_wrong_setting_is_refused_at_its_field() {
    let rule = |rule: Value| json!({ "scopes": [rule] });
    let twice = json!({ "method": "tools/call", "name": "a", "scopes": ["stock.read"] });
    let cases = [
        (json!(true), "mcp"),
        (json!({ "policy": 1 }), "mcp.policy"),
        (json!({ "max_body": 1023 }), "mcp.max_body"),
        (json!({ "max_body": 4 * 1024 * 1024 + 1 }), "mcp.max_body"),
        (json!({ "max_body": -1 }), "mcp.max_body"),
        (json!({ "unlisted": "refuse" }), "mcp.unlisted"),
        (json!({ "unlisted": "deny" }), "mcp.scopes"),
        (json!({ "sessions": "off" }), "mcp.sessions"),
        (json!({ "revisions": [] }), "mcp.revisions"),
        (json!({ "revisions": ["2024-11-05"] }), "mcp.revisions[0]"),
        (json!({ "revisions": ["2025-11-25", "2025-11-25"] }), "mcp.revisions[1]"),
        (json!({ "scopes": [twice, twice] }), "mcp.scopes[1]"),
        (rule(json!({ "scopes": ["stock.read"] })), "mcp.scopes[0]"),
        (rule(json!({ "method": "", "scopes": ["stock.read"] })), "mcp.scopes[0].method"),
        (rule(json!({ "method": "tools/call" })), "mcp.scopes[0].scopes"),
        (rule(json!({ "method": "x", "scopes": ["other"] })), "mcp.scopes[0].scopes"),
        (rule(json!({ "method": "x", "scopes": ["a b"] })), "mcp.scopes[0].scopes[0]"),
        (
            rule(json!({ "method": "x", "scopes": ["stock.read", "stock.read"] })),
            "mcp.scopes[0].scopes[1]",
        ),
        (
            rule(json!({ "method": "tools/list", "name": "a", "scopes": ["stock.read"] })),
            "mcp.scopes[0].name",
        ),
        (
            rule(json!({ "method": "tools/call", "name": "", "scopes": ["stock.read"] })),
            "mcp.scopes[0].name",
        ),
    ];

    for (mcp, path) in cases {
        let error = Config::parse(config(mcp.clone()).to_string().as_bytes(), &env).err();
        let found = error.map(|error| error.path).unwrap_or_default();
        assert_eq!(found, format!("resources[0].accept.{path}"), "{mcp}");
    }
    for (field, value, path) in [
        ("required_acr", json!(["a b"]), "required_acr[0]"),
        ("required_acr", json!([""]), "required_acr[0]"),
        ("max_auth_age", json!(0), "max_auth_age"),
    ] {
        let mut config = accept_config();
        config["resources"][0]["accept"][field] = value;
        let error = Config::parse(config.to_string().as_bytes(), &env).err().unwrap();
        assert_eq!(error.path, format!("resources[0].accept.{path}"));
    }
}

#[test]
fn every_setting_together_is_accepted() {
    let mcp = json!({
        "max_body": 4 * 1024 * 1024, "unlisted": "deny", "sessions": "ignore",
        "revisions": ["2026-07-28", "2025-11-25"],
        "scopes": [
            { "method": "tools/call", "name": "a", "scopes": ["stock.read", "stock.write"] },
            { "method": "tools/call", "name": "b" },
            { "method": "tools/call", "scopes": ["stock.read"] },
            { "method": "resources/read", "name": "file:///a", "scopes": ["stock.read"] },
        ],
    });

    assert!(Config::parse(config(mcp).to_string().as_bytes(), &env).is_ok());
}
