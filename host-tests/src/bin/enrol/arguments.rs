//! What the operator asks for. Secrets come from the environment, never from the command line, and nothing that
//! stood where a value belongs is told back: it may be one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jagway_core::config::{AssertionAudience, Client, ClientCredential};
use jagway_core::http::Url;
use jagway_core::secret::Secret;
use jagway_core::signing::SigningKey;

use crate::Result;
use crate::binding::Destination;
use crate::exchange::Wanted;
use crate::provider::{Proof, safe_url};

/// What `--help` prints.
pub const HELP: &str = include_str!("help.txt");

const VALUED: [&str; 16] = [
    "--issuer",
    "--client-id",
    "--client-secret-env",
    "--private-key-env",
    "--private-key-id",
    "--audience-of-assertion",
    "--ca-file",
    "--flow",
    "--scope",
    "--port",
    "--timeout",
    "--caller",
    "--header",
    "--refresh-token-file",
    "--audience",
    "--resource",
];
const SWITCHES: [&str; 2] = ["--yes", "--check-exchange"];
/// Longest wait for a login, in seconds.
const MAX_TIMEOUT: u64 = 3600;

/// How the user logs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// RFC 8628.
    Device,
    /// RFC 8252: a code that comes back to a loopback port.
    Browser,
}

/// The command line, read and checked.
pub struct Arguments {
    /// Issuer identifier of the identity provider: https, or http on this machine.
    pub issuer: Url,
    /// Our client there, and how it proves itself.
    pub client: Proof,
    /// Certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// How to log in, if not as the provider can.
    pub flow: Option<Flow>,
    /// `scope`, with `openid` in it.
    pub scope: String,
    /// Loopback port, 0 for any.
    pub port: u16,
    /// Longest time the login may take, in seconds.
    pub timeout: u64,
    /// Whom the key is for: letters, digits, `-` and `_`.
    pub caller: String,
    /// The header that has the key.
    pub header: String,
    /// Where the refresh token goes.
    pub destination: Destination,
    /// Whether to bind without a question.
    pub yes: bool,
    /// What to exchange for on trial.
    pub check: Option<Wanted>,
}

impl Arguments {
    /// Reads the command line; `env` gives the value of a variable.
    pub fn parse(given: &[String], env: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let given = Given::read(given)?;
        let caller = given.or("--caller", "ci-bot");
        if !is_name(caller) {
            return Err("--caller must be a letter, then letters, digits, `-` or `_`".to_owned());
        }
        let header = given.or("--header", "x-api-key").to_ascii_lowercase();
        if !is_name(&header) {
            return Err("--header must be the name of a header".to_owned());
        }
        let scope = given.or("--scope", "openid offline_access");
        if !scope.split(' ').any(|one| one == "openid") {
            let why = "without it there is no ID token to tell who logged in";
            return Err(format!("--scope must have `openid`: {why}"));
        }
        let default_file = format!("{caller}.refresh-token");
        Ok(Self {
            issuer: safe_url("--issuer", given.needed("--issuer")?)?,
            client: given.client(env)?,
            ca_file: given.get("--ca-file").map(PathBuf::from),
            flow: match given.get("--flow") {
                None => None,
                Some("device") => Some(Flow::Device),
                Some("browser") => Some(Flow::Browser),
                Some(_) => return Err("--flow is device or browser".to_owned()),
            },
            scope: scope.to_owned(),
            port: given.number("--port", 0, 0, u16::MAX.into())? as u16,
            timeout: given.number("--timeout", 600, 1, MAX_TIMEOUT)?,
            destination: Destination::named(given.or("--refresh-token-file", &default_file)),
            caller: caller.to_owned(),
            header,
            yes: given.has("--yes"),
            check: given.check()?,
        })
    }

    /// The variable of this caller that ends in `suffix`: `CI_BOT_REFRESH`.
    pub fn variable(&self, suffix: &str) -> String {
        format!("{}_{suffix}", self.caller.to_ascii_uppercase().replace('-', "_"))
    }
}

