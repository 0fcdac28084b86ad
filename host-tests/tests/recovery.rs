//! A server refuses the token of a request, in the real Envoy: the request is sent once more, as it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use host_tests::Options;
use host_tests::endpoints::Fault;
use host_tests::jwks::http_client;
use host_tests::raw;
use host_tests::scripted::{Say, answer};
use host_tests::upstream::Received;
use serde_json::{Value, json};
use support::refusing::*;
use support::*;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

#[tokio::test]
async fn a_refused_request_is_sent_once_more_as_it_was() {
    let rewritten = |text: String| {
        let route = "{ match: { prefix: / }, route: { cluster: tickets, timeout: 0s } }";
        let to = "{ match: { prefix: /mcp }, route: { cluster: tickets, timeout: 0s, prefix_rewrite: /v1/mcp, host_rewrite_literal: tickets.vendor.example } }";
        assert!(text.contains(route));
        text.replacen(route, to, 1)
    };
    let options = Options { concurrency: 1, ..Options::default() };
    let place = Place::with(options, rewritten).await;
    let before = legs(&place.world);
    let bearer = place.bearer("alice");
    let secret = bearer.trim_start_matches("Bearer ");
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let headers: [(&str, &[u8]); 8] = [
        ("authorization", bearer.as_bytes()),
        ("cookie", b"session=LEGACY"),
        ("content-type", b"application/json"),
        ("accept", b"application/json, text/event-stream"),
        ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("mcp-session-id", b"s-1"),
        ("x-more", b"one"),
        ("x-more", b"two"),
    ];
    let sent = raw::request("POST", &place.origin(), b"/mcp?a=b&c=%20", &headers, body.as_bytes());
    place.refuses_first(|| {
        let headers = "content-type: application/json\r\nmcp-session-id: s-2\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nx-envoy-secret: x\r\n";
        Say::answer(200, headers, r#"{"result":1}"#)
    });

    let seen = raw::send(&place.origin(), &sent).await;

    assert_eq!((seen.status, seen.body.as_str()), (200, r#"{"result":1}"#), "{}", seen.head);
    assert_eq!(seen.header("content-type"), ["application/json"]);
    assert_eq!(seen.header("content-length"), ["12"]);
    assert_eq!(seen.header("mcp-session-id"), ["s-2"]);
    assert_eq!(seen.header("set-cookie"), ["a=1", "b=2"]);
    for once in ["date", "server"] {
        assert!(seen.header(once).len() <= 1, "{}", seen.head);
    }
    assert_eq!(place.upstream.count(), 3);
    let [first, second] = place.upstream.last_two();
    assert_eq!(first.target, "/v1/mcp?a=b&c=%20");
    assert_eq!(first.header("host"), Some("tickets.vendor.example"));
    assert!(first.header("x-request-id").is_some());
    assert_eq!(likeness(&first), likeness(&second));
    assert_eq!(second.body, body);
    assert_ne!(first.bearer(), second.bearer());
    assert_eq!((first.claim("sub"), second.claim("sub")), (json!("alice"), json!("alice")));
    assert_eq!(legs(&place.world), (before.0 + 2, before.1 + 2));
    for stat in ["jagway.done.sent_again", "jagway.upstream_refused.token"] {
        let stats = place.world.envoy.as_ref().unwrap().admin_page("/stats").await;
        assert!(stats.contains(&format!("{stat}: 1\n")), "{stat}");
    }
    for request in [first, second] {
        let everything = format!("{request:?}");
        assert!(!everything.contains(secret) && !everything.contains("LEGACY"), "{everything}");
    }
    assert_vm_never_failed(&place.world).await;
}

#[tokio::test]
async fn before_it_is_known_where_requests_arrive_they_are_sent_again_to_where_the_resource_says() {
    let options = Options { concurrency: 1, ..Options::default() };
    let place = Place::cold(options, |text| text).await;

    for user in ["alice", "bob"] {
        place.refuses_first(|| Say::answer(200, "", "again"));
        let seen = place.post_as(user).await;
        assert_eq!((seen.status, seen.body.as_str()), (200, "again"));
        let [first, second] = place.upstream.last_two();
        assert_eq!((&first.target, &first.body), (&second.target, &second.body));
    }
    assert_eq!(place.upstream.count(), 4);
    let hosts: Vec<_> = place
        .upstream
        .received()
        .iter()
        .map(|one| one.header("host").unwrap().to_owned())
        .collect();
    let resource = place.world.tickets.resource.clone();
    for second in [&hosts[1], &hosts[3]] {
        assert!(resource.starts_with(&format!("http://{second}/")), "{resource} {hosts:?}");
    }
}

/// A filter behind ours may refuse what ours has let through, and says so to the client, not the server.
#[tokio::test]
async fn what_another_filter_refuses_is_not_sent_around_it() {
    let with_guard = |text: String| {
        let guard = "          - name: guard
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
              default_source_code:
                inline_string: |
                  function envoy_on_request(handle)
                    handle:body()
                    if handle:headers():get(\"x-forbidden\") then
                      handle:respond({[\":status\"] = \"401\"}, \"not here\")
                    end
                  end
          - name: router
";
        text.replacen("          - name: router\n", guard, 1)
    };
    let options = Options { concurrency: 1, ..Options::default() };
    let place = Place::with(options, with_guard).await;
    let (bearer, before) = (place.bearer("alice"), place.upstream.count());
    let client = http_client("legacy");

    let headers = [("authorization", bearer.as_str()), ("x-forbidden", "1")];
    let posted = post(&place.world.upgrade_url(), &headers, "{}").await;
    let deleted = client.delete(place.world.upgrade_url()).header("authorization", &bearer);
    let deleted = deleted.header("x-forbidden", "1").send().await.unwrap();

    assert_eq!((posted.status, posted.body.as_str()), (401, "not here"));
    assert_eq!(deleted.status(), 401);
    assert_eq!(place.upstream.count(), before, "the server saw nothing");
    assert_eq!(place.stat("jagway.done.sent_again").await, 0);
    // Nor was the token dropped: it is as good as before.
    let legs_before = legs(&place.world);
    let allowed = post(&place.world.upgrade_url(), &headers[..1], "{}").await;
    assert_eq!((allowed.status, legs(&place.world)), (200, legs_before));
}

#[tokio::test]
async fn nothing_is_sent_again_where_a_header_decides_on_the_host() {
    let tenants = |text: String| {
        let route = "{ match: { prefix: / }, route: { cluster: tickets, timeout: 0s } }";
        let to = "{ match: { prefix: /mcp }, route: { cluster: tickets, timeout: 0s, host_rewrite_header: x-tenant } }";
        text.replacen(route, to, 1)
    };
    let options = Options { concurrency: 1, ..Options::default() };
    let place = Place::with(options, tenants).await;
    let post_for = async |tenant: &str, user: &str| {
        let bearer = place.bearer(user);
        let headers = [("authorization", bearer.as_str()), ("x-tenant", tenant)];
        let seen = post(&place.world.upgrade_url(), &headers, "{}").await;
        place.until_idle().await;
        seen.status
    };
    for tenant in ["a.example", "b.example"] {
        assert_eq!(post_for(tenant, "alice").await, 200);
    }

    for tenant in ["a.example", "b.example"] {
        place.refuses_first(|| Say::answer(200, "", "again"));
        assert_eq!(post_for(tenant, tenant).await, 401);
    }

    let hosts: Vec<_> =
        place.upstream.received().iter().map(|one| one.header("host").map(str::to_owned)).collect();
    let expected =
        ["a.example", "b.example", "a.example", "b.example"].map(|host| Some(host.to_owned()));
    assert_eq!(hosts[1..], expected);
}

#[tokio::test]
async fn the_client_gets_the_second_answer_as_it_is() {
    let place = Place::start().await;
    let events = "event: message\ndata: {\"a\":1}\n\ndata: 2\n\n";
    let binary: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let cases: [(&str, u16, &str, &[u8]); 8] = [
        ("json", 200, "content-type: application/json\r\n", b"{\"ok\":true}"),
        ("accepted", 202, "", b""),
        (
            "events",
            200,
            "content-type: text/event-stream\r\ncache-control: no-cache\r\n",
            events.as_bytes(),
        ),
        ("binary", 200, "content-type: application/octet-stream\r\n", &binary),
        ("error", 500, "content-type: text/html\r\n", b"<h1>oops</h1>"),
        ("down", 503, "content-type: text/plain\r\nretry-after: 7\r\n", b"later"),
        ("no session", 404, "", b"gone"),
        ("not modified", 304, "etag: \"x\"\r\n", b""),
    ];

    for (name, status, headers, body) in cases {
        let whole = answer(status, headers, body);
        place.refuses_first(move || Say::Bytes(whole.clone()));
        let before = place.upstream.count();
        let request = http_client("test").post(place.world.upgrade_url()).body("{}");
        let response = request.header("authorization", place.bearer(name)).send().await.unwrap();

        assert_eq!(response.status().as_u16(), status, "{name}");
        for line in headers.lines() {
            let (header, value) = line.split_once(": ").unwrap();
            assert_eq!(response.headers()[header], value, "{name}");
        }
        if body.is_empty() {
            assert_eq!(response.headers().get("content-type"), None, "{name}");
        }
        assert_eq!(response.bytes().await.unwrap(), body, "{name}");
        assert_eq!(place.upstream.count(), before + 2, "{name}");
    }
    assert_vm_never_failed(&place.world).await;
}

#[tokio::test]
async fn a_server_that_refuses_the_new_token_too_is_not_asked_a_third_time() {
    let place = Place::start().await;
    let token = id_token_of(&place.world, "alice");
    let before = legs(&place.world);
    place.upstream.says(|_, _| Say::answer(401, INVALID, "refused"));

    let first = post_as(&place.world.upgrade_url(), &token).await;
    let then = place.upstream.count();
    let mut all = vec![first];
    for _ in 0..5 {
        all.push(post_as(&place.world.upgrade_url(), &token).await);
    }

    assert_eq!(then, 3);
    assert_eq!(place.upstream.count(), 8);
    for answer in all {
        assert_eq!((answer.status, answer.body.as_str()), (401, "refused"));
        assert_eq!(answer.header("www-authenticate"), None);
    }
    assert_eq!(legs(&place.world), (before.0 + 2, before.1 + 2));
    assert_vm_never_failed(&place.world).await;
}

#[tokio::test]
async fn a_second_try_without_an_answer_is_a_bad_gateway() {
    let place = Place::start().await;
    type Row = (&'static str, fn() -> Say);
    let cases: [Row; 3] = [
        ("closed", || Say::Close(vec![])),
        ("cut in its head", || Say::Close(b"HTTP/1.1 200 OK\r\ncontent-".to_vec())),
        ("cut in its body", || {
            Say::Close(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab".to_vec())
        }),
    ];

    for (name, second) in cases {
        place.refuses_first(second);
        let seen = place.post_as(name).await;

        assert_eq!(seen.status, 502, "{name}: {seen:?}");
        assert_eq!(seen.json()["error"], "bad_gateway", "{name}: {seen:?}");
    }
    let (token, url) = (id_token_of(&place.world, "refused"), place.world.upgrade_url());
    place.upstream.says(|_, _| Say::answer(200, "", ""));
    assert_eq!(post_as(&url, &token).await.status, 200);
    place.world.idp.endpoints().fail_times("/token", 1, Fault::Delay(Duration::from_millis(500)));
    place.refuses_first(|| Say::answer(200, "", ""));
    let before = place.upstream.count();
    let (seen, ()) = tokio::join!(post_as(&url, &token), async {
        until(5, "the first try", || place.upstream.count() > before).await;
        place.upstream.stop();
    });

    assert_eq!(seen.status, 502, "{seen:?}");
    assert_vm_never_failed(&place.world).await;
}

#[tokio::test]
async fn an_answer_that_is_too_large_to_be_relayed_is_a_bad_gateway() {
    let place = Place::start().await;

    for (name, size, status) in [("largest", 256 * 1024, 200), ("larger", 256 * 1024 + 1, 502)] {
        place.refuses_first(move || Say::answer(200, "", vec![b'x'; size]));
        let seen = place.post_as(name).await;

        assert_eq!(seen.status, status, "{name}");
    }
    place.refuses_first(|| Say::answer(200, "", vec![b'x'; 20_000_000]));
    assert_eq!(place.post_as("huge").await.status, 502);
    assert_vm_never_failed(&place.world).await;
}

#[tokio::test]
async fn other_methods_are_sent_again_but_no_request_for_a_stream() {
    let place = Place::start().await;
    let origin = place.origin();
    let json: (&str, &[u8]) = ("accept", b"application/json");
    let events: (&str, &[u8]) = ("accept", b"application/json, Text/Event-Stream");
    type Row<'a> = (&'a str, (&'a str, &'a [u8]), usize);
    let cases: [Row; 5] = [
        ("DELETE", json, 2),
        ("GET", json, 2),
        ("GET", events, 1),
        ("DELETE", events, 2),
        ("PUT", json, 2),
    ];

    for (number, (method, accept, tries)) in cases.into_iter().enumerate() {
        let bearer = place.bearer(&format!("user-{number}"));
        let headers = [("authorization", bearer.as_bytes()), accept];
        let before = place.upstream.count();
        place.refuses_first(|| Say::answer(200, "", "again"));
        let request = raw::request(method, &origin, b"/mcp", &headers, b"");
        let seen = raw::send(&origin, &request).await;
        let then = raw::send(&origin, &request).await;

        assert_eq!(place.upstream.count(), before + tries + 1, "{method} {number}");
        assert_eq!(seen.status, if tries == 2 { 200 } else { 401 }, "{method} {number}");
        assert!(seen.header("www-authenticate").is_empty());
        // The token was dropped in any case.
        assert_eq!(then.status, 200, "{method} {number}");
        let received = place.upstream.received().split_off(before);
        if tries == 2 {
            assert_eq!(likeness(&received[0]), likeness(&received[1]), "{method} {number}");
        }
        assert_ne!(received[0].bearer(), received[1].bearer(), "{method} {number}");
    }
}

/// A server that wants `tickets.write`, before a filter that asks for `tickets.read`.
async fn stepping_up(allowed: &'static [&'static str]) -> Place {
    let patch = upgrade_patch(move |upgrade| {
        upgrade["scopes"] = json!(["tickets.read"]);
        upgrade["step_up_scopes"] = json!(allowed);
    });
    let options = Options { concurrency: 1, patch_egress: patch, ..Options::default() };
    let place = Place::with(options, |text| text).await;
    place.upstream.says(|_, request| {
        let scope = request.claim("scope");
        match scope.as_str().unwrap_or_default().contains("tickets.write") {
            true => Say::answer(200, "", scope.as_str().unwrap()),
            false => {
                let challenge = "www-authenticate: Bearer error=\"insufficient_scope\", scope=\"tickets.write\"\r\n";
                Say::answer(403, challenge, "more")
            }
        }
    });
    place
}

#[tokio::test]
async fn scope_that_the_server_misses_is_asked_for_once_where_the_operator_allows_it() {
    let place = stepping_up(&["tickets.write"]).await;
    let (before, legs_before) = (place.upstream.count(), legs(&place.world));
    let token = id_token_of(&place.world, "alice");

    let first = post_as(&place.world.upgrade_url(), &token).await;
    let second = post_as(&place.world.upgrade_url(), &token).await;

    assert_eq!((first.status, first.body.as_str()), (200, "tickets.read tickets.write"));
    assert_eq!((second.status, second.body.as_str()), (200, "tickets.read tickets.write"));
    assert_eq!(place.upstream.count(), before + 3, "the second request begins with the union");
    assert_eq!(legs(&place.world), (legs_before.0 + 2, legs_before.1 + 2));
}

#[tokio::test]
async fn scope_that_the_operator_does_not_list_or_the_provider_does_not_grant_stays_refused() {
    let unlisted = stepping_up(&[]).await;
    let before = unlisted.upstream.count();
    let seen = unlisted.post_as("alice").await;
    assert_eq!((seen.status, seen.body.as_str()), (403, "more"));
    assert_eq!(seen.header("www-authenticate"), None);
    assert_eq!(unlisted.upstream.count(), before + 1);

    let ungranted = stepping_up(&["tickets.write"]).await;
    let token = id_token_of(&ungranted.world, "alice");
    ungranted.upstream.says(|_, _| Say::answer(200, "", ""));
    assert_eq!(post_as(&ungranted.world.upgrade_url(), &token).await.status, 200);
    let challenge =
        "www-authenticate: Bearer error=\"insufficient_scope\", scope=\"tickets.write\"\r\n";
    ungranted.upstream.says(move |_, _| Say::answer(403, challenge, "more"));
    let no = Fault::Answer(400, vec![], json!({"error": "invalid_scope"}).to_string());
    ungranted.world.idp.endpoints().fail("/token", no);
    let before = ungranted.upstream.count();

    let seen = post_as(&ungranted.world.upgrade_url(), &token).await;

    assert_eq!((seen.status, seen.body.as_str()), (403, "more"));
    assert_eq!(seen.header("www-authenticate"), None);
    assert_eq!(ungranted.upstream.count(), before + 1);
    assert_vm_never_failed(&ungranted.world).await;
}

#[tokio::test]
async fn a_user_who_has_to_authenticate_again_is_told_so_by_us() {
    let place = Place::start().await;
    place.upstream.says(|_, _| {
        let challenge = "www-authenticate: Bearer error=\"insufficient_user_authentication\", acr_values=\"urn:high\", max_age=5, resource_metadata=\"https://server.example/\"\r\n";
        Say::answer(401, challenge, vec![b'x'; 2_000_000])
    });
    let before = place.upstream.count();

    let seen = place.post_as("alice").await;

    assert_eq!(seen.status, 401);
    let challenge = seen.header("www-authenticate").unwrap();
    for part in ["insufficient_user_authentication", "acr_values=\"urn:high\"", "max_age=\"5\""] {
        assert!(challenge.contains(part), "{challenge}");
    }
    assert!(!challenge.contains("server.example"), "{challenge}");
    assert!(seen.body.len() < 1_000);
    assert_eq!(place.upstream.count(), before + 1);
    assert_vm_never_failed(&place.world).await;
}

#[tokio::test]
async fn fifty_requests_that_are_refused_at_once_cost_one_exchange() {
    let options = Options { concurrency: 4, ..Options::default() };
    let place = Place::with(options, |text| text).await;
    let token = id_token_of(&place.world, "alice");
    for _ in 0..40 {
        assert_eq!(post_as(&place.world.upgrade_url(), &token).await.status, 200);
    }
    let old = place.upstream.received().pop().unwrap().bearer().to_owned();
    let before = legs(&place.world);
    place.upstream.says(move |_, request| match request.bearer() == old {
        true => Say::answer(401, INVALID, "refused"),
        false => Say::answer(200, "", &request.body),
    });

    let mut requests = JoinSet::new();
    for number in 0..50 {
        let (url, bearer) = (place.world.upgrade_url(), format!("Bearer {token}"));
        requests.spawn(async move {
            let body = format!("{{\"id\":{number}}}");
            let seen = post(&url, &[("authorization", &bearer)], body.clone()).await;
            (seen.status, seen.body == body)
        });
    }
    let seen = requests.join_all().await;

    assert!(seen.iter().all(|one| *one == (200, true)), "{seen:?}");
    assert_eq!(legs(&place.world), (before.0 + 1, before.1 + 1));
    place.until_idle().await;
    assert_vm_never_failed(&place.world).await;
}

#[tokio::test]
async fn clients_that_leave_during_the_second_try_leave_nothing_behind() {
    let place = Place::start().await;
    let bearer = place.bearer("alice");
    let headers: [(&str, &[u8]); 1] = [("authorization", bearer.as_bytes())];
    let request = raw::request("POST", &place.origin(), b"/mcp", &headers, b"{}");
    assert_eq!(raw::send(&place.origin(), &request).await.status, 200);
    let old = place.upstream.received().pop().unwrap().bearer().to_owned();
    let second_tries = Arc::new(AtomicUsize::new(0));
    let seen = second_tries.clone();
    place.upstream.says(move |_, request| match request.bearer() == old {
        true => Say::answer(401, INVALID, "refused"),
        false => {
            seen.fetch_add(1, Ordering::SeqCst);
            Say::Hang(vec![])
        }
    });

    let mut clients = vec![];
    for _ in 0..20 {
        let mut stream = raw::connect(&place.origin()).await;
        stream.write_all(&request).await.unwrap();
        clients.push(stream);
    }
    // Who comes when the new token is there has no first try that is refused.
    until(5, "all second tries", || second_tries.load(Ordering::SeqCst) == 20).await;
    drop(clients);
    place.until_stat("http.egress.downstream_rq_active", |active| active == 0).await;
    place.upstream.says(|_, _| Say::answer(200, "", "ok"));

    assert_eq!(raw::send(&place.origin(), &request).await.status, 200);
    assert_eq!(place.post_as("bob").await.status, 200);
    assert_vm_never_failed(&place.world).await;
}

#[tokio::test]
async fn refusals_whose_body_is_large_or_never_ends_are_no_burden() {
    for patch in [|text| text, stopping_at_headers as fn(String) -> String] {
        let options = Options { concurrency: 1, ..Options::default() };
        refusals_are_no_burden(&Place::with(options, patch).await).await;
    }
}

async fn refusals_are_no_burden(place: &Place) {
    let head =
        |length: &str| format!("HTTP/1.1 401 Unauthorized\r\n{INVALID}{length}\r\n").into_bytes();
    type Refusal = Box<dyn Fn() -> Say + Send + Sync>;
    let drip = |length| move || Say::Drip(head(length), "never ends");
    let refusals: [(&str, Refusal); 6] = [
        ("large", Box::new(|| Say::answer(401, INVALID, vec![b'x'; 500_000]))),
        ("closed", Box::new(|| Say::Close(answer(401, INVALID, b"refused")))),
        ("until its end", Box::new(move || Say::Close([&head("")[..], b"refused"].concat()))),
        ("hangs", Box::new(move || Say::Hang(head("content-length: 9\r\n")))),
        ("streams", Box::new(drip("transfer-encoding: chunked\r\n"))),
        ("without a body", Box::new(|| Say::answer(401, INVALID, ""))),
    ];

    for (name, refusal) in refusals {
        place.upstream.says(move |number, _| match number {
            0 => refusal(),
            _ => Say::answer(200, "", "again"),
        });
        let seen = place.post_as(name).await;

        assert_eq!((seen.status, seen.body.as_str()), (200, "again"), "{name}");
        place.until_idle().await;
    }
    // Held back as a whole: more than any buffer of Envoy's has room for.
    place.upstream.says(|number, _| match number {
        0 => Say::answer(401, INVALID, vec![b'x'; 5_000_000]),
        _ => Say::answer(200, "", "again"),
    });
    assert_eq!(place.post_as("huge").await.status, 200);
    // A refusal that is cut is Envoy's to tell: it answers before there is a second answer.
    place
        .upstream
        .says(move |_, _| Say::Close([&head("content-length: 9\r\n")[..], b"ab"].concat()));
    assert_eq!(place.post_as("cut").await.status, 502);
    // One that cannot be sent again goes to the client as it comes.
    place
        .upstream
        .says(move |_, _| Say::Drip(head("transfer-encoding: chunked\r\n"), "never ends"));
    let request = http_client("test").post(place.world.upgrade_url()).body(vec![b'x'; 100_000]);
    let mut seen = request.header("authorization", place.bearer("alice")).send().await.unwrap();
    assert_eq!(seen.status().as_u16(), 401);
    for _ in 0..3 {
        assert!(seen.chunk().await.unwrap().unwrap().starts_with(b"never ends"));
    }
    drop(seen);
    place.until_idle().await;
    assert_vm_never_failed(&place.world).await;
}

#[tokio::test]
async fn a_nonce_that_the_server_wants_is_in_the_second_proof() {
    let patch = upgrade_patch(|upgrade| upgrade["dpop"] = json!("preferred"));
    let options = Options { concurrency: 1, patch_egress: patch, ..Options::default() };
    let place = Place::with(options, |text| text).await;
    let bound = json!({"access_token": "bound", "token_type": "DPoP", "expires_in": 300});
    place.world.tickets_as.endpoints().fail("/token", Fault::Body(bound.to_string()));
    place.upstream.says(|number, _| match number {
        0 => {
            let challenge =
                "www-authenticate: DPoP error=\"use_dpop_nonce\"\r\ndpop-nonce: N-1\r\n";
            Say::answer(401, challenge, "")
        }
        _ => Say::answer(200, "", "again"),
    });
    let before = legs(&place.world);

    let seen = place.post_as("alice").await;

    assert_eq!((seen.status, seen.body.as_str()), (200, "again"), "{seen:?}");
    assert_eq!(seen.header("dpop-nonce"), None);
    let [first, second] = place.upstream.last_two();
    let claims = |request: &Received| {
        let proof = request.header("dpop").unwrap();
        host_tests::journal::Token::new(host_tests::journal::Kind::IdToken, proof).claims.unwrap()
    };
    assert_eq!(claims(&first)["nonce"], Value::Null);
    assert_eq!(claims(&second)["nonce"], "N-1");
    assert_eq!(claims(&second)["htu"], place.world.tickets.resource);
    assert_ne!(claims(&first)["jti"], claims(&second)["jti"]);
    assert_eq!(first.header("authorization"), Some("DPoP bound"));
    assert_eq!(second.header("authorization"), Some("DPoP bound"));
    assert_eq!(legs(&place.world), (before.0 + 1, before.1 + 1));
}
