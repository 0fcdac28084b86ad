//! A login in the browser: a code comes back to a port of this machine (RFC 8252, RFC 7636, OpenID Connect Core
//! §3.1.2).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jagway_core::digest::{base64url, sha256};
use jagway_core::form::Form;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::arguments::Arguments;
use crate::login::Tokens;
use crate::provider::{Provider, Refusal};
use crate::{Result, random};

/// What the answer to our question must be like.
struct Asked {
    state: String,
    issuer: String,
    names_itself: bool,
    code: mpsc::Sender<Result<String>>,
}

/// Shows where to log in, and waits for the code, at most `most`. The tokens, and the nonce asked for.
pub async fn log_in(
    provider: &Provider<'_>,
    arguments: &Arguments,
    most: Duration,
) -> Result<(Tokens, Option<String>)> {
    let listener = TcpListener::bind(("127.0.0.1", arguments.port)).await;
    let port = listener
        .as_ref()
        .map_err(|e| e.kind())
        .and_then(|one| one.local_addr().map_err(|e| e.kind()));
    let port = port.map_err(|why| format!("port {} cannot be had: {why}", arguments.port))?.port();
    let redirect_uri = format!("http://127.0.0.1:{port}/callback");
    let (nonce, state, verifier) = (random(), random(), random());
    let asked = question(provider, arguments, &redirect_uri, &[&nonce, &state, &verifier])?;
    let (sender, mut codes) = mpsc::channel(1);
    let expected = Asked {
        state,
        issuer: provider.issuer.as_str().to_owned(),
        names_itself: provider.metadata.names_itself,
        code: sender,
    };
    let router = Router::new().route("/callback", get(callback)).with_state(Arc::new(expected));
    // Serves until this process ends: so the browser gets its page, whatever comes next here.
    if let Ok(listener) = listener {
        tokio::spawn(async move { axum::serve(listener, router).await });
    }
    eprintln!(
        "As the user whom {} shall act for, open in a browser on this machine",
        arguments.caller
    );
    eprintln!("  {asked}");

    let code = tokio::time::timeout(most, codes.recv()).await;
    let code = code.ok().flatten().ok_or("nobody logged in in time")??;
    let fields = [
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("redirect_uri", &redirect_uri),
        ("code_verifier", &verifier),
    ];
    let answer = provider.post(&provider.metadata.token_endpoint, &fields).await;
    let body = answer.map_err(|refusal| refusal.told("the code for tokens"))?;
    Ok((Tokens::read(&body), Some(nonce)))
}

/// The URL of the authorization request.
fn question(
    provider: &Provider<'_>,
    arguments: &Arguments,
    redirect_uri: &str,
    [nonce, state, verifier]: &[&str; 3],
) -> Result<String> {
    let endpoint = provider.metadata.authorization_endpoint.as_ref();
    let endpoint = endpoint.ok_or("the provider has no authorization_endpoint")?.as_str();
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs([
        ("response_type", "code"),
        ("client_id", provider.client_id()),
        ("redirect_uri", redirect_uri),
        ("scope", &arguments.scope),
        ("state", state),
        ("nonce", nonce),
        ("code_challenge", &base64url(&sha256(verifier.as_bytes()))),
        ("code_challenge_method", "S256"),
    ]);
    // OpenID Connect Core §11: without it `offline_access` is ignored.
    if arguments.scope.split(' ').any(|one| one == "offline_access") {
        query.append_pair("prompt", "consent");
    }
    let joint = if endpoint.contains('?') { '&' } else { '?' };
    Ok(format!("{endpoint}{joint}{}", query.finish()))
}

async fn callback(State(asked): State<Arc<Asked>>, RawQuery(query): RawQuery) -> Response {
    let (status, page) = match asked.answer(&query.unwrap_or_default()) {
        None => (StatusCode::BAD_REQUEST, "This is no answer to the login that was started."),
        Some(answer) => {
            let page = match &answer {
                Ok(_) => "Logged in. Go back to the terminal.",
                Err(_) => "Not logged in. The terminal says why.",
            };
            // The first answer counts.
            let _ = asked.code.try_send(answer);
            (StatusCode::OK, page)
        }
    };
    let headers = [(header::CACHE_CONTROL, "no-store"), (header::REFERRER_POLICY, "no-referrer")];
    (status, headers, page).into_response()
}

impl Asked {
    /// The code in the answer, or why there is none. Nothing if it answers another question: any page can send a
    /// browser here, and must not be able to end the login.
    fn answer(&self, query: &str) -> Option<Result<String>> {
        let form = Form::parse(query.as_bytes()).ok()?;
        if form.get("state") != Some(&self.state) {
            return None;
        }
        // RFC 9207 §2.4.
        let issuer = form.get("iss");
        if issuer.map_or(self.names_itself, |issuer| issuer != self.issuer) {
            return Some(Err("the login was answered by another issuer".to_owned()));
        }
        let code = form.get("code").map(str::to_owned);
        Some(code.ok_or_else(|| {
            let plain = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '_';
            let error = form.get("error").unwrap_or("none");
            let error = error.chars().filter(plain).take(64).collect();
            Refusal::Code(error, 302).told("the login")
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(names_itself: bool) -> Asked {
        let (state, issuer) = ("s1".to_owned(), "https://idp.example".to_owned());
        Asked { state, issuer, names_itself, code: mpsc::channel(1).0 }
    }

    #[test]
    fn only_the_answer_with_our_state_ends_the_login() {
        for query in
            ["", "code=c", "code=c&state=s2", "code=c&state=", "state=s1&state=s1&code=c", "%"]
        {
            assert_eq!(asked(false).answer(query), None, "{query}");
        }

        let answer = asked(true).answer("code=c&state=s1&iss=https%3A%2F%2Fidp.example");

        assert_eq!(answer, Some(Ok("c".to_owned())));
    }

    #[test]
    fn an_answer_of_another_issuer_or_without_a_code_is_told() {
        let cases = [
            (true, "code=c&state=s1", "another issuer"),
            (false, "code=c&state=s1&iss=https%3A%2F%2Fevil.example", "another issuer"),
            (false, "error=access_denied&state=s1", "the login was denied (302 access_denied)"),
            (false, "error=%1b[2Jlogin_required&state=s1", "(302 2Jlogin_required)"),
            (false, "state=s1", "(302 none)"),
        ];

        for (names_itself, query, expected) in cases {
            let why = asked(names_itself).answer(query).and_then(Result::err).unwrap_or_default();
            assert!(why.contains(expected), "{query}: {why}");
        }
    }
}
