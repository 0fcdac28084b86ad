//! What every token endpoint of the world shares: form reading (RFC 6749 §3.2) and error answers (§5.2).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// The parameters of a token request. Empty ones count as omitted.
pub struct Form(Vec<(String, String)>);

impl Form {
    /// Reads a form; a repeated parameter is `invalid_request`, except `resource` (RFC 8707).
    pub fn parse(content_type: Option<&HeaderValue>, body: &[u8]) -> Result<Self, OauthError> {
        let form = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !form.starts_with("application/x-www-form-urlencoded") {
            return Err(OauthError::new("invalid_request", "not a form"));
        }
        let mut pairs: Vec<(String, String)> = vec![];
        for (name, value) in form_urlencoded::parse(body) {
            if name != "resource" && pairs.iter().any(|(known, _)| *known == name) {
                return Err(OauthError::new("invalid_request", format!("{name} is repeated")));
            }
            pairs.push((name.into_owned(), value.into_owned()));
        }
        pairs.retain(|(_, value)| !value.is_empty());
        Ok(Self(pairs))
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The value of a parameter that must be there.
    pub fn need(&self, name: &str) -> Result<&str, OauthError> {
        self.get(name)
            .ok_or_else(|| OauthError::new("invalid_request", format!("{name} is missing")))
    }

    /// Every value of a parameter that may repeat.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A refusal of the token endpoint.
#[derive(Debug)]
pub struct OauthError {
    /// The registered code.
    pub code: &'static str,
    /// Words for people.
    pub description: String,
}

impl OauthError {
    /// A refusal with this code.
    pub fn new(code: &'static str, description: impl Into<String>) -> Self {
        Self { code, description: description.into() }
    }
}

impl IntoResponse for OauthError {
    fn into_response(self) -> Response {
        let status = if self.code == "invalid_client" {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::BAD_REQUEST
        };
        let mut response =
            no_store(json!({"error": self.code, "error_description": self.description}));
        *response.status_mut() = status;
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"token\""),
            );
        }
        response
    }
}

/// A JSON answer that no cache may keep (RFC 6749 §5.1).
pub fn no_store(body: Value) -> Response {
    let headers = [(header::CACHE_CONTROL, "no-store"), (header::PRAGMA, "no-cache")];
    (headers, axum::Json(body)).into_response()
}

/// The part of `asked` that is in `allowed`, in the order asked; everything allowed when nothing was asked.
pub fn narrowed(asked: Option<&str>, allowed: &[String]) -> Result<String, OauthError> {
    let Some(asked) = asked else { return Ok(allowed.join(" ")) };
    let granted: Vec<&str> =
        asked.split(' ').filter(|scope| allowed.iter().any(|known| known == scope)).collect();
    if granted.is_empty() {
        return Err(OauthError::new("invalid_scope", "no scope asked for may be granted"));
    }
    Ok(granted.join(" "))
}
