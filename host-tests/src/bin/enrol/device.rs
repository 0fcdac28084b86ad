//! A login on any device: the user types a code there, and we ask until it is done (RFC 8628).

use std::time::{Duration, Instant};

use jagway_core::json;
use jagway_core::secret::Secret;
use serde_json::{Map, Value};

use crate::Result;
use crate::arguments::Arguments;
use crate::login::Tokens;
use crate::provider::{Provider, Refusal, safe_url};

const GRANT_DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// Seconds between two questions unless the provider says otherwise (RFC 8628 §3.2).
const USUAL_INTERVAL: u64 = 5;
/// Longest interval taken, in seconds.
const MAX_INTERVAL: u64 = 60;

/// What the provider has begun (RFC 8628 §3.2).
struct Device {
    device_code: Secret,
    user_code: String,
    verification_uri: String,
    complete: Option<String>,
    interval: u64,
    /// Seconds from now.
    expires_in: u64,
}

/// Time, for [`poll`].
pub trait Clock {
    /// Seconds since some moment.
    fn now(&self) -> u64;
    /// Waits.
    async fn wait(&mut self, seconds: u64);
}

struct RealClock(Instant);

/// Begins a device login, shows the code, and waits for its end, at most `most`.
pub async fn log_in(
    provider: &Provider<'_>,
    arguments: &Arguments,
    most: Duration,
) -> Result<Tokens> {
    let endpoint = provider.metadata.device_authorization_endpoint.as_ref();
    let endpoint = endpoint.ok_or("the provider has no device flow: see --flow browser")?;
    let begun = provider.post(endpoint, &[("scope", &arguments.scope)]).await;
    let device = Device::read(&begun.map_err(|refusal| refusal.told("the device login"))?)?;
    show(&device, &arguments.caller);

    let fields = [("grant_type", GRANT_DEVICE_CODE), ("device_code", device.device_code.expose())];
    let ask = async || provider.post(&provider.metadata.token_endpoint, &fields).await;
    let left = device.expires_in.min(most.as_secs());
    let body = poll(&mut RealClock(Instant::now()), device.interval, left, ask).await?;
    Ok(Tokens::read(&body))
}

fn show(device: &Device, caller: &str) {
    let Device { user_code, verification_uri, complete, .. } = device;
    eprintln!("As the user whom {caller} shall act for, open");
    eprintln!("  {}", complete.as_ref().unwrap_or(verification_uri));
    // RFC 8628 §3.3.1: shown also when the URL has it, so that the two can be compared.
    eprintln!("Code: {}", user_code.escape_debug());
}

impl Device {
    fn read(body: &Map<String, Value>) -> Result<Self> {
        let text = |name: &'static str| {
            let text = json::string(body, name).ok().flatten().filter(|text| !text.is_empty());
            text.ok_or_else(|| format!("the device login has no {name}"))
        };
        let link = |name| {
            let url = safe_url(&format!("the provider's {name}"), text(name)?)?;
            Ok::<_, String>(url.as_str().to_owned())
        };
        let seconds = |name| json::seconds(body, name).ok().flatten();
        Ok(Self {
            device_code: Secret::new(text("device_code")?),
            user_code: text("user_code")?.to_owned(),
            verification_uri: link("verification_uri")?,
            complete: link("verification_uri_complete").ok(),
            interval: seconds("interval").unwrap_or(USUAL_INTERVAL).clamp(1, MAX_INTERVAL),
            expires_in: seconds("expires_in").ok_or("the device login has no expires_in")?,
        })
    }
}

