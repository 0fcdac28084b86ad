//! How long tokens are kept and for whom, when they are got anew, and when servers are left alone.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use jagway_core::caller::identify;
use jagway_core::client_certificate::ClientCertificate;
use jagway_core::config::Kind;
use jagway_core::digest::{hex, sha256};
use jagway_core::exchange::key as key_of;
use jagway_core::http::Request;
use jagway_core::pauses::{place, until};
use jagway_core::secret::Secret;
use jagway_core::store::Store;
use jagway_core::token_response::Granted;
use jagway_core::worker::Verdict;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use support::servers::*;
use support::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const BOT: [(&str, &str); 1] = [("x-api-key", "bot-key")];
const OTHER: [(&str, &str); 1] = [("x-api-key", "other-key")];

/// How many results lie in each bucket of tokens.
fn kept(world: &World) -> Vec<usize> {
    let kinds = ["token", "unproven"];
    let buckets =
        kinds.iter().flat_map(|kind| (0..256).map(move |n| format!("jagway/{kind}/{n:x}")));
    let sizes = buckets.map(|bucket| {
        let (bytes, _) = world.process.store.get(&bucket).unwrap();
        serde_json::from_slice::<Vec<Value>>(&bytes).unwrap_or_default().len()
    });
    sizes.collect()
}

#[test]
fn what_is_not_to_be_kept_is_not_kept_anywhere() {
    let mut world = World::of(&changed_config(&[("upgrade/cache", json!(false))]), 2);

    let mut tokens = Vec::new();
    for nth in 0..6 {
        let verdict = world.at(nth % 2, &BOT);
        tokens.push(world.authorization(&verdict));
    }

    assert_eq!(world.servers.count("exchange"), 6);
    assert_eq!(world.servers.count("redemption"), 6);
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 6);
    assert_eq!(kept(&world).iter().sum::<usize>(), 0);
}

#[test]
fn what_is_not_kept_is_not_shared_by_those_who_ask_at_once() {
    let callers = json!([key_caller("bot-key", json!({ "id_token": { "env": "BOT_ID_TOKEN" } }))]);
    for (caches, exchanges) in [(true, 1), (false, 5)] {
        let mut world =
            World::new(&[("upgrade/cache", json!(caches)), ("upgrade/callers", callers.clone())]);
        for stream in 0..5 {
            world.begin(0, stream, &BOT);
        }
        world.settle();
        assert_eq!(world.process.concluded.len(), 5);
        assert!(world.process.concluded.iter().all(|(.., verdict)| status(verdict) == 0));
        assert_eq!(world.servers.count("exchange"), exchanges, "{caches}");
    }
}

#[test]
fn a_refusal_is_not_remembered_where_nothing_is_kept() {
    let mut world = World::new(&[("upgrade/cache", json!(false))]);
    world.servers.once("exchange", 400, &[], json!({ "error": "access_denied" }));

    assert_eq!(status(&world.bot()), 403);
    assert_eq!(status(&world.bot()), 0);
    assert_eq!(kept(&world).iter().sum::<usize>(), 0);
}

#[test]
fn a_token_is_refreshed_between_seven_and_eight_tenths_of_its_life() {
    let mut seen = BTreeMap::new();
    for expires_in in [None, Some(2), Some(15), Some(60), Some(305), Some(3600), Some(u64::MAX)] {
        for most in [1, 10, 300, 3600] {
            for random in 0..=255 {
                let access_token = Secret::new("t");
                let granted = Granted { access_token, bound: false, expires_in };
                let value = granted.to_value(NOW, most, random);
                let life = value.usable_until - NOW;
                let ahead = value.refresh_at - NOW;
                let what = format!("{expires_in:?} {most} {random}: {ahead} of {life}");
                assert!((1..=most).contains(&life), "{what}");
                assert!(ahead * 10 >= life * 7 && ahead * 10 <= life * 8 + 9, "{what}");
                if let Some(said) = expires_in {
                    assert!(life <= said, "{what}");
                }
                seen.entry((expires_in, most)).or_insert_with(Vec::new).push(ahead);
            }
        }
    }

    let mut spread = seen.remove(&(Some(3600), 3600)).unwrap();
    spread.dedup();
    assert!(spread.len() > 200, "chance matters: {}", spread.len());
    assert!(spread.first() > spread.last());
}

