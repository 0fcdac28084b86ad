//! How the demo looks: hops as lines, decoded claims beneath, colour on a terminal only.

use std::io::IsTerminal;
use std::time::Duration;

use host_tests::World;
use host_tests::journal::{Hop, Journal, Kind};

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";

/// The title of a step.
pub fn title(text: &str) {
    println!("\n{}", painted(BOLD, text));
}

/// A claim that was checked.
pub fn checked(held: bool, claim: &str) {
    if held {
        println!("   {} {claim}", painted(GREEN, "ok"));
    } else {
        println!("   {} {claim}", painted(RED, "FAILED"));
    }
}

/// A remark between the hops.
pub fn note(journal: &Journal, text: &str) {
    journal.record("", "", text, None);
}

/// Prints what has happened after the first `told` hops; gives the new count.
pub fn hops(journal: &Journal, told: usize) -> usize {
    println!();
    let new = journal.since(told);
    for hop in &new {
        println!("   {}", line(hop));
        if let Some(claims) = decoded(hop) {
            println!("   {}", painted(DIM, &claims));
        }
    }
    told + new.len()
}

/// The last word when all went well.
pub fn success(taken: Duration) {
    println!("\n{} in {:.1} s: every check held.", painted(GREEN, "Done"), taken.as_secs_f32());
}

/// The last word when something failed, with what may explain it.
pub fn failure(why: &str, world: &World) {
    println!("\n{}: {why}\n\nThe last hops:", painted(RED, "Failed"));
    hops(&world.journal, world.journal.len().saturating_sub(12));
    if let Some(envoy) = &world.envoy {
        println!("\nThe end of Envoy's log:\n{}", envoy.log_tail(20));
    }
}

fn line(hop: &Hop) -> String {
    if hop.from.is_empty() {
        return format!("-- {}", hop.what);
    }
    let token = hop.token.as_ref().map(|token| match token.kind {
        // A JWT is told by its claims; of an opaque secret only its first characters are known here.
        Kind::ApiKey | Kind::RefreshToken | Kind::ClientSecret => {
            format!(" [{} {}...]", token.kind, token.start)
        }
        kind => format!(" [{kind}]"),
    });
    format!(
        "{:>13} -> {:<13}  {}{}",
        hop.from,
        hop.to,
        hop.what,
        painted(BOLD, &token.unwrap_or_default())
    )
}

/// The claims of a token where it is issued; repeating them at each use would not help.
fn decoded(hop: &Hop) -> Option<String> {
    if !hop.what.contains("issues") {
        return None;
    }
    let claims = hop.token.as_ref()?.key_claims();
    let text =
        |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), Into::into);
    let told: Vec<_> =
        claims.iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
    Some(format!("{:>32}{}", "", told.join("  ")))
}

fn painted(colour: &str, text: &str) -> String {
    if text.is_empty() || !std::io::stdout().is_terminal() {
        return text.into();
    }
    format!("\x1b[{colour}m{text}\x1b[0m")
}