/// Asks every `interval` seconds until there is an end or `left` seconds are over (RFC 8628 §3.5).
pub async fn poll<T>(
    clock: &mut impl Clock,
    interval: u64,
    left: u64,
    ask: impl AsyncFn() -> std::result::Result<T, Refusal>,
) -> Result<T> {
    let mut interval = interval;
    let end = clock.now().saturating_add(left);
    loop {
        if clock.now().saturating_add(interval) > end {
            clock.wait(end.saturating_sub(clock.now())).await;
            return Err("nobody logged in in time".to_owned());
        }
        clock.wait(interval).await;
        match ask().await {
            Ok(done) => return Ok(done),
            Err(Refusal::Code(code, _)) if code == "authorization_pending" => {}
            // "the interval MUST be increased by 5 seconds for this and all subsequent requests"
            Err(Refusal::Code(code, _)) if code == "slow_down" => interval += 5,
            // "clients MUST unilaterally reduce their polling frequency"
            Err(Refusal::NoAnswer(_)) => interval = (interval * 2).min(MAX_INTERVAL),
            Err(refusal) => return Err(refusal.told("the login")),
        }
    }
}

impl Clock for RealClock {
    fn now(&self) -> u64 {
        self.0.elapsed().as_secs()
    }

    async fn wait(&mut self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;
    use std::cell::RefCell;

    /// A clock that is moved by waiting, and nothing else.
    #[derive(Default)]
    struct Waited {
        now: u64,
        waits: Vec<u64>,
    }

    impl Clock for Waited {
        fn now(&self) -> u64 {
            self.now
        }

        async fn wait(&mut self, seconds: u64) {
            self.now += seconds;
            self.waits.push(seconds);
        }
    }

    async fn polled(
        left: u64,
        answers: &[std::result::Result<u8, &str>],
    ) -> (Result<u8>, Vec<u64>) {
        let answers = RefCell::new(answers.iter());
        let mut clock = Waited::default();
        let end = poll(&mut clock, 5, left, async || match answers.borrow_mut().next() {
            Some(Ok(done)) => Ok(*done),
            Some(Err("")) => Err(Refusal::NoAnswer("reset".to_owned())),
            Some(Err(code)) => Err(Refusal::Code((*code).to_owned(), 400)),
            None => Err(Refusal::Code("authorization_pending".to_owned(), 400)),
        });
        (end.await, clock.waits)
    }

    #[tokio::test]
    async fn it_asks_at_the_interval_and_slower_when_told_to_or_unheard() {
        let pending = Err("authorization_pending");
        let answers = [pending, Err("slow_down"), pending, Err(""), pending, Ok(1)];

        let (end, waits) = polled(600, &answers).await;

        assert_eq!(end, Ok(1));
        assert_eq!(waits, [5, 5, 10, 10, 20, 20]);
    }

    #[tokio::test]
    async fn every_end_but_a_login_is_told() {
        let cases = [
            ("access_denied", "the login: the login was denied (400 access_denied)"),
            ("expired_token", "the login: nobody logged in in time (400 expired_token)"),
            ("invalid_grant", "the login: the provider refused (400 invalid_grant)"),
        ];

        for (code, told) in cases {
            let (end, waits) = polled(600, &[Err("authorization_pending"), Err(code)]).await;
            assert_eq!(end, Err(told.to_owned()));
            assert_eq!(waits.len(), 2);
        }
    }

    #[tokio::test]
    async fn it_never_asks_after_the_time_is_over() {
        let (end, waits) = polled(12, &[]).await;

        assert_eq!(end, Err("nobody logged in in time".to_owned()));
        assert_eq!(waits, [5, 5, 2]);
    }

    #[test]
    fn a_page_that_is_not_safe_to_open_is_not_shown() {
        let good = json!({
            "device_code": "d", "user_code": "U", "verification_uri": "https://idp.example/device",
            "verification_uri_complete": "javascript:alert(1)", "expires_in": 600, "interval": 0,
        });

        let device = Device::read(good.as_object().unwrap()).unwrap();

        assert_eq!((device.complete, device.interval), (None, 1));
        let mut bad = good.clone();
        bad["verification_uri"] = json!("http://idp.example/device");
        assert!(Device::read(bad.as_object().unwrap()).is_err());
    }
}
