//! What a login gave: the tokens, and who it was (OpenID Connect Core §3.1.3.3, §3.1.3.7).

use std::fmt;

use jagway_core::id_token::{Expected, Received};
use jagway_core::json;
use jagway_core::jws::{self, Algorithm, HeaderRules};
use jagway_core::secret::Secret;
use serde_json::{Map, Value};

use crate::Result;
use crate::provider::Provider;

/// What providers sign with.
pub const ALGORITHMS: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];
/// Clock skew allowed, in seconds.
pub const SKEW: u64 = 60;
/// Longest refresh token taken: it has to fit into a variable and a form.
const MAX_REFRESH_TOKEN: usize = 16 * 1024;

/// The answer of the token endpoint.
pub struct Tokens {
    id_token: Option<Secret>,
    refresh_token: Option<Secret>,
}

/// Who logged in, as the verified ID token says.
pub struct User {
    /// `sub`.
    pub subject: String,
    email: Option<String>,
    name: Option<String>,
}

/// A login whose ID token has passed every check.
pub struct Login {
    /// Who it was.
    pub user: User,
    /// What the key is to be bound to.
    pub refresh_token: Secret,
}

impl Tokens {
    /// The tokens in a success.
    pub fn read(body: &Map<String, Value>) -> Self {
        let id_token = json::string(body, "id_token").ok().flatten().map(Secret::new);
        Self { id_token, refresh_token: refresh_token(body) }
    }
}

/// The refresh token in an answer, if it has one that RFC 6749 appendix A.17 allows.
pub fn refresh_token(body: &Map<String, Value>) -> Option<Secret> {
    let text = json::string(body, "refresh_token").ok().flatten()?;
    let sound = (1..=MAX_REFRESH_TOKEN).contains(&text.len());
    (sound && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))).then(|| Secret::new(text))
}

impl Login {
    /// Checks the ID token: signature, `iss`, `aud`, `azp`, `exp`, `iat`, and `nonce` where there is one.
    ///
    /// Does *not* check `at_hash`: there is no use for the access token here.
    pub async fn verify(
        provider: &Provider<'_>,
        tokens: Tokens,
        nonce: Option<&str>,
        scope: &str,
    ) -> Result<Self> {
        let token = tokens.id_token.ok_or("the provider gave no ID token")?;
        let token = token.expose().as_bytes();
        let bad = |fault: jws::Fault| format!("the ID token is not good: {}", fault.code());
        let received = Received::parse(token, ALGORITHMS).map_err(bad)?;
        let expected = Expected {
            issuer: provider.issuer.as_str(),
            client_id: provider.client_id(),
            now: host_tests::now(),
            skew: SKEW,
        };
        let verified = received.verify(&provider.keys().await?, &expected).map_err(bad)?;
        // Read again for what that check has no use for.
        let any = HeaderRules { typ: |_| true, algorithms: ALGORITHMS, forbid_keys: false };
        let claims = jws::parse(token, &any).map_err(bad)?.claims;
        let text = |name| json::string(&claims, name).ok().flatten();
        if nonce.is_some() && text("nonce") != nonce {
            return Err("the ID token is not good: it belongs to another login (nonce)".to_owned());
        }
        let user = User {
            subject: verified.subject,
            email: text("email").map(str::to_owned),
            name: text("name").map(str::to_owned),
        };
        let refresh_token = tokens.refresh_token.ok_or_else(|| no_refresh_token(scope))?;
        Ok(Self { user, refresh_token })
    }
}

fn no_refresh_token(scope: &str) -> String {
    let why = if scope.split(' ').any(|one| one == "offline_access") {
        "offline_access was asked, with prompt=consent where a browser was: allow the client refresh tokens there, or see \
         under which --scope the provider gives them"
    } else {
        "ask for them: most want `offline_access` in --scope"
    };
    format!("the provider gave no refresh token; {why}")
}

impl fmt::Display for User {
    /// Escaped: what a provider says must not move the cursor or turn the direction of the text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sub {:?}", self.subject)?;
        for (name, value) in [("email", &self.email), ("name", &self.name)] {
            if let Some(value) = value {
                write!(f, ", {name} {value:?}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn a_user_cannot_write_on_the_terminal() {
        let user = User {
            subject: "a\"\u{202e}\u{2028}".to_owned(),
            email: Some("\u{1b}[2J".to_owned()),
            name: None,
        };

        let shown = user.to_string();

        assert_eq!(shown, r#"sub "a\"\u{202e}\u{2028}", email "\u{1b}[2J""#);
    }

    #[test]
    fn a_refresh_token_is_printable_ascii_or_none() {
        let read =
            |token: Value| refresh_token(json!({ "refresh_token": token }).as_object().unwrap());

        assert_eq!(read(json!("it's $one")).unwrap().expose(), "it's $one");
        for bad in
            [json!(""), json!("a\nb"), json!("ä"), json!(1), json!(null), json!("a".repeat(16385))]
        {
            assert!(read(bad).is_none());
        }
    }

    #[test]
    fn who_gets_no_refresh_token_learns_what_to_ask_for() {
        assert!(no_refresh_token("openid").contains("`offline_access` in --scope"));
        assert!(no_refresh_token("openid offline_access").contains("prompt=consent"));
    }
}