#[test]
fn one_worker_refreshes_while_the_old_token_serves_all() {
    let mut world = World::of(&upgrade_config(), 3);
    let first = world.at(0, &BOT);
    let first = world.authorization(&first);
    for worker in 1..3 {
        let verdict = world.at(worker, &BOT);
        assert_eq!(world.authorization(&verdict), first);
    }
    world.later(240);

    for round in 0..2 {
        for worker in 0..3 {
            world.begin(worker, 1, &BOT);
            let verdict = world.process.verdict();
            assert_eq!(world.authorization(&verdict), first, "{round} {worker}");
            assert_eq!(world.process.callouts.len(), 1, "{round} {worker}: one is at it");
        }
    }
    world.settle();

    assert_eq!(world.servers.count("exchange"), 2);
    for worker in 0..3 {
        let verdict = world.at(worker, &BOT);
        assert_ne!(world.authorization(&verdict), first, "{worker}");
    }
    assert_eq!(world.servers.count("exchange"), 2);
}

#[test]
fn many_callers_of_one_bucket_do_not_fill_the_store() {
    let callers = json!([{ "refresh_token": { "header": "x-refresh-token" } }]);
    let config = changed_config(&[("upgrade/callers", callers)]);
    let parsed = parse(&config);
    let Kind::Upgrade(upgrade) = &parsed.resources[0].kind else { panic!() };
    let in_first_bucket = |token: &String| {
        let request = request("POST", HOST, "/mcp", &[("x-refresh-token", token)]);
        let known = identify(upgrade, &request).unwrap();
        parsed.seal.key_of(&key_of(upgrade, &known, &upgrade.scope))[0] == 0
    };
    let all = (0..).map(|number| format!("RT-of-caller-{number}"));
    let tokens: Vec<String> = all.filter(in_first_bucket).take(40).collect();

    let mut world = World::of(&config, 1);
    for token in &tokens {
        assert_eq!(
            status(&world.call(&[("x-refresh-token", token)])),
            0,
            "{:?}",
            world.process.log
        );
        assert!(kept(&world).iter().all(|count| *count <= 16));
    }

    assert_eq!(world.servers.count("exchange"), 40, "each is served, kept or not");
}

#[test]
fn a_server_that_asks_to_be_left_alone_is_by_all_workers_and_callers_are_told_when_to_come_back() {
    for (leg, code) in
        [("exchange", 429), ("exchange", 503), ("redemption", 429), ("redemption", 503)]
    {
        for (said, told) in [("40", 40), ("1", 1), ("100000", 300), ("0", 1)] {
            let what = format!("{leg} {code} {said}");
            let mut world = World::of(&upgrade_config(), 2);
            world.servers.once(
                leg,
                code,
                &[("retry-after", said)],
                json!({ "error": "slow_down" }),
            );
            let verdict = world.at(0, &BOT);
            assert_eq!((status(&verdict), world.refused()), (503, "exchange_throttled"), "{what}");
            assert_eq!(header(&verdict, "retry-after"), Some(&*told.to_string()), "{what}");
            let asked = world.servers.count(leg);

            // Another caller, at another worker.
            let verdict = world.at(1, &OTHER);
            assert_eq!(status(&verdict), 503, "{what}");
            assert_eq!(header(&verdict, "retry-after"), Some(&*told.to_string()), "{what}");
            assert_eq!(world.servers.count(leg), asked, "{what}: it is left alone");
            world.later(told);
            let verdict = world.at(1, &OTHER);
            assert_eq!(status(&verdict), 0, "{what}: {:?}", world.process.log);
        }
    }
}

#[test]
fn what_is_left_of_a_pause_is_told() {
    let mut world = World::of(&upgrade_config(), 2);
    world.servers.once("exchange", 429, &[("retry-after", "40")], json!({}));
    world.at(0, &BOT);

    world.later(25);
    let verdict = world.at(1, &OTHER);

    assert_eq!(header(&verdict, "retry-after"), Some("15"));
}

