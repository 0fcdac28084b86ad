//! Client ID Metadata Documents: clients that nobody registered, whose `client_id` is the URL of what
//! they say about themselves (draft-ietf-oauth-client-id-metadata-document).

use crate::form;
use crate::http::Url;
use crate::json;
use crate::names;
use serde_json::{Map, Value};
use url::Host;

/// Longest `client_id` read as a URL, in bytes.
const MAX_URL: usize = 512;
/// Largest document read, in bytes: what the draft recommends.
pub const MAX_DOCUMENT: usize = 5 * 1024;

/// The URL that `client_id` is, if it is one of a metadata document: `https`, with a path, without
/// dot segments however they are encoded, query, fragment or user information, at most 512 bytes,
/// in the one form that every parser leaves alone.
///
/// Without `allow_http` (tests and demos) also neither an IP address for a host nor a port: we cannot
/// see what a cluster connects to, and an address is rarely meant for us. Does *not* check that the
/// host is one the operator allows, which must be done before anything is fetched.
pub fn client_url(client_id: &str, allow_http: bool) -> Option<Url> {
    if client_id.len() > MAX_URL || client_id.contains('?') {
        return None;
    }
    let url = Url::parse(client_id)?;
    let path = form::decode(url.path())?;
    let dots = path.split(['/', '\\']).any(|segment| matches!(segment, "." | ".."));
    let parsed = url::Url::parse(client_id).ok()?;
    let public =
        url.is_https() && parsed.port().is_none() && matches!(parsed.host(), Some(Host::Domain(_)));
    (!dots && url.path() != "/" && (public || allow_http)).then_some(url)
}

/// What a client says about itself, as far as it concerns the token endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// How it authenticates.
    pub credential: Credential,
    /// `dpop_bound_access_tokens` (RFC 9449 §5.2): it wants no token that is not bound.
    pub dpop_bound_access_tokens: bool,
    /// Whether `grant_types`, if there, lists the JWT bearer grant (RFC 7591 §2). Absent counts as
    /// yes here: RFC 7591 would default to a grant that this server does not have.
    pub may_use_jwt_bearer: bool,
}

/// How a client with a metadata document authenticates. There is no shared secret it could have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// `private_key_jwt`, with this key set as JSON. Whether any key in it is of use is *not* checked.
    Jwks(Vec<u8>),
    /// `private_key_jwt`, with the key set at this URL, which has the origin of the `client_id`.
    JwksUri(Url),
    /// `none`. Anybody can name a URL: this proves nothing.
    Public,
}

/// Why a metadata document is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// More than 5 KiB.
    TooLarge,
    /// Not one strict JSON object.
    Json,
    /// `client_id` is not the URL it was fetched from.
    ClientId,
    /// A `client_secret` in public.
    SharedSecret,
    /// `token_endpoint_auth_method` is neither `private_key_jwt` nor `none`.
    Method,
    /// `private_key_jwt` without exactly one of `jwks` and `jwks_uri`.
    Keys,
    /// `jwks_uri` is not a URL of the origin of the `client_id`.
    JwksUri,
    /// This member has not the type that it must have.
    Type(&'static str),
}

impl Fault {
    /// Stable code for logs and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::TooLarge => "client_metadata_too_large",
            Self::Json => "client_metadata_json",
            Self::ClientId => "client_metadata_client_id",
            Self::SharedSecret => "client_metadata_shared_secret",
            Self::Method => "client_metadata_auth_method",
            Self::Keys => "client_metadata_keys",
            Self::JwksUri => "client_metadata_jwks_uri",
            Self::Type(_) => "client_metadata_type",
        }
    }
}

impl Document {
    /// The document in `body`, which was fetched from `url` ([`client_url`]).
    ///
    /// Its `client_id` "MUST match the URL of the document using simple string comparison"; it may
    /// hold no shared secret and name no method that needs one. Each [`Fault`] says which member is
    /// wrong. Members that do not concern the token endpoint are not looked at. Does *not* check the
    /// answer's status or media type, nor whether public clients are admitted.
    pub fn parse(url: &Url, body: &[u8], allow_http: bool) -> Result<Self, Fault> {
        if body.len() > MAX_DOCUMENT {
            return Err(Fault::TooLarge);
        }
        let document = json::object(body).ok_or(Fault::Json)?;
        if document.get("client_id").and_then(Value::as_str) != Some(url.as_str()) {
            return Err(Fault::ClientId);
        }
        let secrets = ["client_secret", "client_secret_expires_at"];
        if secrets.iter().any(|name| document.contains_key(*name)) {
            return Err(Fault::SharedSecret);
        }
        Ok(Self {
            credential: credential(url, &document, allow_http)?,
            dpop_bound_access_tokens: flag(&document, "dpop_bound_access_tokens")?,
            may_use_jwt_bearer: may_use_jwt_bearer(&document)?,
        })
    }
}

