//! Binds an API key to a user of the identity provider: `cargo enrol -- --help`.
//!
//! What is asked and told goes to stderr; stdout gets the binding and nothing else.

mod arguments;
mod binding;
mod browser;
mod device;
mod exchange;
mod http;
mod login;
mod provider;

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::time::Duration;

use arguments::{Arguments, Flow, HELP};
use http::Http;
use login::{Login, Tokens};
use provider::{Proof, Provider};

/// What the filter's configuration will say to a client without either.
const NEEDS_SECRET: &str = "Jagway's own configuration takes only clients with a secret or a key.";

/// Why it cannot go on: one sentence for the operator, without any secret.
type Result<T> = std::result::Result<T, String>;

#[tokio::main]
async fn main() -> ExitCode {
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--").collect();
    if given.iter().any(|argument| argument == "--help" || argument == "-h") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let arguments = match Arguments::parse(&given, &|name| std::env::var(name).ok()) {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("enrol: {why}\n`cargo enrol -- --help` tells what there is.");
            return ExitCode::from(2);
        }
    };
    match enrol(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("enrol: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn enrol(arguments: Arguments) -> Result<()> {
    arguments.destination.check()?;
    let http = Http::new(arguments.ca_file.as_deref())?;
    let provider = Provider::discover(http, &arguments).await?;
    if matches!(arguments.client, Proof::Public(_)) {
        eprintln!("A public client: whoever gets the refresh token can use it. {NEEDS_SECRET}");
    }

    let (tokens, nonce) = log_in(&provider, &arguments).await?;
    let login = Login::verify(&provider, tokens, nonce.as_deref(), &arguments.scope).await?;
    eprintln!("Logged in at {}: {}", arguments.issuer.as_str(), login.user);
    if !arguments.yes && !confirmed(&arguments)? {
        provider.revoke(&login.refresh_token).await;
        return Err("not bound: nothing was written".to_owned());
    }

    arguments.destination.write(&login.refresh_token)?;
    let mut refresh_token = login.refresh_token;
    let mut checked = Ok(());
    if let Some(wanted) = &arguments.check {
        let tried = exchange::try_one(&provider, &refresh_token, wanted).await;
        if let Some(rotated) = tried.rotated {
            arguments.destination.write(&rotated)?;
            eprintln!("The provider rotated the refresh token; the new one is kept.");
            refresh_token = rotated;
        }
        match &tried.outcome {
            Ok(what) => eprintln!("Exchange: {what}"),
            Err(why) => eprintln!("Exchange: {why}"),
        }
        checked = tried.outcome.map(|_| ());
    }
    print(&binding::text(&arguments, &login.user.subject, &refresh_token))?;
    checked.map_err(|_| "the key is bound, but its user got no ID-JAG (see above)".to_owned())
}

/// The tokens, and the nonce that the ID token must have.
async fn log_in(
    provider: &Provider<'_>,
    arguments: &Arguments,
) -> Result<(Tokens, Option<String>)> {
    let flow = arguments.flow.unwrap_or(match provider.metadata.device_authorization_endpoint {
        Some(_) => Flow::Device,
        None => Flow::Browser,
    });
    let most = Duration::from_secs(arguments.timeout);
    match flow {
        // No nonce: RFC 8628 has no place for one, and the code never leaves this process.
        Flow::Device => {
            device::log_in(provider, arguments, most).await.map(|tokens| (tokens, None))
        }
        Flow::Browser => browser::log_in(provider, arguments, most).await,
    }
}

fn confirmed(arguments: &Arguments) -> Result<bool> {
    let replaced = if arguments.destination.exists() { ", in the place of who was" } else { "" };
    eprint!("Bind {} to this user{replaced}? [y/N] ", arguments.caller);
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| format!("no answer can be read: {error}"))?;
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}

fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| format!("the binding cannot be printed: {error}"))
}

/// 256 random bits, as base64url.
fn random() -> String {
    host_tests::keys::base64url(&random_bytes())
}

fn random_bytes() -> [u8; 32] {
    let mut bytes = [0; 32];
    rand_core::RngCore::fill_bytes(&mut rand_core::OsRng, &mut bytes);
    bytes
}
