//! Turns at a refresh token that its provider renews: one exchange at a time, each with the newest
//! token, in a process or, with a [`Redis`], in a fleet.
//!
//! [`Rotation::begin`] takes the turn, [`Turn::end`] puts the new token in the place of the old and
//! gives the turn up. With a Redis: lock (`SET .. NX PX`), read (`GET`), exchange, write (`SET`), unlock
//! (`DEL`). What was renewed is in the process' record *before* the Redis is asked to take it. If
//! that fails, it stays there; whoever has the next turn in this process finds it newer than what the
//! Redis has, and writes it before anything else.
//!
//! The lock is deleted only while it is certainly ours: it outlasts a turn by five seconds, twice an
//! answer's longest time. A script that compares and deletes would be exact, but an operator would have
//! to allow `EVAL`, which is more power than the four commands here; after its time the lock ends alone.
//!
//! What this does *not* save: a new token whose answer never came, or whose process died before
//! [`Turn::end`]; one that the Redis did not take in time, for the other processes of the fleet, until the
//! one that has it is next; what a Redis forgets; without a Redis, all that was renewed before a
//! restart of the process. The next turn begins with an older token then, and the provider refuses it
//! or, if it takes reuse for theft, ends the whole grant (RFC 9700 §4.14.2).

use crate::digest::base64url;
use crate::flow::Ctx;
use crate::http::Answer;
use crate::redis::Redis;
use crate::refresh_record::{Current, LEASE, Place, Record, Taken};
use crate::secret::{Secret, same_digest};
use crate::store::{Store, Unavailable};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// How often [`Rotation::begin`] waits while it is somebody else's turn, about a second each. A job has
/// 20 s: what is left must do for the exchange, for a job that ends while the provider answers loses
/// the new token.
const PAUSES: usize = 8;
/// How long the fleet's lock lasts, in milliseconds: longer than a turn.
const LOCK: &str = "25000";
/// How long a Redis remembers a renewed token that a caller presents, in milliseconds: 90 days from
/// when it was renewed last, or callers could fill it. What the configuration binds has no end.
const PRESENTED: &str = "7776000000";

/// A refresh token, and where what becomes of it is remembered.
pub struct Rotation<'a> {
    /// Shared by the workers of the process.
    pub store: &'a dyn Store,
    /// Shared by the fleet.
    pub redis: Option<&'a Redis>,
    /// What is remembered.
    pub record: &'a Record,
}

/// The right to use the newest token, once, for [`LEASE`] seconds at most.
///
/// To be ended, however the exchange went: otherwise nobody has a turn until it is over.
#[must_use]
pub struct Turn<'a> {
    rotation: &'a Rotation<'a>,
    current: Current,
    owner: u64,
    until: u64,
}

/// Why there is no turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It was somebody else's for as long as we wait.
    Busy,
    /// The store, or the Redis, does not say whose it is.
    Unavailable,
}

impl Fault {
    /// A stable name, for the log.
    pub fn code(self) -> &'static str {
        match self {
            Self::Busy => "refresh_token_busy",
            Self::Unavailable => "refresh_token_store",
        }
    }
}

impl<'a> Rotation<'a> {
    /// Waits for the turn, 8 s at most.
    ///
    /// Belongs into a job, which goes on when the client that caused it is gone: whoever is dropped between
    /// the provider's answer and [`Turn::end`] loses the new token.
    pub async fn begin(&'a self, ctx: &Ctx) -> Result<Turn<'a>, Fault> {
        let random = ctx.random();
        let owner = random.first_chunk().map_or(0, |chunk| u64::from_be_bytes(*chunk));
        for nth in 0..=PAUSES {
            if nth > 0 {
                ctx.pause().await;
            }
            let now = ctx.now();
            let taken = self.record.take(self.store, owner, now);
            let Taken::Mine(current) = taken.map_err(|Unavailable| Fault::Unavailable)? else {
                continue;
            };
            let mut turn =
                Turn { rotation: self, current, owner, until: now.saturating_add(LEASE) };
            match turn.join_fleet(ctx).await {
                Ok(()) => return Ok(turn),
                Err(fault) => {
                    // If even this fails, the lease ends by itself.
                    let _ = self.record.put_back(self.store, owner, None, now, &ctx.random());
                    if fault == Fault::Unavailable {
                        return Err(fault);
                    }
                }
            }
        }
        Err(Fault::Busy)
    }

    /// What the fleet's store has; `Ok(None)` if it has nothing, or nothing that is for this record.
    async fn fetch(&self, ctx: &Ctx, redis: &Redis) -> Result<Option<Current>, Unavailable> {
        match command(ctx, redis, &["GET", &self.key()]).await {
            Some(answer) => match redis.reply("GET", &answer) {
                Some(Value::Null) => Ok(None),
                Some(Value::String(text)) => {
                    let sealed = URL_SAFE_NO_PAD.decode(text).ok();
                    Ok(sealed.and_then(|sealed| self.record.open(&sealed)))
                }
                _ => Err(Unavailable),
            },
            None => Err(Unavailable),
        }
    }

    fn key(&self) -> String {
        format!("jagway:refresh:{}", self.record.name())
    }

    fn lock(&self) -> String {
        format!("jagway:refresh-lock:{}", self.record.name())
    }
}

impl Turn<'_> {
    /// The token to use.
    pub fn token(&self) -> &Secret {
        &self.current.token
    }

