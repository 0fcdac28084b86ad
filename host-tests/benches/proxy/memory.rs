//! The row k: what one more worker keeps in memory, and how long the VM takes to start.

use std::rc::Rc;
use std::time::Duration;

use crate::contenders::{before, get};
use crate::load::{Credentials, Expected, Plan, Requests, Target, measure};
use crate::report::Figure;
use crate::scene::{ANSWER, Accept, Scene};
use crate::tokens::many;
use crate::upstream::Credential;

/// How many workers are compared with one.
const MORE: u32 = 4;
/// More tokens than a worker remembers, for each worker.
const TOKENS: usize = 15_000;

/// Starts and loads each of one and five workers, with and without the filter.
pub async fn figures(scene: &Scene) -> Result<Vec<Figure>, String> {
    let make = scene.access_tokens(&scene.jagway_key);
    let mut mib = Vec::new();
    let mut starts = Vec::new();
    for filtered in [true, false] {
        let mut resident = Vec::new();
        for concurrency in [1, 1 + MORE] {
            let target = contender(scene, filtered, concurrency).await;
            starts.push(target.started.as_secs_f64() * 1e3);
            for _ in 0..concurrency {
                // Each time over new connections, which spread over the workers.
                let tokens = Rc::new(many(TOKENS, &make));
                load(&target, Credentials::Once(tokens)).await?;
            }
            resident.push(target.process.resident() as f64 / 1024.0);
        }
        mib.push((resident[1] - resident[0]) / f64::from(MORE));
    }
    Ok(vec![
        Figure::new("k_worker", "MiB", vec![mib[0] - mib[1]]),
        Figure::new("k_worker_no_filter", "MiB", vec![mib[1]]),
        Figure::new("k_start", "ms", vec![starts[0]]),
        Figure::new("k_start_no_filter", "ms", vec![starts[2]]),
    ])
}

/// Sends all of them.
async fn load(target: &Target, credentials: Credentials) -> Result<(), String> {
    let (head, tail) = get("Authorization: Bearer ");
    let requests = Requests { head, credentials, tail, first: 0 };
    let none = Duration::ZERO;
    let plan = Plan { first: none, warm_up: none, at_first: 0, window: Duration::from_secs(300) };
    let expected = Expected::Body(ANSWER.into());
    let measured = measure(target, requests, expected, plan).await;
    measured.map(|_| ()).map_err(|why| format!("{why}\n{}", target.last_words()))
}

async fn contender(scene: &Scene, filtered: bool, concurrency: u32) -> Rc<Target> {
    match filtered {
        true => scene.accept_gateway(&Accept { concurrency, ..scene.plain_accept() }).await,
        false => before(Credential::Untouched, None, concurrency).await,
    }
}
