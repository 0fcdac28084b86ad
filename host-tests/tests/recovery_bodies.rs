//! A request that is sent once more has the body it had, however that came; or it is not sent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::Duration;

use host_tests::egress::{Listener, port_of};
use host_tests::endpoints::Fault;
use host_tests::scripted::Say;
use host_tests::{Options, raw};
use support::refusing::*;
use support::*;

/// The largest body that is kept.
const MAX_KEPT: usize = 64 * 1024;

/// One request as bytes, in parts: its head, and its body in pieces of `size` bytes.
fn parts(whole: &[u8], size: usize) -> Vec<&[u8]> {
    let head = whole.windows(4).position(|part| part == b"\r\n\r\n").unwrap() + 4;
    std::iter::once(&whole[..head]).chain(whole[head..].chunks(size.max(1))).collect()
}

fn text(size: usize) -> Vec<u8> {
    (0..size).map(|n| b'a' + (n * 7 % 26) as u8).collect()
}

/// How a body comes.
#[derive(Clone, Copy, Debug)]
struct Way {
    chunked: bool,
    /// Into how many parts it is cut; 1: with the head.
    parts: usize,
    /// Whether the exchange is made while it comes.
    cold: bool,
    /// After which part the exchange is done.
    held: Option<usize>,
}

/// Sends a body this way, and checks that the server got it twice.
async fn is_sent_again(place: &Place, size: usize, way: Way) {
    let name = format!("{size} bytes, {way:?}");
    let (origin, body) = (place.origin(), text(size));
    let bearer = place.bearer(&name);
    let headers: [(&str, &[u8]); 1] = [("authorization", bearer.as_bytes())];
    if way.cold {
        let delay = Duration::from_millis(if way.held.is_some() { 300 } else { 150 });
        place.world.idp.endpoints().fail_times("/token", 1, Fault::Delay(delay));
    } else {
        place.upstream.says(|_, _| Say::answer(200, "", "ok"));
        let warm = raw::request("POST", &origin, b"/mcp", &headers, b"{}");
        assert_eq!(raw::send(&origin, &warm).await.status, 200, "{name}");
    }
    let before = place.upstream.count();
    place.refuses_first(|| Say::answer(200, "", "again"));
    let cut = size.div_ceil(way.parts).max(1);
    let whole = match way.chunked {
        true => raw::chunked(&origin, b"/mcp", &headers, &body, cut, ""),
        false => raw::request("POST", &origin, b"/mcp", &headers, &body),
    };
    let parts = if way.parts == 1 { vec![&whole[..]] } else { parts(&whole, cut) };

    let seen = place.send_in_parts(&parts, way.held).await;

    assert_eq!((seen.status, seen.body.as_str()), (200, "again"), "{name}");
    let received = place.upstream.received().split_off(before);
    assert_eq!(received.len(), 2, "{name}");
    assert!(received.iter().all(|one| one.body == body), "{name}");
    assert_eq!(likeness(&received[0]), likeness(&received[1]), "{name}");
}

async fn bodies_are_sent_again(patch: fn(String) -> String) {
    let options = Options { concurrency: 1, ..Options::default() };
    let place = Place::with(options, patch).await;

    for cold in [false, true] {
        for size in [0, 1, 2, 1_000, 16_384, 40_000, MAX_KEPT] {
            for (parts, chunked) in [(1, false), (1, true), (2, false), (2, true), (5, true)] {
                is_sent_again(&place, size, Way { chunked, parts, cold, held: None }).await;
            }
        }
    }
    for chunked in [false, true] {
        for held in [0, 1, 3] {
            let way = Way { chunked, parts: 6, cold: true, held: Some(held) };
            is_sent_again(&place, 30_000, way).await;
        }
    }
    assert_vm_never_failed(&place.world).await;
}

#[tokio::test]
async fn bodies_that_stream_are_sent_again_byte_for_byte() {
    bodies_are_sent_again(|text| text).await;
}

#[tokio::test]
async fn bodies_that_are_held_are_sent_again_byte_for_byte() {
    bodies_are_sent_again(stopping_at_headers).await;
}

