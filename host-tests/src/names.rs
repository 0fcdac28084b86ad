//! The URNs and media types of the protocol, spelled once.

/// RFC 8693 §2.1
pub const GRANT_TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// RFC 7523 §2.1
pub const GRANT_JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// The token type of an ID-JAG.
pub const TOKEN_ID_JAG: &str = "urn:ietf:params:oauth:token-type:id-jag";
/// RFC 8693 §3
pub const TOKEN_ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
/// RFC 8693 §3
pub const TOKEN_REFRESH: &str = "urn:ietf:params:oauth:token-type:refresh_token";
/// The value of `authorization_grant_profiles_supported`.
pub const PROFILE_ID_JAG: &str = "urn:ietf:params:oauth:grant-profile:id-jag";
/// RFC 7523 §2.2
pub const CLIENT_ASSERTION_JWT: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// The JOSE `typ` of an ID-JAG.
pub const TYP_ID_JAG: &str = "oauth-id-jag+jwt";
/// RFC 9068 §2.1
pub const TYP_ACCESS_TOKEN: &str = "at+jwt";
/// The `typ` of a client assertion (RFC 7523bis).
pub const TYP_CLIENT_ASSERTION: &str = "client-authentication+jwt";
