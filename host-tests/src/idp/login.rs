//! The authorization endpoint: code flow with PKCE (RFC 7636) behind a login form.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use super::{Acme, Grant};
use crate::journal::sender;
use crate::keys::random_text;
use crate::now;

/// A login under way: what the client asked for, kept here rather than in the form.
pub(super) struct Login {
    asked: HashMap<String, String>,
}

/// A code waiting to be redeemed.
pub(super) struct Code {
    pub grant: Grant,
    pub redirect_uri: String,
    pub challenge: String,
    pub nonce: Option<String>,
}

/// Shows the login form.
pub(super) async fn ask(
    State(acme): State<Arc<Acme>>,
    Query(asked): Query<HashMap<String, String>>,
) -> Response {
    let is = |name: &str, value: &str| asked.get(name).is_some_and(|given| given == value);
    let complete = ["client_id", "redirect_uri", "code_challenge"]
        .iter()
        .all(|name| asked.contains_key(*name));
    if !is("response_type", "code") || !is("code_challenge_method", "S256") || !complete {
        return (StatusCode::BAD_REQUEST, "a code request with PKCE (S256) is needed")
            .into_response();
    }
    let id = random_text();
    acme.logins.lock().unwrap().insert(id.clone(), Login { asked });

    Html(format!(
        r#"<!doctype html><title>Acme</title><form method="post">
<input type="hidden" name="login" value="{id}"><input name="username"><input name="password" type="password">
<button>Log in</button></form>"#
    ))
    .into_response()
}

/// Takes the form and sends the user back to the client with a code.
pub(super) async fn submit(
    State(acme): State<Arc<Acme>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let form: HashMap<String, String> = form_urlencoded::parse(&body).into_owned().collect();
    let field = |name: &str| form.get(name).cloned().unwrap_or_default();
    let user = field("username");
    if acme.users.lock().unwrap().get(&user) != Some(&field("password")) {
        return (StatusCode::FORBIDDEN, "wrong name or password").into_response();
    }
    let Some(Login { asked }) = acme.logins.lock().unwrap().remove(&field("login")) else {
        return (StatusCode::BAD_REQUEST, "no login under way").into_response();
    };
    acme.journal.record(&sender(&headers), "Acme IdP", format!("{user} logs in"), None);

    let code = random_text();
    let redirect_uri = asked["redirect_uri"].clone();
    let mut answer = form_urlencoded::Serializer::new(String::new());
    answer.append_pair("code", &code).append_pair("iss", &acme.issuer);
    if let Some(state) = asked.get("state") {
        answer.append_pair("state", state);
    }
    let location = format!("{redirect_uri}?{}", answer.finish());
    let kept = Code {
        grant: Grant { client_id: asked["client_id"].clone(), user, auth_time: now() },
        challenge: asked["code_challenge"].clone(),
        nonce: asked.get("nonce").cloned(),
        redirect_uri,
    };
    acme.codes.lock().unwrap().insert(code, kept);
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
}
