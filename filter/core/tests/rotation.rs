//! Turns at a refresh token that its provider renews: processes that share nothing but a Redis.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::digest::{of_fields, sha256};
use jagway_core::flow::{self, Ask, Ctx, Flow, Moment, Step, Told};
use jagway_core::http::{CallFailed, Callout, Url};
use jagway_core::redis::{Front, Redis};
use jagway_core::refresh_record::{Place, Record};
use jagway_core::rotation::{Fault, Rotation};
use jagway_core::secret::Secret;
use jagway_core::store::{Memory, Store};
use std::collections::BTreeMap;
use std::rc::Rc;
use support::{NOW, answer};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const ORIGINAL: &str = "token-0";

/// One process, or one worker of it: they share the store.
#[derive(Clone)]
struct Peer {
    store: Rc<Memory>,
    redis: Option<Rc<Redis>>,
    record: Rc<Record>,
}

/// The token that was used, and whether the new one is where it should be.
type Outcome = Result<(String, bool), Fault>;

fn peer(with_redis: bool, place: Place) -> Peer {
    let redis = Redis {
        path: String::new(),
        cluster: "redis".into(),
        timeout: 500,
        front: Front::Webdis(None),
    };
    let record = Record::new("https://idp", "client", &Secret::new(ORIGINAL), place);
    let redis = with_redis.then(|| Rc::new(redis));
    Peer { store: Rc::default(), redis, record: Rc::new(record) }
}

/// An exchange: the provider takes the token as the body, and gives the new one as the body.
async fn exchange(ctx: Ctx, peer: Peer) -> Outcome {
    let Peer { store, redis, record } = peer;
    let rotation = Rotation { store: &*store, redis: redis.as_deref(), record: &record };
    let mut turn = rotation.begin(&ctx).await?;
    loop {
        let used = turn.token().expose().to_owned();
        let mut callout = Callout::get_json("idp", &Url::parse("https://idp/token").unwrap());
        callout.body = Secret::new(used.as_str());
        let rotated = match ctx.call(callout).await {
            Ok(answer) if answer.status == 200 => {
                let text = String::from_utf8(answer.body).unwrap();
                (!text.is_empty()).then(|| Secret::new(text))
            }
            Ok(_) if turn.reload(&ctx).await => continue,
            _ => None,
        };
        return Ok((used, turn.end(&ctx, rotated).await.is_ok()));
    }
}

/// What a flow did: commands to the Redis as webdis takes them, `idp TOKEN`, `pause`.
struct Run {
    asked: Vec<String>,
    outcome: Outcome,
}

fn moment(now: u64, seed: u64) -> Moment {
    Moment { now, entropy: of_fields(&[&now.to_be_bytes(), &seed.to_be_bytes()]) }
}

/// Runs an exchange to its end; `host` answers. A pause takes a second.
fn run(peer: &Peer, start: u64, host: &mut dyn FnMut(&str, u64) -> (u16, String)) -> Run {
    let (mut now, mut asked) = (start, Vec::new());
    let mut step = flow::start(|ctx| exchange(ctx, peer.clone()), moment(now, 1));
    loop {
        let (told, flow) = match step {
            Step::Done(outcome) => return Run { asked, outcome },
            Step::Ask(Ask::Pause, flow) => {
                now += 1;
                asked.push("pause".to_owned());
                (Told::Paused, flow)
            }
            Step::Ask(Ask::Call(callout), flow) => {
                let idp = if callout.cluster == "idp" { "idp " } else { "" };
                asked.push(format!("{idp}{}", callout.body.expose()));
                let (status, body) = host(asked.last().unwrap(), now);
                let told = match status {
                    0 => Err(CallFailed::NoAnswer),
                    status => answer(status, body.as_bytes()),
                };
                (Told::Call(told), flow)
            }
            _ => panic!("it waits for nothing else"),
        };
        step = flow.resume(told, moment(now, asked.len() as u64));
    }
}

