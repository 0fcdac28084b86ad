//! A Redis that every proxy of a fleet reaches over HTTP, through webdis or through a REST front of
//! Upstash's kind: one command a request.

use crate::http::{Answer, Callout, MAX_ANSWER, Url};
use crate::json;
use crate::names;
use crate::secret::Secret;
use serde_json::{Value, json};

/// How the Redis is reached.
#[derive(Debug)]
pub struct Redis {
    /// Where the cluster stands in the configuration, for the log.
    pub path: String,
    /// The Envoy cluster.
    pub cluster: String,
    /// Longest time an answer may take, in milliseconds.
    pub timeout: u32,
    /// What speaks HTTP there.
    pub front: Front,
}

/// What speaks HTTP in front of the Redis.
#[derive(Debug)]
pub enum Front {
    /// webdis, with this `Authorization` if it asks for one.
    Webdis(Option<Secret>),
    /// A REST front of Upstash's kind, at this URL, with this bearer token.
    Rest(Url, Secret),
}

impl Redis {
    /// The command made of `words`, its name in upper case first.
    ///
    /// Does *not* escape: webdis splits at `/`, decodes `%` and `+`, and cuts an ending like `.raw`. So
    /// words are letters, digits, `-`, `_` and `:` only; what is not goes as base64url.
    pub fn command(&self, words: &[&str]) -> Callout {
        let (authority, path, body, authorization) = match &self.front {
            Front::Webdis(authorization) => ("webdis", "/", words.join("/"), authorization.clone()),
            Front::Rest(url, token) => {
                let bearer = Secret::new(format!("Bearer {}", token.expose()));
                let body = json!(words).to_string();
                (url.authority(), url.path_and_query(), body, Some(bearer))
            }
        };
        let mut headers = vec![("content-type".into(), Secret::new(names::JSON))];
        headers.extend(authorization.map(|value| ("authorization".into(), value)));
        Callout {
            cluster: self.cluster.clone(),
            method: "POST",
            authority: authority.to_owned(),
            path: path.to_owned(),
            headers,
            body: Secret::new(body),
            timeout: self.timeout,
        }
    }

    /// The reply to the command of this name, as the front words it: webdis' `{"GET":..}`, the REST
    /// front's `{"result":..}`. `None` for any other answer: nobody knows whether it was carried out.
    ///
    /// Does *not* tell an error of Redis from a list: webdis says `[false,"ERR .."]`.
    pub fn reply(&self, command: &str, answer: &Answer) -> Option<Value> {
        if answer.status != 200 || answer.body.len() > MAX_ANSWER {
            return None;
        }
        let member = match &self.front {
            Front::Webdis(_) => command,
            Front::Rest(..) => "result",
        };
        json::object(&answer.body)?.remove(member)
    }

    /// The reply to a `SET`: whether it was set. `Some(false)` is for one with `NX` that came second,
    /// `None` for all that is not plainly one of the two.
    pub fn was_set(&self, answer: &Answer) -> Option<bool> {
        let set = match &self.front {
            Front::Webdis(_) => json!([true, "OK"]),
            Front::Rest(..) => json!("OK"),
        };
        match self.reply("SET", answer)? {
            Value::Null => Some(false),
            value if value == set => Some(true),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Headers;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn webdis() -> Redis {
        let front = Front::Webdis(Some(Secret::new("Basic dTpw")));
        Redis { path: String::new(), cluster: "redis".into(), timeout: 200, front }
    }

    fn rest() -> Redis {
        let url = Url::parse("https://redis.example/db?x=1").unwrap();
        Redis { front: Front::Rest(url, Secret::new("token")), ..webdis() }
    }

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, headers: Headers::default(), body: body.as_bytes().to_vec() }
    }

    #[test]
    fn a_command_is_worded_as_each_front_takes_it() {
        let words = ["GET", "jagway:a-b_c"];

        let (webdis, rest) = (webdis().command(&words), rest().command(&words));

        let authorization = |callout: &Callout| {
            let found = callout.headers.iter().find(|(name, _)| *name == "authorization");
            found.map(|(_, value)| value.expose().to_owned())
        };
        assert_eq!((webdis.method, webdis.path.as_str()), ("POST", "/"));
        assert_eq!((webdis.cluster.as_str(), webdis.timeout), ("redis", 200));
        assert_eq!(webdis.body.expose(), "GET/jagway:a-b_c");
        assert_eq!(authorization(&webdis).unwrap(), "Basic dTpw");
        assert_eq!((rest.method, rest.path.as_str()), ("POST", "/db?x=1"));
        assert_eq!(rest.authority, "redis.example");
        assert_eq!(rest.body.expose(), r#"["GET","jagway:a-b_c"]"#);
        assert_eq!(authorization(&rest).unwrap(), "Bearer token");
    }

    #[test]
    fn a_reply_is_what_was_asked_for_and_a_missing_value_is_not_a_missing_reply() {
        let (webdis, rest) = (webdis(), rest());

        assert_eq!(webdis.reply("GET", &answer(200, r#"{"GET":"x"}"#)), Some(json!("x")));
        assert_eq!(webdis.reply("GET", &answer(200, r#"{"GET":null}"#)), Some(Value::Null));
        assert_eq!(webdis.reply("DEL", &answer(200, r#"{"DEL":1}"#)), Some(json!(1)));
        assert_eq!(rest.reply("GET", &answer(200, r#"{"result":"x"}"#)), Some(json!("x")));
        assert_eq!(rest.reply("GET", &answer(200, r#"{"result":null}"#)), Some(Value::Null));
        let long = format!(r#"{{"GET":"{0}","result":"{0}"}}"#, "x".repeat(MAX_ANSWER / 2));
        for (status, body) in [
            (200, ""),
            (200, "{}"),
            (200, "null"),
            (200, "[]"),
            (200, r#"{"SET":"x"}"#),
            (200, r#"{"error":"x"}"#),
            (200, r#"{"GET":"x","GET":"y","result":"x","result":"y"}"#),
            (200, &long),
            (401, r#"{"GET":"x","result":"x"}"#),
            (403, r#"{"GET":"x","result":"x"}"#),
            (500, r#"{"GET":"x","result":"x"}"#),
        ] {
            assert_eq!(webdis.reply("GET", &answer(status, body)), None, "{status} {body:.40}");
            assert_eq!(rest.reply("GET", &answer(status, body)), None, "{status} {body:.40}");
        }
    }
}
