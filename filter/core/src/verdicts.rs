//! Access tokens of ours that this worker has verified before: signature and claims are not judged twice.
//!
//! What is kept holds for good: who signed what. Whether the token is for *this* resource, in time, not
//! revoked, and shown along with what it is bound to is judged with each request.

use crate::access_token::AccessToken;
use crate::digest::Tagger;
use crate::remembered::Remembered;
use crate::revocation::{self, Origin};
use crate::store::{Store, Unavailable};
use crate::subject_id::SubjectId;
use core::num::NonZeroU32;
use std::cell::{Cell, OnceCell};
use std::rc::Rc;

/// For each token that may be kept, so many bytes of token text are, whatever their number: a token may
/// have 16 KiB.
const BYTES: usize = 1024;

/// An access token that is verified.
#[derive(Debug)]
pub struct Verdict {
    /// The token.
    pub token: AccessToken,
    /// Whose it is, as revocations name them; not looked for before there are any.
    origin: OnceCell<Origin>,
    /// The state of the lists of revocations in which it was on none.
    unrevoked: Cell<Option<NonZeroU32>>,
}

impl Verdict {
    /// The verdict on `token`.
    pub fn new(token: AccessToken) -> Self {
        Self { token, origin: OnceCell::new(), unrevoked: Cell::new(None) }
    }

    /// Whether the token has been revoked at `now` (seconds since the epoch), by itself or with its user.
    /// As long as nothing at all is revoked meanwhile, one read of the store tells.
    ///
    /// [`Unavailable`] if the store does not answer: then nobody knows, and the token must not pass.
    pub fn is_revoked(&self, store: &dyn Store, now: u64) -> Result<bool, Unavailable> {
        // Read first: what is revoked after this shows in the next state.
        let state = revocation::state(store)?;
        if state.is_none() || self.unrevoked.get() == state {
            return Ok(false);
        }
        let AccessToken { jti, issued_at, .. } = &self.token;
        let origin = self.origin.get_or_init(|| {
            let SubjectId { issuer, tenant, subject } = &self.token.id;
            revocation::origin(issuer, tenant.as_deref(), subject)
        });
        let revoked = revocation::is_revoked(store, Some(jti), origin, *issued_at, now)?;
        self.unrevoked.set(state.filter(|_| !revoked));
        Ok(revoked)
    }
}

/// What a token goes by here. It tells nothing of the token.
#[derive(Clone, Copy)]
pub struct Name {
    tag: u128,
    bytes: usize,
}

/// The verdicts of one worker; those not asked for longest make room.
pub struct Verdicts {
    tagger: Tagger,
    kept: Remembered<Verdict>,
}

impl Verdicts {
    /// None yet; at most `most` at a time.
    pub fn new(tagger: Tagger, most: usize) -> Self {
        Self { tagger, kept: Remembered::new(most, most.saturating_mul(BYTES)) }
    }

    /// The name of `token`.
    pub fn name(&self, token: &[u8]) -> Name {
        Name { tag: self.tagger.of(token), bytes: token.len() }
    }

    /// What is known of the token `name`. It may have expired since.
    pub fn get(&mut self, name: Name) -> Option<Rc<Verdict>> {
        self.kept.get(name.tag)
    }

    /// Keeps the verdict on the token `name`.
    pub fn keep(&mut self, name: Name, verdict: Rc<Verdict>) {
        self.kept.keep(name.tag, verdict, name.bytes);
    }

    /// Forgets the token `name`.
    pub fn forget(&mut self, name: Name) {
        self.kept.forget(name.tag);
    }
}
