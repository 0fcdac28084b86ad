//! The rows, and the contenders of a to e and g: the same request through nothing, a wasm filter, `jwt_authn`, Jagway.

use std::rc::Rc;

use serde_json::{Value, json};

use crate::arguments::Arguments;
use crate::gateway::{self, Setup, jwt_authn, wasm};
use crate::grants;
use crate::growth;
use crate::load::Target;
use crate::row::{Row, Supply};
use crate::scene::{ANSWER, HOST, ISSUER, RESOURCE, Scene};
use crate::tokens::{Pool, many};
use crate::upgrade;
use crate::upstream::{Credential, Server};

/// All rows that are wanted, in the order of a slice: d, b and f side by side, and e beside what has the same tokens.
pub async fn rows(scene: &Scene, arguments: &Arguments) -> Vec<Row> {
    let mut rows = Vec::new();
    let plan = arguments.plan;
    let make = scene.access_tokens(&scene.jagway_key);
    let one = Rc::new(vec![make()]);
    let new = Pool::new(Row::first_slice(9_000, plan), make);
    let same = || Supply::Same(one.clone());
    if arguments.want("a") {
        let target = before(Credential::Untouched, None, 1).await;
        rows.push(requests("a_no_filter", &target, same()));
    }
    if arguments.want("c") {
        let target = native(scene.jagway_key.jwk(), Some(1000)).await;
        rows.push(requests("c_jwt_authn_cached", &target, same()));
        let key = &scene.idp_keys[0];
        let target = native(key.jwk(), None).await;
        // It remembers nothing, so that it does not matter that these come again.
        let some = Rc::new(many(5_000, &scene.access_tokens(key)));
        rows.push(requests("c_jwt_authn_rs256", &target, Supply::Same(some)));
    }
    if arguments.want("d") {
        let target = scene.accept_gateway(&scene.plain_accept()).await;
        rows.push(requests("d_warm_accept", &target, same()));
    }
    if arguments.want("b") {
        let file = tokio::task::spawn_blocking(|| host_tests::wasm::example("one_header"));
        let filter = wasm(&file.await.unwrap(), &json!({}), &[]);
        let target = before(Credential::Untouched, Some(filter), 1).await;
        rows.push(requests("b_one_header", &target, same()));
    }
    if arguments.want("f") {
        rows.push(upgrade::row(scene).await);
    }
    if arguments.want("c") {
        let target = native(scene.jagway_key.jwk(), None).await;
        rows.push(requests("c_jwt_authn_es256", &target, Supply::New(new.clone())));
    }
    if arguments.want("e") {
        let target = scene.accept_gateway(&scene.plain_accept()).await;
        rows.push(requests("e_new_tokens", &target, Supply::New(new.clone())));
        let target = scene.accept_gateway(&scene.plain_accept()).await;
        scene.revoke(&target, &(scene.access_tokens(&scene.jagway_key))()).await;
        rows.push(requests("e_after_revocation", &target, Supply::New(new)));
    }
    if arguments.want("g") {
        rows.extend(calls(scene, &one).await);
    }
    if arguments.want("h") {
        rows.extend(grants::rows(scene, plan).await);
    }
    if arguments.want("j") {
        rows.extend(growth::rows(scene, plan).await);
    }
    rows
}

/// Calls of a tool, of two sizes, through Jagway and through nothing.
async fn calls(scene: &Scene, token: &Rc<Vec<String>>) -> Vec<Row> {
    let jagway = scene.accept_gateway(&scene.plain_accept()).await;
    let nothing = before(Credential::Untouched, None, 1).await;
    let mut rows = Vec::new();
    for (size, bytes) in [("1k", 1 << 10), ("64k", 1 << 16)] {
        for (name, target) in [("", &jagway), ("_no_filter", &nothing)] {
            let around = move |_| call(bytes);
            let supply = Supply::Same(token.clone());
            rows.push(Row::new(&format!("g_{size}{name}"), target, supply, Box::new(around)));
        }
    }
    rows
}

/// What stands around the token in a call with a body of so many bytes.
fn call(bytes: usize) -> (Vec<u8>, Vec<u8>) {
    const START: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"count","arguments":{"what":""#;
    const END: &str = r#""}}}"#;
    let filling = "x".repeat(bytes - START.len() - END.len());
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: {HOST}\r\nAccept: application/json, text/event-stream\r\nContent-Type: application/json\r\nContent-Length: {bytes}\r\nAuthorization: Bearer "
    );
    (head.into_bytes(), format!("\r\n\r\n{START}{filling}{END}").into_bytes())
}

/// A row of requests without a body, with a bearer token each.
pub fn requests(name: &str, target: &Rc<Target>, supply: Supply) -> Row {
    Row::new(name, target, supply, Box::new(|_| get("Authorization: Bearer ")))
}

/// What stands around a credential in a request to the MCP server; the header line begins with `header`.
pub fn get(header: &str) -> (Vec<u8>, Vec<u8>) {
    let head = format!(
        "GET /mcp HTTP/1.1\r\nHost: {HOST}\r\nAccept: application/json, text/event-stream\r\n{header}"
    );
    (head.into_bytes(), b"\r\n\r\n".to_vec())
}

/// `jwt_authn`, with or without its cache. It takes the token away, as Jagway does.
async fn native(key: Value, cache: Option<u32>) -> Rc<Target> {
    let filter = jwt_authn(ISSUER, RESOURCE, &json!({"keys": [key]}), cache);
    before(Credential::Removed, Some(filter), 1).await
}

/// An Envoy of so many workers with this filter, before a server that the credential must arrive at so.
pub async fn before(credential: Credential, filter: Option<Value>, concurrency: u32) -> Rc<Target> {
    let server = Server::mcp(ANSWER, credential);
    let clusters = &[("mcp", server.port)];
    gateway::start(&Setup { filter, clusters, concurrency, ..Setup::default() }).await
}
