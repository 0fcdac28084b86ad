//! What a worker makes of a request whose documents, keys and tokens it has.

use crate::support::servers::{HOST, World};
use crate::support::{
    Process, accept_config, at_token_endpoint, body, grant, id_jag, request, token_request,
};
use criterion::{BatchSize, Criterion};
use jagway_core::flow::Moment;
use jagway_core::http::Request;
use jagway_core::worker::{Todo, Verdict, Worker};
use std::hint::black_box;

pub fn measure(criterion: &mut Criterion) {
    let mut process = Process::new(&accept_config(), 1);
    let answer = body(&at_token_endpoint(&mut process, token_request(), grant(&id_jag("first"))));
    let bearer = format!("Bearer {}", answer["access_token"].as_str().unwrap());
    let accepted = request("POST", "mcp.acme.example", "/warehouse", &[("authorization", &bearer)]);
    let moment = process.moment();
    verdict(criterion, "request/accept, warm", &mut process.workers[0], &accepted, moment);
    grants(criterion, &mut process.workers[0], moment);

    let mut world = World::new(&[]);
    world.bot();
    let upgraded = request("POST", HOST, "/mcp", &[("x-api-key", "bot-key")]);
    let moment = world.process.moment();
    verdict(criterion, "request/upgrade, warm", &mut world.process.workers[0], &upgraded, moment);
}

/// A request that is let through at once.
fn verdict(
    criterion: &mut Criterion,
    name: &str,
    worker: &mut Worker,
    request: &Request,
    moment: Moment,
) {
    let todo = worker.request(1, request.clone(), false, moment);
    let is_forwarded = |todo: &Todo| matches!(todo, Todo::Conclude(_, Verdict::Forward(..)));
    assert!(todo.iter().any(is_forwarded), "{todo:?}");
    criterion.bench_function(name, |bencher| {
        let judge = |request| black_box(worker.request(1, request, false, moment));
        bencher.iter_batched(|| request.clone(), judge, BatchSize::SmallInput);
    });
}

/// Each grant is good once.
fn grants(criterion: &mut Criterion, worker: &mut Worker, moment: Moment) {
    let mut made = 0;
    criterion.bench_function("request/grant", |bencher| {
        let make = || {
            made += 1;
            (token_request(), grant(&id_jag(&made.to_string())))
        };
        let redeem = |(request, body)| {
            worker.request(1, request, true, moment);
            let todo = worker.body(1, body, moment);
            let is_issued = |todo: &Todo| match todo {
                Todo::Conclude(_, Verdict::Reply(reply)) => reply.status == 200,
                _ => false,
            };
            assert!(todo.iter().any(is_issued), "{todo:?}");
        };
        bencher.iter_batched(make, redeem, BatchSize::SmallInput);
    });
}
