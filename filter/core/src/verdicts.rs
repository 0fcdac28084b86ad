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
use std::cell::Cell;
use std::rc::Rc;

/// For each token that may be kept, so many bytes of token text are, whatever their number: a token may
/// have 16 KiB.
const BYTES: usize = 1024;

/// An access token that is verified.
#[derive(Debug)]
pub struct Verdict {
    /// The token.
    pub token: AccessToken,
    /// Whose it is, as revocations name them.
    origin: Origin,
    /// The state of the list of revocations in which it was not on it.
    unrevoked: Cell<Option<u32>>,
}

impl Verdict {
    /// The verdict on `token`.
    pub fn new(token: AccessToken) -> Self {
        let SubjectId { issuer, tenant, subject } = &token.id;
        let origin = revocation::origin(issuer, tenant.as_deref(), subject);
        Self { token, origin, unrevoked: Cell::new(None) }
    }

    /// Whether the token has been revoked at `now` (seconds since the epoch), by itself or with its user.
    /// As long as nothing at all is revoked meanwhile, one read of the store tells.
    ///
    /// [`Unavailable`] if the store does not answer: then nobody knows, and the token must not pass.
    pub fn is_revoked(&self, store: &dyn Store, now: u64) -> Result<bool, Unavailable> {
        // Read first: what is revoked after this shows in the next state.
        let state = revocation::state(store)?;
        if self.unrevoked.get() == Some(state) {
            return Ok(false);
        }
        let AccessToken { jti, issued_at, .. } = &self.token;
        let revoked = revocation::is_revoked(store, Some(jti), &self.origin, *issued_at, now)?;
        self.unrevoked.set((!revoked).then_some(state));
        Ok(revoked)
    }
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

    /// What is known of `token`. It may have expired since.
    pub fn get(&mut self, token: &[u8]) -> Option<Rc<Verdict>> {
        self.kept.get(self.tagger.of(token))
    }

    /// Keeps the verdict on `token`.
    pub fn keep(&mut self, token: &[u8], verdict: Rc<Verdict>) {
        self.kept.keep(self.tagger.of(token), verdict, token.len());
    }

    /// Forgets `token`.
    pub fn forget(&mut self, token: &[u8]) {
        self.kept.forget(self.tagger.of(token));
    }
}