#[test]
fn a_server_that_fails_again_and_again_is_asked_ever_less() {
    for (code, body) in [(500, json!("x")), (SILENCE, json!("")), (429, json!({}))] {
        let mut world = World::new(&[]);
        world.servers.always("exchange", code, &[], &body);
        let mut tries = Vec::new();

        for second in 0..400 {
            let before = world.servers.count("exchange");
            assert_eq!(status(&world.bot()), 503, "{code}");
            if world.servers.count("exchange") > before {
                tries.push(second);
            }
            world.later(1);
        }

        let gaps: Vec<u64> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!((7..=25).contains(&tries.len()), "{code}: {gaps:?}");
        assert!(gaps.iter().rev().take(2).all(|gap| (30..=66).contains(gap)), "{code}: {gaps:?}");
        assert!(gaps[0] <= 4, "{code}: {gaps:?}");
        // One success, and all is as it was.
        world.servers.well();
        world.later(70);
        assert_eq!(status(&world.bot()), 0);
    }
}

#[test]
fn a_token_that_is_still_good_serves_while_the_servers_are_down_or_throttle() {
    for (code, fields) in [(500, vec![]), (503, vec![("retry-after", "300")]), (SILENCE, vec![])] {
        for leg in ["exchange", "redemption"] {
            let mut world = World::of(&upgrade_config(), 2);
            let first = world.at(0, &BOT);
            let first = world.authorization(&first);
            world.servers.always(leg, code, &fields, &json!({}));
            for second in 1..295 {
                world.later(1);
                let verdict = world.at(second % 2, &BOT);
                assert_eq!(world.authorization(&verdict), first, "{leg} {code} {second}");
            }
            assert!((1..=4).contains(&world.servers.count(leg).saturating_sub(1)), "{leg} {code}");
            world.later(1);
            assert_eq!(status(&world.at(0, &BOT)), 503, "{leg} {code}: not after its end");
        }
    }
}

#[test]
fn a_pause_of_the_one_server_is_none_of_the_other() {
    let mut world = World::new(&[]);
    world.servers.once("redemption", 503, &[("retry-after", "60")], json!({}));
    let parsed = parse(&upgrade_config());
    let Kind::Upgrade(upgrade) = &parsed.resources[0].kind else { panic!() };
    let left = |world: &World, party| until(&*world.process.store, &place(party, false), NOW);

    assert_eq!(status(&world.bot()), 503);

    assert_eq!(left(&world, &upgrade.servers[0].party), Some(60));
    assert_eq!(left(&world, &upgrade.identity_provider.party), None);
}

/// Numbers that are the same in every run.
struct Draws(u64);

impl Draws {
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

/// Choices that are made already, one after the other.
struct Choices<'a>(&'a [usize]);