/// Options by name, still text.
struct Given<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Given<'a> {
    fn read(given: &'a [String]) -> Result<Self> {
        let mut options = BTreeMap::new();
        let mut rest = given.iter();
        while let Some(argument) = rest.next() {
            let (name, attached) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (argument.as_str(), None),
            };
            let value = if SWITCHES.contains(&name) && attached.is_none() {
                ""
            } else if VALUED.contains(&name) {
                let value = attached.or_else(|| rest.next().map(String::as_str));
                value.ok_or_else(|| format!("{name} needs a value"))?
            } else if name.starts_with("--") && is_name(name.trim_start_matches('-')) {
                return Err(format!("there is no option {name}"));
            } else {
                return Err("an argument is no option".to_owned());
            };
            if options.insert(name, value).is_some() {
                return Err(format!("{name} is there twice"));
            }
        }
        Ok(Self(options))
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).copied()
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn or<'b>(&self, name: &str, default: &'b str) -> &'b str
    where
        'a: 'b,
    {
        self.get(name).unwrap_or(default)
    }

    fn needed(&self, name: &str) -> Result<&'a str> {
        self.get(name).filter(|value| !value.is_empty()).ok_or_else(|| format!("{name} is needed"))
    }

    fn number(&self, name: &str, default: u64, least: u64, most: u64) -> Result<u64> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| format!("{name} is a number from {least} to {most}"))
    }

    fn client(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<Proof> {
        let secret = |name| -> Result<Option<Secret>> {
            let Some(variable) = self.get(name) else { return Ok(None) };
            let value = env(variable).filter(|value| !value.is_empty());
            // Not told back: somebody may have put the secret itself there.
            let value = value.ok_or_else(|| format!("{name} names no variable that is set"))?;
            Ok(Some(Secret::new(value)))
        };
        let audience = match self.or("--audience-of-assertion", "issuer") {
            "issuer" => AssertionAudience::Issuer,
            "token_endpoint" => AssertionAudience::TokenEndpoint,
            _ => return Err("--audience-of-assertion is issuer or token_endpoint".to_owned()),
        };
        let id = self.needed("--client-id")?.to_owned();
        let credential = match (secret("--client-secret-env")?, secret("--private-key-env")?) {
            (None, None) => return Ok(Proof::Public(id)),
            (Some(secret), None) => ClientCredential::Secret(secret),
            (None, Some(pem)) => {
                let key = SigningKey::from_pem(pem.expose(), self.get("--private-key-id"));
                let key =
                    key.ok_or("--private-key-env holds no P-256 or Ed25519 key as PKCS#8 PEM")?;
                ClientCredential::PrivateKey { key: Box::new(key), audience }
            }
            (Some(_), Some(_)) => {
                return Err("--client-secret-env and --private-key-env exclude each other".into());
            }
        };
        Ok(Proof::Confidential(Client { id, credential }))
    }

    fn check(&self) -> Result<Option<Wanted>> {
        if !self.has("--check-exchange") {
            let lone = ["--audience", "--resource"].into_iter().find(|name| self.has(name));
            return match lone {
                Some(name) => Err(format!("{name} is for --check-exchange")),
                None => Ok(None),
            };
        }
        let url = |name| {
            let url = Url::parse(self.needed(name)?);
            url.ok_or_else(|| format!("{name} must be an absolute URL in normal form"))
        };
        Ok(Some(Wanted { audience: url("--audience")?, resource: url("--resource")? }))
    }
}

fn is_name(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(line: &str) -> Result<Arguments> {
        let given: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Arguments::parse(&given, &|name| (name == "SET").then(|| "s3cret".to_owned()))
    }

    #[test]
    fn a_short_command_line_has_sound_defaults() {
        let arguments = parse("--issuer https://idp.example --client-id=jagway").unwrap();

        assert_eq!(arguments.caller, "ci-bot");
        assert_eq!(arguments.variable("REFRESH"), "CI_BOT_REFRESH");
        assert_eq!(arguments.header, "x-api-key");
        assert_eq!(arguments.scope, "openid offline_access");
        assert!(!arguments.yes && arguments.check.is_none());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_and_no_value_is_told_back() {
        let good = "--issuer https://idp.example --client-id jagway";
        let cases = [
            ("--client-id jagway", "--issuer is needed"),
            ("--issuer https://idp.example", "--client-id is needed"),
            ("--issuer http://s3cret.example --client-id x", "--issuer must be https"),
            ("--issuer http://127.0.0.1.s3cret.example --client-id x", "--issuer must be https"),
            ("--issuer https://s3cret.example/#x --client-id x", "--issuer must be an absolute"),
            (&format!("{good} --client-secret s3cret"), "there is no option --client-secret"),
            (&format!("{good} --client-secret=s3cret"), "there is no option --client-secret"),
            (&format!("{good} s3cret"), "an argument is no option"),
            (&format!("{good} --s3cret/+="), "an argument is no option"),
            (&format!("{good} --client-secret-env s3cret"), "names no variable that is set"),
            (&format!("{good} --client-secret-env SET --private-key-env SET"), "exclude"),
            (&format!("{good} --issuer https://idp.example"), "--issuer is there twice"),
            (&format!("{good} --port 65536"), "--port is a number from 0 to 65535"),
            (&format!("{good} --timeout 0"), "--timeout is a number from 1 to 3600"),
            (&format!("{good} --flow s3cret"), "--flow is device or browser"),
            (&format!("{good} --scope offline_access"), "--scope must have `openid`"),
            (&format!("{good} --caller s3cret:"), "--caller must be"),
            (&format!("{good} --header s3cret:"), "--header must be"),
            (&format!("{good} --audience https://as.example"), "is for --check-exchange"),
            (&format!("{good} --check-exchange"), "--audience is needed"),
            (&format!("{good} --yes=s3cret"), "there is no option --yes"),
            (&format!("{good} --port"), "--port needs a value"),
        ];

        for (line, expected) in cases {
            let why = parse(line).err().unwrap();
            assert!(why.contains(expected), "{line}: {why}");
            assert!(!why.contains("s3cret"), "{why}");
        }
    }
}