/// Only the names of commands, and which key they are about.
fn kinds(asked: &[String]) -> Vec<String> {
    let short = |line: &String| {
        let words: Vec<&str> = line.split('/').collect();
        let kind = words.get(1).map_or("", |key| if key.contains("lock") { " lock" } else { "" });
        format!("{}{kind}", words[0])
    };
    asked.iter().map(short).collect()
}

/// A Redis behind webdis.
#[derive(Default)]
struct Model {
    values: BTreeMap<String, (String, u64)>,
}

impl Model {
    fn ask(&mut self, command: &str, now: u64) -> (u16, String) {
        self.values.retain(|_, (_, until)| *until > now);
        let words: Vec<&str> = command.split('/').collect();
        let reply = match words.as_slice() {
            ["SET", key, value, rest @ ..] => {
                let only_new = rest.contains(&"NX");
                let life = rest.iter().position(|word| *word == "PX").map(|at| rest[at + 1]);
                let until = life.map_or(u64::MAX, |life| now + life.parse::<u64>().unwrap() / 1000);
                if only_new && self.values.contains_key(*key) {
                    "null".to_owned()
                } else {
                    self.values.insert((*key).to_owned(), ((*value).to_owned(), until));
                    r#"[true,"OK"]"#.to_owned()
                }
            }
            ["GET", key] => {
                self.values.get(*key).map_or("null".to_owned(), |(value, _)| format!("\"{value}\""))
            }
            ["DEL", key] => u8::from(self.values.remove(*key).is_some()).to_string(),
            _ => panic!("{command}"),
        };
        (200, format!(r#"{{"{}":{reply}}}"#, words[0]))
    }
}

/// A provider that renews with every use.
#[derive(Default)]
struct Provider {
    current: u64,
    reused: usize,
}

impl Provider {
    fn ask(&mut self, token: &str) -> (u16, String) {
        if token != format!("token-{}", self.current) {
            self.reused += 1;
            return (400, String::new());
        }
        self.current += 1;
        (200, format!("token-{}", self.current))
    }
}

#[test]
fn in_one_process_each_exchange_has_the_token_of_the_one_before() {
    let (peer, mut provider) = (peer(false, Place::Bound), Provider::default());
    let mut host = |line: &str, _| provider.ask(line.strip_prefix("idp ").unwrap());

    let used: Vec<Outcome> = (0..3).map(|_| run(&peer, NOW, &mut host).outcome).collect();

    let expected = ["token-0", "token-1", "token-2"].map(|token| Ok((token.to_owned(), true)));
    assert_eq!(used, expected);
}

#[test]
fn a_token_that_is_given_again_or_not_at_all_stays() {
    for given in ["", ORIGINAL] {
        let peer = peer(true, Place::Bound);
        let mut redis = Model::default();
        let mut host = |line: &str, now| match line.strip_prefix("idp ") {
            Some(_) => (200, given.to_owned()),
            None => redis.ask(line, now),
        };

        let runs = [run(&peer, NOW, &mut host), run(&peer, NOW, &mut host)];

        for run in runs {
            assert_eq!(kinds(&run.asked), ["SET lock", "GET", "idp token-0", "DEL lock"]);
            assert_eq!(run.outcome, Ok((ORIGINAL.to_owned(), true)));
        }
        assert!(redis.values.is_empty());
    }
}

#[test]
fn another_process_goes_on_with_what_one_has_written_and_nobody_reads_it_in_between() {
    for (place, end) in [(Place::Bound, ""), (Place::Presented, "/PX/7776000000")] {
        let (one, other) = (peer(true, place), peer(true, place));
        let (mut redis, mut provider) = (Model::default(), Provider::default());
        let mut host = |line: &str, now| match line.strip_prefix("idp ") {
            Some(token) => provider.ask(token),
            None => redis.ask(line, now),
        };

        let runs = [run(&one, NOW, &mut host), run(&other, NOW, &mut host)];

        let tail = |used: &str| ["SET lock", "GET", used, "SET", "DEL lock"].map(str::to_owned);
        assert_eq!(kinds(&runs[0].asked), tail("idp token-0"));
        assert_eq!(kinds(&runs[1].asked), tail("idp token-1"));
        let write = &runs[0].asked[3];
        assert!(write.starts_with("SET/jagway:refresh:") && !write.contains("token"), "{write}");
        assert!(write.ends_with(end) && write.contains("/PX/") != end.is_empty(), "{write}");
        assert!(runs[0].asked[0].ends_with("/NX/PX/25000"));
    }
}

#[test]
fn while_it_is_somebody_elses_turn_one_waits_and_not_for_ever() {
    let peer = peer(true, Place::Bound);
    let mut redis = Model::default();
    let waits = |free_at: u64, redis: &mut Model| {
        let mut host = |line: &str, now: u64| match line.strip_prefix("idp ") {
            Some(_) => (200, String::new()),
            None if now < free_at && line.contains("/NX/") => (200, r#"{"SET":null}"#.to_owned()),
            None => redis.ask(line, now),
        };
        run(&peer, NOW, &mut host)
    };

    let soon = waits(NOW + 3, &mut redis);
    let never = waits(u64::MAX, &mut redis);
    let after = waits(0, &mut redis);

    assert_eq!(soon.asked.iter().filter(|line| *line == "pause").count(), 3);
    assert!(soon.outcome.is_ok());
    assert_eq!(never.asked.iter().filter(|line| *line == "pause").count(), 8);
    assert_eq!(never.outcome, Err(Fault::Busy));
    assert_eq!(never.outcome.unwrap_err().code(), "refresh_token_busy");
    assert_eq!(kinds(&after.asked)[..2], ["SET lock", "GET"], "this process' own lease was free");
}

#[test]
fn a_redis_that_does_not_say_whose_turn_it_is_gives_none() {
    let junk = [
        (0, ""),
        (403, ""),
        (500, r#"{"SET":[true,"OK"],"GET":null}"#),
        (200, "{}"),
        (200, "<html>"),
        (200, r#"{"SET":[false,"ERR"],"GET":[false,"ERR"]}"#),
        (200, r#"{"SET":"OK","GET":7}"#),
    ];

    for (status, body) in junk {
        for at in ["SET/", "GET/"] {
            let peer = peer(true, Place::Bound);
            let mut redis = Model::default();
            let run = run(&peer, NOW, &mut |line, now| match line.starts_with(at) {
                true => (status, body.to_owned()),
                false => redis.ask(line, now),
            });

            assert_eq!(run.outcome, Err(Fault::Unavailable), "{at} {status} {body}");
            let expected: &[&str] =
                if at == "SET/" { &["SET lock"] } else { &["SET lock", "GET", "DEL lock"] };
            assert_eq!(kinds(&run.asked), expected);
            assert!(redis.values.is_empty());
        }
    }
}

#[test]
fn a_value_that_is_not_ours_counts_as_none() {
    for value in ["", "x", "AAAA", "a+b", &"A".repeat(200)] {
        let peer = peer(true, Place::Bound);
        let mut redis = Model::default();
        let run = run(&peer, NOW, &mut |line, now| match line {
            _ if line.starts_with("GET/") => (200, format!(r#"{{"GET":"{value}"}}"#)),
            "idp token-0" => (200, "token-1".to_owned()),
            _ => redis.ask(line, now),
        });

        assert_eq!(run.outcome, Ok((ORIGINAL.to_owned(), true)), "{value}");
    }
}

#[test]
fn a_write_that_fails_is_tried_again_and_made_up_for_before_the_next_exchange() {
    for before in [0, 1] {
        let peer = peer(true, Place::Bound);
        let (mut redis, mut provider, mut writes) = (Model::default(), Provider::default(), 0);
        let mut host = |line: &str, now| match line.strip_prefix("idp ") {
            Some(token) => provider.ask(token),
            None if line.starts_with("SET/jagway:refresh:") => {
                writes += 1;
                let fails = writes > before && writes <= before + 2;
                if fails { (0, String::new()) } else { redis.ask(line, now) }
            }
            None => redis.ask(line, now),
        };
        for _ in 0..before {
            run(&peer, NOW, &mut host);
        }

        let first = run(&peer, NOW, &mut host);
        let meanwhile = run(&peer, NOW + 5, &mut host);
        let then = run(&peer, NOW + 30, &mut host);

        let (old, new) = (format!("idp token-{before}"), format!("idp token-{}", before + 1));
        assert_eq!(kinds(&first.asked), ["SET lock", "GET", &old, "SET", "pause", "SET"]);
        assert!(matches!(first.outcome, Ok((_, false))), "the operator is told");
        assert_eq!(meanwhile.outcome, Err(Fault::Busy), "the lock keeps all from the old token");
        assert_eq!(kinds(&then.asked), ["SET lock", "GET", "SET", &new, "SET", "DEL lock"]);
        assert_eq!(provider.reused, 0);
    }
}

#[test]
fn what_was_renewed_without_our_lock_is_found_when_the_provider_refuses() {
    let (one, other) = (peer(true, Place::Bound), peer(true, Place::Bound));
    let (mut redis, mut provider) = (Model::default(), Provider::default());
    run(&other, NOW, &mut |line, now| match line.strip_prefix("idp ") {
        Some(token) => provider.ask(token),
        None => redis.ask(line, now),
    });
    let mut hidden = true;

    let run = run(&one, NOW, &mut |line, now| match line.strip_prefix("idp ") {
        Some(token) => provider.ask(token),
        None if line.starts_with("GET/") && core::mem::take(&mut hidden) => {
            (200, r#"{"GET":null}"#.to_owned())
        }
        None => redis.ask(line, now),
    });

    assert_eq!(run.outcome, Ok(("token-1".to_owned(), true)));
    let tail = ["SET lock", "GET", "idp token-0", "GET", "idp token-1", "SET", "DEL lock"];
    assert_eq!(kinds(&run.asked), tail);
    assert_eq!(one.record.newest(&*one.store).unwrap().token.expose(), "token-2");
}

#[test]
fn who_is_too_late_neither_writes_nor_unlocks() {
    for (given, known) in [("token-1", "token-1"), ("", ORIGINAL)] {
        let peer = peer(true, Place::Bound);
        let (mut redis, mut asked, mut now) = (Model::default(), Vec::new(), NOW);
        let mut step = flow::start(|ctx| exchange(ctx, peer.clone()), moment(now, 1));

        let outcome = loop {
            let (told, flow) = match step {
                Step::Ask(Ask::Call(callout), flow) => {
                    asked.push(callout.body.expose().to_owned());
                    let (status, body) = if callout.cluster == "idp" {
                        now += 20;
                        (200, given.to_owned())
                    } else {
                        redis.ask(callout.body.expose(), now)
                    };
                    (Told::Call(answer(status, body.as_bytes())), flow)
                }
                Step::Ask(_, flow) => (Told::Paused, flow),
                Step::Done(outcome) => break outcome,
                Step::Lost => panic!("lost"),
            };
            step = flow.resume(told, moment(now, asked.len() as u64));
        };

        assert_eq!(outcome, Ok((ORIGINAL.to_owned(), given.is_empty())));
        assert_eq!(kinds(&asked), ["SET lock", "GET", ORIGINAL]);
        assert_eq!(peer.record.newest(&*peer.store).unwrap().token.expose(), known);
    }
}

struct Waiting {
    peer: usize,
    since: u64,
    ask: Ask,
    flow: Flow<Outcome>,
}

/// Many exchanges in `peers`, in an order that `seed` decides, with that many faults of the Redis and
/// exchanges dropped in a hundred steps; how often the provider saw an old token, and how many went well.
fn simulate(seed: u64, peers: &[Peer], faults: u64, drops: u64) -> (usize, usize) {
    let (mut redis, mut provider) = (Model::default(), Provider::default());
    let (mut now, mut drawn, mut done) = (NOW, 0u64, 0);
    let mut waiting: Vec<Waiting> = Vec::new();
    let mut draw = |below: u64| {
        drawn += 1;
        let digest = sha256(&[seed.to_be_bytes(), drawn.to_be_bytes()].concat());
        u64::from_be_bytes(*digest.first_chunk().unwrap()) % below
    };
    for nth in 0..400 {
        now += u64::from(draw(30) == 0);
        // A job ends after 20 s.
        waiting.retain(|one| now < one.since + 20);
        let (peer, since, step) = if waiting.len() < 5 {
            let peer = draw(peers.len() as u64) as usize;
            let moment = moment(now, seed * 1_000 + nth);
            (peer, now, flow::start(|ctx| exchange(ctx, peers[peer].clone()), moment))
        } else {
            let Waiting { peer, since, ask, flow } =
                waiting.swap_remove(draw(waiting.len() as u64) as usize);
            let told = match ask {
                Ask::Pause => Told::Paused,
                Ask::Call(callout) if callout.cluster == "idp" => {
                    let (status, body) = provider.ask(callout.body.expose());
                    Told::Call(answer(status, body.as_bytes()))
                }
                // Dropped only where no renewed token is on its way.
                _ if draw(100) < drops => {
                    // Now and then so much time passes that no lease and no lock is left.
                    now += 26 * draw(2);
                    continue;
                }
                Ask::Call(callout) => {
                    let fails = draw(100) < faults;
                    let comes = !fails || draw(2) == 0;
                    let told = comes.then(|| redis.ask(callout.body.expose(), now));
                    Told::Call(match told {
                        Some((status, body)) if !fails => answer(status, body.as_bytes()),
                        _ => Err(CallFailed::NoAnswer),
                    })
                }
                Ask::Job(..) => panic!("it waits for nothing else"),
            };
            (peer, since, flow.resume(told, moment(now, seed * 1_000 + nth)))
        };
        match step {
            Step::Ask(ask, flow) => waiting.push(Waiting { peer, since, ask, flow }),
            Step::Done(outcome) => done += usize::from(outcome.is_ok()),
            Step::Lost => panic!("lost"),
        }
    }
    (provider.reused, done)
}

#[test]
fn in_a_fleet_without_faults_no_old_token_is_ever_used() {
    let mut all = 0;
    for seed in 0..30 {
        let peers: Vec<Peer> = (0..3).map(|_| peer(true, Place::Bound)).collect();

        let (reused, done) = simulate(seed, &peers, 0, 0);

        assert_eq!(reused, 0, "seed {seed}");
        all += done;
    }
    assert!(all > 250, "{all}");
}

#[test]
fn one_process_loses_nothing_whatever_becomes_of_the_redis_and_of_its_jobs() {
    let mut all = 0;
    for seed in 0..30 {
        let (reused, done) = simulate(seed, &[peer(true, Place::Presented)], 10, 5);

        assert_eq!(reused, 0, "seed {seed}");
        all += done;
    }
    assert!(all > 50, "{all}");
}

#[test]
fn without_a_redis_workers_of_a_process_take_turns() {
    for seed in 0..30 {
        let (reused, done) = simulate(seed, &[peer(false, Place::Bound)], 0, 5);

        assert_eq!(reused, 0, "seed {seed}");
        assert!(done > 10, "{done}");
    }
}

#[test]
fn a_store_that_does_not_answer_gives_no_turn() {
    struct Broken;
    impl Store for Broken {
        fn get(&self, _: &str) -> Result<(Vec<u8>, u32), jagway_core::store::Unavailable> {
            Err(jagway_core::store::Unavailable)
        }
        fn swap(&self, _: &str, _: &[u8], _: u32) -> Result<bool, jagway_core::store::Unavailable> {
            Err(jagway_core::store::Unavailable)
        }
    }
    async fn begin(ctx: Ctx, record: Rc<Record>) -> Option<Fault> {
        let rotation = Rotation { store: &Broken, redis: None, record: &record };
        rotation.begin(&ctx).await.err()
    }

    let record = peer(false, Place::Bound).record;
    let step = flow::start(|ctx| begin(ctx, record), moment(NOW, 1));

    assert!(matches!(step, Step::Done(Some(Fault::Unavailable))));
    assert_eq!(Fault::Unavailable.code(), "refresh_token_store");
}