impl Choices<'_> {
    fn below(&mut self, end: usize) -> usize {
        let (first, rest) = self.0.split_first().unwrap();
        self.0 = rest;
        first % end
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// A way, a caller and a scope by these choices: what they are, in words; and the key.
fn chosen(choices: &[usize]) -> (String, [u8; 32]) {
    let mut draws = Choices(choices);
    let client = |id: &str| json!({ "id": id, "secret": { "env": "IDP_SECRET" } });
    let settings: [(&str, Vec<Value>); 12] = [
        ("idp/client", vec![client("jagway"), client("jagwa"), client("y")]),
        ("idp/cluster", vec![json!("idp"), json!("idp2")]),
        (
            "idp/token_exchange",
            vec![
                json!(null),
                json!({ "send_resource": false }),
                json!({ "parameters": { "a": "b" } }),
                json!({ "pairwise_subjects": true }),
            ],
        ),
        ("/resources/0/resource", vec![json!(WAREHOUSE), json!(format!("{WAREHOUSE}/"))]),
        ("upgrade/scopes", vec![json!([]), json!(["a"]), json!(["a", "b"]), json!(["b", "a"])]),
        ("upgrade/redemption_scopes", vec![json!([]), json!(["a"])]),
        ("upgrade/dpop", vec![json!("off"), json!("required")]),
        ("upgrade/require_resource", vec![json!(false), json!(true)]),
        ("upgrade/authorization_details", vec![json!(null), json!([{ "type": "a" }])]),
        ("as/issuer", vec![json!(AS), json!("https://other.example")]),
        ("as/client", vec![client("claude"), client("jagway")]),
        ("as/audience", vec![json!(null), json!("urn:as")]),
    ];
    let mut changes = Vec::new();
    for (pointer, values) in settings {
        changes.push((pointer, draws.one_of(&values).clone()));
    }
    let subjects = [
        json!({ "refresh_token": { "env": "BOT_REFRESH" } }),
        json!({ "refresh_token": { "env": "OTHER_REFRESH" } }),
        json!({ "id_token": { "env": "BOT_ID_TOKEN" } }),
        json!({ "client_credentials": { "scopes": ["a"] } }),
        json!({ "client_credentials": { "scopes": ["a", "b"] } }),
    ];
    let subject = draws.one_of(&subjects).clone();
    let name = *draws.one_of(&["one", "two"]);
    let mut key = key_caller("k", subject.clone());
    key["name"] = json!(name);
    let password = hex(&sha256(b"k"));
    changes.push(("upgrade/mutual_tls", json!({ "chain": "untrusted" })));
    changes.push((
        "upgrade/callers",
        json!([
            key, { "id_token": {} }, { "refresh_token": { "header": "x-refresh-token" } },
            { "basic": { "id": "k", "secret_sha256": password }, "subject": subject },
            { "certificate": { "sha256": ["0f".repeat(32), "1f".repeat(32)] }, "subject": subject },
        ]),
    ));
    let way = format!("{changes:?}");
    let plain = |fields: &[(&str, &str)]| request("POST", HOST, "/mcp", fields);
    let request = match draws.below(4) {
        0 => plain(&[("x-api-key", "k")]),
        1 => plain(&[("authorization", *draws.one_of(&["Bearer k", "Bearer kk", "Basic azpr"]))]),
        2 => plain(&[("x-refresh-token", *draws.one_of(&["k", "kk"]))]),
        _ => {
            let digest = draws.one_of(&["0f", "1f"]).repeat(32);
            let certificate = ClientCertificate::from_attributes(&digest, "", "", "");
            Request { certificate, ..plain(&[]) }
        }
    };
    let scope = draws.one_of(&["", "a", "a b", "b a"]);
    let parsed = parse(&changed_config(&changes));
    let Kind::Upgrade(upgrade) = &parsed.resources[0].kind else { panic!() };
    let known = identify(upgrade, &request).unwrap();
    let fields: Vec<_> =
        request.headers.fields().map(|(n, v)| (n.to_owned(), v.to_vec())).collect();
    let words = format!("{way} {fields:?} {:?} {scope}", request.certificate);
    (words, key_of(upgrade, &known, scope))
}

#[test]
fn two_keys_are_equal_if_and_only_if_all_that_a_token_depends_on_is() {
    let mut draws = Draws(1);
    let mut by_key = BTreeMap::new();
    let mut by_words = BTreeMap::new();
    let mut check = |choices: &[usize]| {
        let (words, key) = chosen(choices);
        assert_eq!(*by_key.entry(key).or_insert_with(|| words.clone()), words, "one key for two");
        assert_eq!(*by_words.entry(words.clone()).or_insert(key), key, "two keys for {words}");
        by_key.len()
    };

    for _ in 0..40 {
        let mut choices: Vec<usize> = (0..20).map(|_| draws.below(60)).collect();
        check(&choices);
        check(&choices);
        // All the same but for one.
        for index in 0..choices.len() {
            choices[index] += 1;
            check(&choices);
            choices[index] -= 1;
        }
    }

    assert!(check(&[0; 20]) > 500);
}

#[test]
fn callers_and_their_tokens_are_never_mixed_up_in_the_cache() {
    let mut world = World::of(&upgrade_config(), 2);
    let mut draws = Draws(2);
    let bearers: Vec<String> = ["alice", "bob"]
        .iter()
        .map(|sub| format!("Bearer {}", id_token(&json!({ "sub": sub }))))
        .collect();
    let callers = [
        ("x-api-key", "bot-key"),
        ("x-api-key", "other-key"),
        ("authorization", &*bearers[0]),
        ("authorization", &*bearers[1]),
    ];
    let mut owners: BTreeMap<String, usize> = BTreeMap::new();

    for _ in 0..300 {
        let (who, worker) = (draws.below(4), draws.below(2));
        world.servers.claims = if who == 3 { json!({ "sub": "bob" }) } else { Value::Null };
        let verdict = world.at(worker, &[callers[who]]);
        let Verdict::Forward(..) = verdict else { panic!("{:?}", world.process.log) };
        let token = world.authorization(&verdict);
        assert_eq!(*owners.entry(token).or_insert(who), who);
        world.later(draws.below(20) as u64);
        world.settle();
    }

    assert!(owners.len() > 20, "{}", owners.len());
}