fn credential(
    url: &Url,
    document: &Map<String, Value>,
    allow_http: bool,
) -> Result<Credential, Fault> {
    let method = json::string(document, "token_endpoint_auth_method")
        .map_err(|_| Fault::Type("token_endpoint_auth_method"))?;
    match method {
        Some("none") => return Ok(Credential::Public),
        Some("private_key_jwt") => {}
        // RFC 7591 §2: "If unspecified or omitted, the default is client_secret_basic".
        None | Some(_) => return Err(Fault::Method),
    }
    match (document.get("jwks"), document.get("jwks_uri")) {
        (Some(Value::Object(_)), Some(_)) | (None, None) => Err(Fault::Keys),
        (Some(jwks @ Value::Object(_)), None) => {
            Ok(Credential::Jwks(jwks.to_string().into_bytes()))
        }
        (Some(_), _) => Err(Fault::Type("jwks")),
        (None, Some(Value::String(text))) => Url::parse(text)
            // Whoever holds another origin does not thereby hold the client.
            .filter(|keys| keys.origin() == url.origin() && (keys.is_https() || allow_http))
            .map(Credential::JwksUri)
            .ok_or(Fault::JwksUri),
        (None, Some(_)) => Err(Fault::Type("jwks_uri")),
    }
}

fn flag(document: &Map<String, Value>, name: &'static str) -> Result<bool, Fault> {
    match document.get(name) {
        None => Ok(false),
        Some(value) => value.as_bool().ok_or(Fault::Type(name)),
    }
}