#[tokio::test]
async fn what_cannot_be_sent_as_it_was_is_not_sent_again() {
    let trailers = |text: String| {
        let prefix = "stat_prefix: egress\n";
        let more =
            format!("{prefix}          http_protocol_options: {{ enable_trailers: true }}\n");
        text.replacen(prefix, &more, 1)
    };
    for patch in [|text| text, stopping_at_headers as fn(String) -> String] {
        let options = Options { concurrency: 1, ..Options::default() };
        let place = Place::with(options, move |text| patch(trailers(text))).await;
        let origin = place.origin();
        let large = vec![b'x'; MAX_KEPT + 1];
        type Make<'a> = &'a dyn Fn(&[(&str, &[u8])]) -> Vec<u8>;
        let cases: [(&str, Make); 6] = [
            ("too large", &|headers| raw::request("POST", &origin, b"/mcp", headers, &large)),
            ("too large, chunked", &|headers| {
                raw::chunked(&origin, b"/mcp", headers, &large, 5_000, "")
            }),
            ("with trailers", &|headers| {
                raw::chunked(&origin, b"/mcp", headers, b"{}", 1, "x-end: 1\r\n")
            }),
            ("no text", &|headers| raw::request("POST", &origin, b"/mcp", headers, b"\xff\xfe")),
            ("no text in a header", &|headers| {
                let more = [headers, &[("x-odd", b"\xe9")]].concat();
                raw::request("POST", &origin, b"/mcp", &more, b"{}")
            }),
            ("another method", &|headers| raw::request("REPORT", &origin, b"/mcp", headers, b"")),
        ];

        for (name, request) in cases {
            for is_cold in [true, false] {
                let bearer = place.bearer(&format!("{name} {is_cold}"));
                let headers: [(&str, &[u8]); 1] = [("authorization", bearer.as_bytes())];
                if !is_cold {
                    place.upstream.says(|_, _| Say::answer(200, "", ""));
                    let warm = raw::request("POST", &origin, b"/mcp", &headers, b"");
                    assert_eq!(raw::send(&origin, &warm).await.status, 200, "{name}");
                }
                place.upstream.says(|_, _| Say::answer(401, INVALID, "refused"));
                let before = place.upstream.count();
                let seen = raw::send(&origin, &request(&headers)).await;

                assert_eq!((seen.status, seen.body.as_str()), (401, "refused"), "{name} {is_cold}");
                assert!(seen.header("www-authenticate").is_empty(), "{name} {is_cold}");
                assert_eq!(place.upstream.count(), before + 1, "{name} {is_cold}");
            }
        }
        assert_vm_never_failed(&place.world).await;
    }
}

#[tokio::test]
async fn a_request_over_http_2_is_sent_once_more_as_it_was() {
    let front = Listener::find();
    let port = port_of(&front.url("/"));
    let options = Options { concurrency: 1, ..Options::default() };
    let place = Place::with(options, move |text| with_front(text, port)).await;
    let host = place.origin().trim_start_matches("http://").to_owned();
    let origin = front.url("");

    for (user, size, chunk) in [("alice", 0, 0), ("bob", 30_000, 0), ("carol", 30_000, 7_000)] {
        let bearer = place.bearer(user);
        let headers: [(&str, &[u8]); 2] =
            [("authorization", bearer.as_bytes()), ("host", host.as_bytes())];
        let body = vec![b'x'; size];
        let request = match chunk {
            0 => raw::request("POST", &origin, b"/mcp", &headers, &body),
            size => raw::chunked(&origin, b"/mcp", &headers, &body, size, ""),
        };
        let before = place.upstream.count();
        place.refuses_first(|| Say::answer(200, "x-a: b\r\n", "again"));
        let seen = raw::send(&origin, &request).await;

        assert_eq!((seen.status, seen.body.as_str()), (200, "again"), "{user}");
        assert_eq!(seen.header("x-a"), ["b"]);
        assert_eq!(place.upstream.count(), before + 2, "{user}");
        let [first, second] = place.upstream.last_two();
        assert_eq!(likeness(&first), likeness(&second), "{user}");
        assert_eq!(second.body, body, "{user}");
    }
    assert!(place.stat("http.egress.downstream_cx_http2_total").await > 0);
    assert_vm_never_failed(&place.world).await;
}

#[tokio::test]
async fn a_client_that_waits_to_continue_is_served_by_the_second_try() {
    let place = Place::start().await;
    let bearer = place.bearer("alice");
    let headers: [(&str, &[u8]); 2] =
        [("authorization", bearer.as_bytes()), ("expect", b"100-continue")];
    place.refuses_first(|| Say::answer(200, "", "again"));

    let request = raw::request("POST", &place.origin(), b"/mcp", &headers, b"{\"a\":1}");
    let seen = raw::send(&place.origin(), &request).await;

    assert_eq!((seen.status, seen.body.as_str()), (200, "again"), "{seen:?}");
    let [first, second] = place.upstream.last_two();
    assert_eq!(likeness(&first), likeness(&second));
    assert_eq!(second.body, "{\"a\":1}");
}

/// The bootstrap with a listener on this port that speaks HTTP/2 to the egress listener.
fn with_front(text: String, port: u16) -> String {
    let egress = text.find("port_value: ").unwrap() + "port_value: ".len();
    let egress = text[egress..].split(' ').next().unwrap().to_owned();
    let listener = format!(
        r#"listeners:
  - name: front
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          route_config: {{ virtual_hosts: [ {{ name: all, domains: ["*"], routes: [ {{ match: {{ prefix: / }}, route: {{ cluster: front, timeout: 0s }} }} ] }} ] }}
          http_filters: [ {{ name: router, typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }} }} ]
"#
    );
    let cluster = format!(
        r#"clusters:
  - name: front
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ http2_protocol_options: {{}} }}
    load_assignment:
      cluster_name: front
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {egress} }} }} }} }}] }}]
"#
    );
    text.replacen("listeners:\n", &listener, 1).replacen("clusters:\n", &cluster, 1)
}
