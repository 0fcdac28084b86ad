//! Ways to a listener other than its own address: the URL says who is meant, the connection goes elsewhere.

/// A plain HTTP client, as [`http_client`](crate::jwks::http_client) gives it, whose requests all go to `origin`,
/// whatever their URL. Their `Host` is the URL's: it asks `origin` as a proxy (RFC 9112 §3.2.2).
pub fn http_client_through(origin: &str, who: &str) -> reqwest::Client {
    let builder = reqwest::Client::builder().user_agent(who);
    let builder = builder.proxy(reqwest::Proxy::http(origin).unwrap());
    builder.redirect(reqwest::redirect::Policy::none()).build().unwrap()
}
