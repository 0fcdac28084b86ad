//! The rows j: what happens to a request when there is more of everything.

use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::contenders::requests;
use crate::gateway::service;
use crate::grants;
use crate::load::{Plan, Target};
use crate::row::{Row, Supply};
use crate::scene::{Accept, IDP, ISSUER, Scene};
use crate::tokens::many;

/// All rows of growth.
pub async fn rows(scene: &Scene, plan: Plan) -> Vec<Row> {
    let mut rows = Vec::new();
    let tokens = many(100_000, &scene.access_tokens(&scene.jagway_key));
    for (name, count) in [("1", 1), ("1k", 1_000), ("10k", 10_000), ("100k", 100_000)] {
        let accept = Accept { verdict_cache: Some(10_000), ..scene.plain_accept() };
        let target = scene.accept_gateway(&accept).await;
        let supply = Supply::Same(Rc::new(tokens[..count].to_vec()));
        rows.push(requests(&format!("j_tokens_{name}"), &target, supply));
    }
    let id_jags = scene.id_jags(1, Row::first_slice(5_000, plan));
    for (name, count) in [("1k", 1_000), ("1m", 1_000_000)] {
        let target = with_live_jtis(scene, count).await;
        let around = Box::new(scene.basic_grant());
        rows.push(grants::row(&format!("j_jti_{name}"), &target, id_jags.clone(), around));
    }
    for count in [1, 100, 1000] {
        let target = with_counts(scene, [1, 1, count]).await;
        let supply = Supply::Same(Rc::new(tokens[..1].to_vec()));
        rows.push(requests(&format!("j_resources_{count}"), &target, supply));
    }
    for (name, counts) in [
        ("clients", [[1, 1, 1], [1, 100, 1], [1, 1000, 1]]),
        ("providers", [[1, 1, 1], [100, 1, 1], [1000, 1, 1]]),
    ] {
        for counts in counts {
            let target = with_counts(scene, counts).await;
            let name = format!("j_{name}_{}", counts.iter().max().unwrap());
            let around = Box::new(scene.basic_grant());
            rows.push(grants::row(&name, &target, id_jags.clone(), around));
        }
    }
    rows
}

async fn with_counts(scene: &Scene, counts: [usize; 3]) -> Rc<Target> {
    scene.accept_gateway(&Accept { counts, ..scene.plain_accept() }).await
}

/// A gateway whose process remembers so many ID-JAGs from before.
async fn with_live_jtis(scene: &Scene, count: usize) -> Rc<Target> {
    let file =
        tokio::task::spawn_blocking(|| host_tests::wasm::example("live_jtis")).await.unwrap();
    let config = json!({"count": count.to_string(), "issuer": IDP, "audience": ISSUER});
    let accept = Accept { service: Some(service(&file, &config)), ..scene.plain_accept() };
    let target = scene.accept_gateway(&accept).await;
    let began = Instant::now();
    loop {
        let log = target.program.log();
        if let Some(line) = log.lines().find(|line| line.contains("live_jtis: ")) {
            eprintln!("{}", line.rsplit("live_jtis: ").next().unwrap_or_default());
            return target;
        }
        assert!(began.elapsed() < Duration::from_secs(120), "{}", target.last_words());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
