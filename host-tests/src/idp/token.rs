//! The IdP's token endpoint: code, refresh token, and the exchange of a subject token for an ID-JAG.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Acme, Grant};
use crate::client_auth::Client;
use crate::journal::{Kind, Token, sender};
use crate::jwks::verify_with;
use crate::keys::{base64url, random_text};
use crate::names::{GRANT_TOKEN_EXCHANGE, TOKEN_ID_JAG, TOKEN_ID_TOKEN, TOKEN_REFRESH, TYP_ID_JAG};
use crate::now;
use crate::oauth::{Form, OauthError, narrowed, no_store};

/// An ID token lives a working day, so that a held demo stays usable.
const ID_TOKEN_LIFETIME: u64 = 8 * 3600;

pub(super) async fn endpoint(
    State(acme): State<Arc<Acme>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, OauthError> {
    let from = sender(&headers);
    let answered = answer(&acme, &from, &headers, &body);
    if let Err(refusal) = &answered {
        acme.journal.record(
            "Acme IdP",
            &from,
            format!("refuses: {} ({})", refusal.code, refusal.description),
            None,
        );
    }
    answered
}

fn answer(
    acme: &Acme,
    from: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, OauthError> {
    let form = Form::parse(headers.get(header::CONTENT_TYPE), body)?;
    let client = acme.clients.authenticate(headers, &form)?;
    match form.need("grant_type")? {
        "authorization_code" => by_code(acme, from, &client, &form),
        "refresh_token" => by_refresh_token(acme, from, &client, &form),
        GRANT_TOKEN_EXCHANGE => exchange(acme, from, &client, &form),
        _ => Err(OauthError::new("unsupported_grant_type", "not here")),
    }
}

fn by_code(acme: &Acme, from: &str, client: &Client, form: &Form) -> Result<Response, OauthError> {
    let wrong = || OauthError::new("invalid_grant", "the code is not good");
    // Taken out at once: a code is good for one try.
    let code = acme.codes.lock().unwrap().remove(form.need("code")?).ok_or_else(wrong)?;
    let challenge = base64url(&Sha256::digest(form.need("code_verifier")?));
    if code.grant.client_id != client.id
        || code.redirect_uri != form.need("redirect_uri")?
        || code.challenge != challenge
    {
        return Err(wrong());
    }
    Ok(login_answer(acme, from, code.grant, code.nonce, None))
}

fn by_refresh_token(
    acme: &Acme,
    from: &str,
    client: &Client,
    form: &Form,
) -> Result<Response, OauthError> {
    let text = form.need("refresh_token")?;
    let grant = grant_of(acme, client, text)?;
    Ok(login_answer(acme, from, grant, None, Some(text.into())))
}

/// RFC 8693 §2 in the ID-JAG profile.
fn exchange(acme: &Acme, from: &str, client: &Client, form: &Form) -> Result<Response, OauthError> {
    if form.need("requested_token_type")? != TOKEN_ID_JAG {
        return Err(OauthError::new("invalid_request", "only ID-JAGs are to be had"));
    }
    let text = form.need("subject_token")?;
    let (kind, grant) = match form.need("subject_token_type")? {
        TOKEN_ID_TOKEN => (Kind::IdToken, subject_of_id_token(acme, client, text)),
        TOKEN_REFRESH => (Kind::RefreshToken, grant_of(acme, client, text)),
        _ => return Err(OauthError::new("invalid_request", "unknown subject_token_type")),
    };
    let what = format!("POST /token: token exchange as {}", client.id);
    acme.journal.record(from, "Acme IdP", what, Some(Token::new(kind, text)));
    let grant = grant?;

    // Several connections may share an audience; the resource, if given, tells them apart.
    let audience = form.need("audience")?;
    let asked: Vec<String> = form.all("resource").map(Into::into).collect();
    let connections = acme.connections.lock().unwrap();
    let mut fitting = connections
        .iter()
        .filter(|known| known.client_id == client.id && known.audience == audience);
    let connection = fitting
        .find(|known| asked.iter().all(|resource| known.resources.contains(resource)))
        .ok_or_else(|| {
            OauthError::new("invalid_target", "no connection to that audience and resource")
        })?;
    let scope = narrowed(form.get("scope"), &connection.scopes)?;

    let renewed = (kind == Kind::RefreshToken).then(|| renew(acme, &grant, text)).flatten();
    let claims = acme.id_jag_claims(connection, &grant.user, grant.auth_time, &asked, &scope);
    let key = acme.key();
    let id_jag = key.sign(&key.header(TYP_ID_JAG), &claims);
    acme.journal.record("Acme IdP", from, "200: issues", Some(Token::new(Kind::IdJag, &id_jag)));

    let mut answer = json!({
        "issued_token_type": TOKEN_ID_JAG,
        "access_token": id_jag,
        "token_type": "N_A",
        "scope": scope,
        "expires_in": 300,
    });
    if let Some(renewed) = renewed {
        answer["refresh_token"] = json!(renewed);
    }
    Ok(no_store(answer))
}

/// The token that takes the place of the one just used, where that is the custom.
fn renew(acme: &Acme, grant: &Grant, used: &str) -> Option<String> {
    let mut renewing = acme.renewing.lock().unwrap();
    if !renewing.is_on {
        return None;
    }
    let renewed = random_text();
    let mut tokens = acme.refresh_tokens.lock().unwrap();
    tokens.remove(used);
    tokens.insert(renewed.clone(), grant.clone());
    renewing.spent.insert(used.into(), grant.clone());
    Some(renewed)
}

/// The ID token must be ours, current, and issued to the client that brings it.
fn subject_of_id_token(acme: &Acme, client: &Client, text: &str) -> Result<Grant, OauthError> {
    let wrong = |why: &str| OauthError::new("invalid_grant", format!("subject token: {why}"));
    let header = jsonwebtoken::decode_header(text).map_err(|_| wrong("not a JWT"))?;
    // A signed token of another type is not an ID token, whatever the request calls it.
    if header.typ.as_deref().is_some_and(|typ| typ != "JWT") {
        return Err(wrong("not an ID token"));
    }
    let key = {
        let keys = acme.keys.lock().unwrap();
        let mut all = keys.published.iter().chain(&keys.retired);
        all.find(|key| Some(key.kid()) == header.kid.as_deref()).map(|key| key.jwk())
    };
    let key = serde_json::from_value(key.ok_or_else(|| wrong("unknown key"))?).unwrap();
    let claims = verify_with(&key, text).map_err(|error| wrong(&error))?;
    if claims["iss"] != acme.issuer.as_str() {
        return Err(wrong("not issued here"));
    }
    if claims["aud"] != client.id.as_str() {
        return Err(wrong("issued to another client"));
    }
    let user = claims["sub"].as_str().ok_or_else(|| wrong("no sub"))?.into();
    Ok(Grant {
        client_id: client.id.clone(),
        user,
        auth_time: claims["auth_time"].as_u64().unwrap_or_default(),
    })
}

fn grant_of(acme: &Acme, client: &Client, refresh_token: &str) -> Result<Grant, OauthError> {
    let mut renewing = acme.renewing.lock().unwrap();
    if let Some(stolen) = renewing.spent.get(refresh_token).cloned() {
        renewing.reused += 1;
        acme.refresh_tokens.lock().unwrap().retain(|_, grant| grant.user != stolen.user);
    }
    drop(renewing);
    let grant = acme.refresh_tokens.lock().unwrap().get(refresh_token).cloned();
    let wrong = || OauthError::new("invalid_grant", "the refresh token is not good");
    grant.filter(|grant| grant.client_id == client.id).ok_or_else(wrong)
}

/// OIDC Core §3.1.3.3: an ID token, a refresh token (the same as before on refresh) and an access token of no use here.
fn login_answer(
    acme: &Acme,
    from: &str,
    grant: Grant,
    nonce: Option<String>,
    refresh_token: Option<String>,
) -> Response {
    let refresh_token = refresh_token.unwrap_or_else(random_text);
    acme.refresh_tokens.lock().unwrap().insert(refresh_token.clone(), grant.clone());
    let id_token = id_token(acme, &grant, nonce);
    acme.journal.record(
        "Acme IdP",
        from,
        "200: issues",
        Some(Token::new(Kind::IdToken, &id_token)),
    );
    no_store(json!({
        "access_token": random_text(),
        "token_type": "Bearer",
        "expires_in": 300,
        "id_token": id_token,
        "refresh_token": refresh_token,
        "scope": "openid email offline_access",
    }))
}

fn id_token(acme: &Acme, grant: &Grant, nonce: Option<String>) -> String {
    let mut claims = json!({
        "iss": acme.issuer,
        "sub": grant.user,
        "aud": grant.client_id,
        "iat": now(),
        "exp": now() + ID_TOKEN_LIFETIME,
        "auth_time": grant.auth_time,
        "email": format!("{}@acme.example", grant.user),
    });
    if let Some(nonce) = nonce {
        claims["nonce"] = Value::String(nonce);
    }
    let key = acme.key();
    key.sign(&key.header("JWT"), &claims)
}
