//! Every literal of the protocols, in one place (RFC 6749, 7523, 8414, 8693, 9728; ID-JAG draft).

/// `grant_type` of a token exchange (RFC 8693 §2.1).
pub const GRANT_TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// `grant_type` of a JWT bearer grant (RFC 7523 §2.1).
pub const GRANT_JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// `grant_type` of a JWT bearer grant with a DPoP proof (draft-parecki-oauth-jwt-dpop-grant).
pub const GRANT_JWT_DPOP: &str = "urn:ietf:params:oauth:grant-type:jwt-dpop";
/// Token type of an Identity Assertion JWT Authorization Grant (ID-JAG §4.3).
pub const TOKEN_TYPE_ID_JAG: &str = "urn:ietf:params:oauth:token-type:id-jag";
/// Token type of an OpenID Connect ID Token (RFC 8693 §3).
pub const TOKEN_TYPE_ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
/// `grant_type` of a client's own access (RFC 6749 §4.4.2).
pub const GRANT_CLIENT_CREDENTIALS: &str = "client_credentials";
/// Token type of an access token (RFC 8693 §3).
pub const TOKEN_TYPE_ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// Token type of any other JWT (RFC 8693 §3).
pub const TOKEN_TYPE_JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// Token type of a refresh token (RFC 8693 §3).
pub const TOKEN_TYPE_REFRESH_TOKEN: &str = "urn:ietf:params:oauth:token-type:refresh_token";
/// `subject_token_type` of a SAML 2.0 assertion.
pub const TOKEN_TYPE_SAML2: &str = "urn:ietf:params:oauth:token-type:saml2";
/// `token_type` of an issued token that is no access token (RFC 8693 §2.2.1).
pub const TOKEN_TYPE_N_A: &str = "N_A";
/// Value of `authorization_grant_profiles_supported` (ID-JAG §7.2).
pub const GRANT_PROFILE_ID_JAG: &str = "urn:ietf:params:oauth:grant-profile:id-jag";
/// `client_assertion_type` of `private_key_jwt` (RFC 7523 §2.2).
pub const CLIENT_ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// JOSE `typ` of an ID-JAG (ID-JAG §3.1).
pub const TYP_ID_JAG: &str = "oauth-id-jag+jwt";
/// JOSE `typ` of an access token (RFC 9068 §2.1).
pub const TYP_ACCESS_TOKEN: &str = "at+jwt";
/// JOSE `typ` of a client assertion (rfc7523bis).
pub const TYP_CLIENT_ASSERTION: &str = "client-authentication+jwt";
/// JOSE `typ` of a DPoP proof (RFC 9449 §4.2).
pub const TYP_DPOP: &str = "dpop+jwt";
/// JOSE `typ` of the JWT that tells a backend who calls: no other kind of token is taken for it.
pub const TYP_IDENTITY: &str = "jagway-identity+jwt";

/// Well-known suffix of authorization server metadata (RFC 8414 §3).
pub const WELL_KNOWN_AUTHORIZATION_SERVER: &str = "/.well-known/oauth-authorization-server";
/// Well-known suffix of protected resource metadata (RFC 9728 §3).
pub const WELL_KNOWN_PROTECTED_RESOURCE: &str = "/.well-known/oauth-protected-resource";
/// Well-known suffix of OpenID Connect discovery.
pub const WELL_KNOWN_OPENID: &str = "/.well-known/openid-configuration";

/// Media type of every form this crate reads or writes.
pub const FORM: &str = "application/x-www-form-urlencoded";
/// Media type of every document this crate reads or writes.
pub const JSON: &str = "application/json";
/// Media type of a security event token (RFC 8417 §2.3).
pub const SECURITY_EVENT: &str = "application/secevent+jwt";
/// Headers with this prefix are Jagway's own: whatever a client sends under it never travels on.
pub const OWN_HEADER_PREFIX: &str = "x-jagway-";
