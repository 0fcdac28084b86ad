//! Verified access tokens that a worker remembers: what makes room, and that nothing that may change is remembered.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use jagway_core::access_token::AccessToken;
use jagway_core::digest::Tagger;
use jagway_core::id_jag::Authentication;
use jagway_core::jws::Fault;
use jagway_core::revocation;
use jagway_core::store::{Memory, Store, Unavailable};
use jagway_core::subject_id::SubjectId;
use jagway_core::verdicts::{Verdict, Verdicts};
use std::cell::Cell;
use std::rc::Rc;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn token(jti: &str) -> AccessToken {
    AccessToken {
        subject: "subject".into(),
        id: SubjectId { issuer: "https://idp".into(), tenant: None, subject: "alice".into() },
        groups: vec![],
        client_id: "claude".into(),
        audience: "https://mcp.example/mcp".into(),
        scope: String::new(),
        authorization_details: vec![],
        jti: jti.into(),
        issued_at: 800,
        expires_at: 1_000,
        not_before: None,
        authentication: Authentication::default(),
        confirmation: None,
    }
}

fn verdicts(most: usize) -> Verdicts {
    Verdicts::new(Tagger::new(&[7; 32]), most)
}

fn verdict(jti: &str) -> Rc<Verdict> {
    Rc::new(Verdict::new(token(jti)))
}

/// A store that counts what is read.
#[derive(Default)]
struct Counted(Memory, Cell<usize>);

impl Store for Counted {
    fn get(&self, key: &str) -> Result<(Vec<u8>, u32), Unavailable> {
        self.1.set(self.1.get() + 1);
        self.0.get(key)
    }

    fn swap(&self, key: &str, value: &[u8], version: u32) -> Result<bool, Unavailable> {
        self.0.swap(key, value, version)
    }
}

#[test]
fn a_verdict_is_found_by_the_whole_token_and_by_no_other() {
    let mut verdicts = verdicts(10);

    verdicts.keep(verdicts.name(b"header.payload.signature"), verdict("1"));

    assert_eq!(verdicts.get(verdicts.name(b"header.payload.signature")).unwrap().token.jti, "1");
    let others: [&[u8]; 5] =
        [b"", b"header.payload.signaturf", b"header.payload.signatur", b"header.payload", b"x"];
    for other in others {
        assert!(verdicts.get(verdicts.name(other)).is_none(), "{other:?}");
    }
}

#[test]
fn what_was_not_asked_for_longest_makes_room() {
    let mut verdicts = verdicts(2);

    verdicts.keep(verdicts.name(b"a"), verdict("a"));
    verdicts.keep(verdicts.name(b"b"), verdict("b"));
    verdicts.get(verdicts.name(b"a"));
    verdicts.keep(verdicts.name(b"c"), verdict("c"));

    assert!(
        verdicts.get(verdicts.name(b"a")).is_some() && verdicts.get(verdicts.name(b"c")).is_some()
    );
    assert!(verdicts.get(verdicts.name(b"b")).is_none());
}

#[test]
fn large_tokens_take_the_room_of_many() {
    let mut verdicts = verdicts(16);
    let (small, [a, b]) = ([b's'; 600], [b'a', b'b'].map(|byte| [byte; 16 * 1024]));

    verdicts.keep(verdicts.name(&small), verdict("small"));
    verdicts.keep(verdicts.name(&a), verdict("large"));
    verdicts.keep(verdicts.name(&b), verdict("large"));

    assert!(
        verdicts.get(verdicts.name(&small)).is_none() && verdicts.get(verdicts.name(&a)).is_none()
    );
    assert!(verdicts.get(verdicts.name(&b)).is_some(), "one of them has all the room");
}

#[test]
fn where_nothing_may_be_kept_nothing_is() {
    let mut verdicts = verdicts(0);

    verdicts.keep(verdicts.name(b"a"), verdict("a"));

    assert!(verdicts.get(verdicts.name(b"a")).is_none());
}

#[test]
fn a_token_kept_again_and_again_takes_its_room_once() {
    let mut verdicts = verdicts(2);
    let [a, b, c] = [b'a', b'b', b'c'].map(|byte| [byte; 1_000]);

    for _ in 0..100 {
        verdicts.keep(verdicts.name(&a), verdict("a"));
    }
    verdicts.keep(verdicts.name(&b), verdict("b"));
    verdicts.forget(verdicts.name(&b));
    verdicts.keep(verdicts.name(&c), verdict("c"));

    assert!(verdicts.get(verdicts.name(&a)).is_some() && verdicts.get(verdicts.name(&c)).is_some());
}

#[test]
fn as_long_as_nothing_is_revoked_one_read_tells() {
    let store = Counted::default();
    let verdict = verdict("1");
    let reads = |now| {
        let before = store.1.get();
        (verdict.is_revoked(&store, now), store.1.get() - before)
    };

    assert_eq!(reads(900), (Ok(false), 1), "nothing ever was");
    assert_eq!(reads(901), (Ok(false), 1));
    revocation::revoke_token(&store.0, "another", 2_000, 901).unwrap();
    assert_eq!(reads(902), (Ok(false), 3), "something was: it is looked for again");
    assert_eq!(reads(903), (Ok(false), 1));
    revocation::revoke_token(&store.0, "1", 2_000, 903).unwrap();
    for _ in 0..2 {
        assert_eq!(reads(904).0, Ok(true));
    }
}

#[test]
fn a_user_that_is_revoked_is_so_for_tokens_that_are_remembered() {
    let store = Memory::default();
    let verdict = verdict("1");
    assert_eq!(verdict.is_revoked(&store, 900), Ok(false));

    let origin = revocation::origin("https://idp", None, "alice");
    revocation::revoke_origin(&store, &origin, 900, 2_000, 901).unwrap();

    assert_eq!(verdict.is_revoked(&store, 902), Ok(true));
}

#[test]
fn what_a_remembered_token_is_good_for_is_judged_each_time() {
    let token = token("1");
    let resource = "https://mcp.example/mcp";

    assert_eq!(token.check(resource, 900, 0), Ok(()));
    assert_eq!(token.check("https://mcp.example/mcp/", 900, 0), Err(Fault::Audience));
    assert_eq!(token.check(resource, 1_000, 0), Err(Fault::Expired));
    assert_eq!(token.check(resource, 1_059, 60), Ok(()));
    assert_eq!(token.check(resource, 799, 0), Err(Fault::IssuedInFuture));
    let later = AccessToken { not_before: Some(950), ..token };
    assert_eq!(later.check(resource, 900, 0), Err(Fault::NotYetValid));
}