    /// How often the token was renewed: 0 is the original.
    pub fn sequence(&self) -> u64 {
        self.current.sequence
    }

    /// After the provider refused the token: looks whether somebody has a newer one who renewed it when
    /// their turn was over already. If so, that is the token now, and worth a second try.
    pub async fn reload(&mut self, ctx: &Ctx) -> bool {
        let Rotation { store, redis, record } = *self.rotation;
        let fleet = match redis {
            Some(redis) => self.rotation.fetch(ctx, redis).await.ok().flatten(),
            None => None,
        };
        let mut found = false;
        for other in record.newest(store).ok().into_iter().chain(fleet) {
            if other.is_newer_than(&self.current) {
                self.current = other;
                found = true;
            }
        }
        found
    }

    /// Gives the turn up. `rotated` is the `refresh_token` of the provider's answer, if it had one: it is
    /// current from now on (RFC 6749 §6, RFC 8693 §2.2.1). To be called as soon as that answer is there.
    ///
    /// `Err`: the new token is not where it should be. The caller goes on with what it got, and tells
    /// the operator. Does *not* look at the token, or limit its length.
    pub async fn end(self, ctx: &Ctx, rotated: Option<Secret>) -> Result<(), Unavailable> {
        let Rotation { store, redis, record } = *self.rotation;
        let new = rotated.filter(|token| !same(token, &self.current.token)).map(|token| Current {
            token,
            sequence: self.current.sequence.saturating_add(1),
            at: ctx.now(),
        });
        let kept = record.put_back(store, self.owner, new.as_ref(), ctx.now(), &ctx.random());
        let Some(redis) = redis else {
            return kept;
        };
        if let Some(new) = new
            && self.save(ctx, redis, &new).await.is_err()
        {
            // Once more: what the provider has renewed it does not take back. If that fails, too, the lock
            // stays until its end, and keeps the fleet from the old token for as long.
            ctx.pause().await;
            self.save(ctx, redis, &new).await?;
        }
        self.unlock(ctx, redis).await;
        Ok(())
    }

    /// Takes the turn in the fleet, too, and the newest of what it and this process know.
    async fn join_fleet(&mut self, ctx: &Ctx) -> Result<(), Fault> {
        let Some(redis) = self.rotation.redis else {
            return Ok(());
        };
        let owner = format!("{:x}", self.owner);
        let lock = self.rotation.lock();
        let answer = command(ctx, redis, &["SET", &lock, &owner, "NX", "PX", LOCK]).await;
        match answer.and_then(|answer| redis.was_set(&answer)) {
            Some(true) => {}
            Some(false) => return Err(Fault::Busy),
            None => return Err(Fault::Unavailable),
        }
        let synced = match self.rotation.fetch(ctx, redis).await {
            Ok(Some(other)) if !self.current.is_newer_than(&other) => {
                self.current = other;
                Ok(())
            }
            Ok(None) if self.current.sequence == 0 => Ok(()),
            Ok(_) => self.save(ctx, redis, &self.current).await,
            Err(Unavailable) => Err(Unavailable),
        };
        if synced.is_err() {
            self.unlock(ctx, redis).await;
        }
        synced.map_err(|Unavailable| Fault::Unavailable)
    }

    /// Writes `current` for the fleet to read. Not when the lock may be somebody else's: they may have
    /// written something newer.
    async fn save(&self, ctx: &Ctx, redis: &Redis, current: &Current) -> Result<(), Unavailable> {
        let record = self.rotation.record;
        let sealed = record.close(current, &ctx.random()).ok_or(Unavailable)?;
        let (key, sealed) = (self.rotation.key(), base64url(&sealed));
        let words: &[&str] = match record.place {
            Place::Bound => &["SET", &key, &sealed],
            Place::Presented => &["SET", &key, &sealed, "PX", PRESENTED],
        };
        if ctx.now() >= self.until {
            return Err(Unavailable);
        }
        let answer = command(ctx, redis, words).await.ok_or(Unavailable)?;
        if redis.was_set(&answer) == Some(true) { Ok(()) } else { Err(Unavailable) }
    }

    /// Deletes the lock while it is certainly ours. If that fails, it ends by itself.
    async fn unlock(&self, ctx: &Ctx, redis: &Redis) {
        if ctx.now() < self.until {
            let _ = command(ctx, redis, &["DEL", &self.rotation.lock()]).await;
        }
    }
}

async fn command(ctx: &Ctx, redis: &Redis, words: &[&str]) -> Option<Answer> {
    ctx.call(redis.command(words)).await.ok()
}

/// Some providers give the same token again.
fn same(a: &Secret, b: &Secret) -> bool {
    let digest = |secret: &Secret| crate::digest::sha256(secret.expose().as_bytes());
    same_digest(&digest(a), &digest(b))
}