fn may_use_jwt_bearer(document: &Map<String, Value>) -> Result<bool, Fault> {
    match document.get("grant_types") {
        None => Ok(true),
        Some(Value::Array(types)) if types.iter().all(Value::is_string) => {
            Ok(types.iter().any(|name| name == names::GRANT_JWT_BEARER))
        }
        Some(_) => Err(Fault::Type("grant_types")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const ID: &str = "https://app.example/client.json";

    /// A sound document with `changes`; a null removes its member.
    fn document(changes: Value) -> Result<Document, Fault> {
        let mut document = json!({
            "client_id": ID,
            "client_name": "App",
            "redirect_uris": [],
            "token_endpoint_auth_method": "private_key_jwt",
            "jwks": {"keys": []},
        });
        for (name, value) in changes.as_object().unwrap() {
            let members = document.as_object_mut().unwrap();
            match value {
                Value::Null => members.remove(name),
                value => members.insert(name.clone(), value.clone()),
            };
        }
        read(document.to_string().as_bytes())
    }

    fn read(body: &[u8]) -> Result<Document, Fault> {
        Document::parse(&client_url(ID, false).unwrap(), body, false)
    }

    #[test]
    fn a_client_id_that_is_a_clean_url_is_kept_as_written() {
        let longest = format!("https://app.example/{}", "a".repeat(MAX_URL - 20));

        for id in [
            ID,
            "https://app.example/a",
            "https://app.example/a/",
            "https://app.example/.well-known/client",
            "https://app.example/a..b/...",
            "https://xn--bcher-kva.example/a%20b",
            &longest,
        ] {
            let url = client_url(id, false);

            assert_eq!(url.map(|url| url.as_str().to_owned()).as_deref(), Some(id));
        }
    }

    #[test]
    fn a_client_id_that_is_no_clean_url_is_refused() {
        let too_long = format!("https://app.example/{}", "a".repeat(MAX_URL - 19));

        for id in [
            "",
            "app",
            "app.example/a",
            "ftp://app.example/a",
            "file:///a",
            "HTTPS://app.example/a",
            "https://app.example",
            "https://app.example/",
            "https://APP.example/a",
            "https://bücher.example/a",
            "https://app.example/a?",
            "https://app.example/a?b=c",
            "https://app.example?b",
            "https://app.example/a#",
            "https://app.example/a#b",
            "https://@app.example/a",
            "https://user@app.example/a",
            "https://user:password@app.example/a",
            "https://app.example/./a",
            "https://app.example/a/..",
            "https://app.example/../a",
            "https://app.example/%2e/a",
            "https://app.example/a/%2E%2e",
            "https://app.example/.%2e/a",
            "https://app.example/a/..%2fb",
            "https://app.example/a/%2e%2e%5cb",
            "https://app.example/a\\..\\b",
            "https://app.example/%",
            "https://app.example/%zz",
            "https://app.example/%00",
            "https://app.example/%ff",
            "https://app.example/a b",
            "https://app.example/a\n",
            " https://app.example/a",
            "https:app.example/a",
            "https:///app.example/a",
            &too_long,
        ] {
            assert_eq!(client_url(id, false), None, "{id}");
            assert_eq!(client_url(id, true), None, "{id}");
        }
    }

    #[test]
    fn plain_http_addresses_and_ports_are_for_tests_only() {
        for id in [
            "http://app.example/a",
            "https://app.example:22/a",
            "https://app.example:8443/a",
            "https://127.0.0.1/a",
            "https://10.0.0.1/a",
            "https://[::1]/a",
            "https://[::ffff:7f00:1]/a",
            "http://127.0.0.1:8080/a",
        ] {
            assert_eq!(client_url(id, false), None, "{id}");
            assert!(client_url(id, true).is_some(), "{id}");
        }
        for id in ["https://app.example:443/a", "https://2130706433/a", "https://0x7f.1/a"] {
            assert_eq!(client_url(id, true), None, "{id}");
        }
    }

    #[test]
    fn a_document_says_how_the_client_authenticates() {
        let jwks_uri = "https://app.example/keys?v=1";

        let by_value = document(json!({})).unwrap();
        let by_url = document(json!({"jwks": null, "jwks_uri": jwks_uri})).unwrap();
        let public = document(json!({"token_endpoint_auth_method": "none", "jwks": null})).unwrap();

        assert_eq!(by_value.credential, Credential::Jwks(br#"{"keys":[]}"#.to_vec()));
        assert_eq!(by_url.credential, Credential::JwksUri(Url::parse(jwks_uri).unwrap()));
        assert_eq!(public.credential, Credential::Public);
    }

    #[test]
    fn a_document_says_what_else_the_client_wants() {
        let exchange_only = json!({"grant_types": [names::GRANT_TOKEN_EXCHANGE]});
        let both = json!({"grant_types": [names::GRANT_TOKEN_EXCHANGE, names::GRANT_JWT_BEARER]});
        let dpop = |document: Result<Document, Fault>| document.unwrap().dpop_bound_access_tokens;
        let jwt_bearer = |document: Result<Document, Fault>| document.unwrap().may_use_jwt_bearer;

        assert!(!dpop(document(json!({}))));
        assert!(!dpop(document(json!({"dpop_bound_access_tokens": false}))));
        assert!(dpop(document(json!({"dpop_bound_access_tokens": true}))));
        assert!(jwt_bearer(document(json!({}))));
        assert!(jwt_bearer(document(both)));
        assert!(!jwt_bearer(document(exchange_only)));
        assert!(!jwt_bearer(document(json!({"grant_types": []}))));
    }

    #[test]
    fn a_document_with_an_unsound_member_is_refused() {
        let uri = |uri: &str| json!({"jwks": null, "jwks_uri": uri});
        let method = |name: &str| json!({"token_endpoint_auth_method": name});
        let own = "https://app.example/keys";

        for (changes, fault) in [
            (json!({"client_id": null}), Fault::ClientId),
            (json!({"client_id": [ID]}), Fault::ClientId),
            (json!({"client_id": "https://app.example/client.json/"}), Fault::ClientId),
            (json!({"client_id": "https://APP.example/client.json"}), Fault::ClientId),
            (json!({"client_id": "https://app.example/%63lient.json"}), Fault::ClientId),
            (json!({"client_secret": "x"}), Fault::SharedSecret),
            (json!({"client_secret": ""}), Fault::SharedSecret),
            (json!({"client_secret_expires_at": 0}), Fault::SharedSecret),
            (json!({"token_endpoint_auth_method": null}), Fault::Method),
            (method(""), Fault::Method),
            (method("None"), Fault::Method),
            (method("client_secret_basic"), Fault::Method),
            (method("client_secret_post"), Fault::Method),
            (method("client_secret_jwt"), Fault::Method),
            (method("tls_client_auth"), Fault::Method),
            (method("self_signed_tls_client_auth"), Fault::Method),
            (
                json!({"token_endpoint_auth_method": ["none"]}),
                Fault::Type("token_endpoint_auth_method"),
            ),
            (json!({"jwks": null}), Fault::Keys),
            (json!({"jwks_uri": own}), Fault::Keys),
            (json!({"jwks": "{}"}), Fault::Type("jwks")),
            (json!({"jwks": [{"keys": []}]}), Fault::Type("jwks")),
            (json!({"jwks": null, "jwks_uri": [own]}), Fault::Type("jwks_uri")),
            (uri(""), Fault::JwksUri),
            (uri("/keys"), Fault::JwksUri),
            (uri("http://app.example/keys"), Fault::JwksUri),
            (uri("https://other.example/keys"), Fault::JwksUri),
            (uri("https://keys.app.example/keys"), Fault::JwksUri),
            (uri("https://app.example.other.example/keys"), Fault::JwksUri),
            (uri("https://app.example@other.example/keys"), Fault::JwksUri),
            (uri("https://app.example:8443/keys"), Fault::JwksUri),
            (uri("https://app.example/a/../keys"), Fault::JwksUri),
            (json!({"dpop_bound_access_tokens": "true"}), Fault::Type("dpop_bound_access_tokens")),
            (json!({"dpop_bound_access_tokens": 1}), Fault::Type("dpop_bound_access_tokens")),
            (json!({"grant_types": names::GRANT_JWT_BEARER}), Fault::Type("grant_types")),
            (json!({"grant_types": [names::GRANT_JWT_BEARER, 1]}), Fault::Type("grant_types")),
            (json!({"grant_types": {}}), Fault::Type("grant_types")),
        ] {
            assert_eq!(document(changes.clone()), Err(fault), "{changes}");
        }
    }

    #[test]
    fn a_null_member_is_a_wrong_type_and_not_an_absent_one() {
        let sound = json!({"client_id": ID, "token_endpoint_auth_method": "none"});
        let private = json!({"client_id": ID, "token_endpoint_auth_method": "private_key_jwt"});

        for (document, name, fault) in [
            (&sound, "token_endpoint_auth_method", Fault::Type("token_endpoint_auth_method")),
            (&sound, "dpop_bound_access_tokens", Fault::Type("dpop_bound_access_tokens")),
            (&sound, "grant_types", Fault::Type("grant_types")),
            (&sound, "client_secret", Fault::SharedSecret),
            (&private, "jwks", Fault::Type("jwks")),
            (&private, "jwks_uri", Fault::Type("jwks_uri")),
        ] {
            let mut document = document.clone();
            document[name] = Value::Null;

            assert_eq!(read(document.to_string().as_bytes()), Err(fault), "{document}");
        }
    }

    #[test]
    fn a_body_that_is_not_one_small_strict_object_is_refused() {
        let sound = json!({"client_id": ID, "token_endpoint_auth_method": "none"}).to_string();
        let padded = |length: usize| format!("{sound}{}", " ".repeat(length - sound.len()));
        let twice = sound.replacen('{', &format!("{{\"client_id\":\"{ID}\","), 1);

        assert!(read(padded(MAX_DOCUMENT).as_bytes()).is_ok());
        assert_eq!(read(padded(MAX_DOCUMENT + 1).as_bytes()), Err(Fault::TooLarge));
        for body in
            ["", "null", "<html>", &format!("[{sound}]"), &format!("{sound}{sound}"), &twice]
        {
            assert_eq!(read(body.as_bytes()), Err(Fault::Json), "{body}");
        }
    }

    #[test]
    fn keys_may_come_over_plain_http_only_where_the_client_id_does_and_may() {
        let id = "http://127.0.0.1:8080/client";
        let body = |jwks_uri: &str| {
            let method = "private_key_jwt";
            json!({"client_id": id, "token_endpoint_auth_method": method, "jwks_uri": jwks_uri})
                .to_string()
        };
        let url = client_url(id, true).unwrap();
        let parse = |uri: &str, allow| Document::parse(&url, body(uri).as_bytes(), allow);

        assert!(parse("http://127.0.0.1:8080/keys", true).is_ok());
        assert_eq!(parse("http://127.0.0.1:8080/keys", false), Err(Fault::JwksUri));
        assert_eq!(parse("http://127.0.0.1:8081/keys", true), Err(Fault::JwksUri));
        assert_eq!(parse("https://127.0.0.1:8080/keys", true), Err(Fault::JwksUri));
    }
}
