//! What the flows of one worker may look at: configuration, shared store, and bounded caches.

use crate::config::{Config, Party};
use crate::digest::{Key, Tagger};
use crate::discovery::Metadata;
use crate::dpop_proof::ProofKey;
use crate::error::Error;
use crate::flow::Ctx;
use crate::job::{Job, JobError, Value, Want};
use crate::jwk::KeySet;
use crate::limits::Limits;
use crate::remembered::Remembered;
use crate::secret::Secret;
use crate::store::Store;
use crate::upgrade::Caller;
use crate::verdicts::Verdicts;
use lru::LruCache;
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::rc::Rc;

/// Most access tokens one worker keeps.
const MAX_TOKENS: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// Most bytes of what they are exchanged for that one worker keeps with callers: whoever has one large token can
/// write it in many ways.
const MAX_CALLERS: usize = 8 << 20;

/// One worker's view of its place.
pub struct Site {
    /// The configuration.
    pub config: Config,
    /// What all workers share.
    pub store: Rc<dyn Store>,
    /// Rate limits of this worker: one table for sources, one for clients.
    pub limits: RefCell<Limits>,
    /// See `limits`.
    pub client_limits: RefCell<Limits>,
    /// Access tokens that this worker has verified.
    pub verdicts: RefCell<Verdicts>,
    callers: RefCell<Remembered<Caller>>,
    seen: RefCell<LruCache<u128, ()>>,
    /// Makes names for the caches of this worker.
    pub tagger: Tagger,
    metadata: RefCell<BTreeMap<Key, Cached<Metadata>>>,
    keys: RefCell<BTreeMap<Key, Cached<KeySet>>>,
    tokens: RefCell<LruCache<Key, Rc<Token>>>,
    scopes: RefCell<LruCache<Key, String>>,
    nonces: RefCell<BTreeMap<Key, String>>,
    notes: RefCell<Vec<Note>>,
}

/// Something for the outside to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A line of the log: what was done.
    Info(String),
    /// A line of the log: what the operator should look at.
    Warn(String),
    /// One more of a kind of event, for a counter.
    Count(&'static str, &'static str),
}

/// An access token that we got for use elsewhere.
#[derive(Debug)]
pub struct Token {
    /// The value of the header field that it is sent in: a scheme (RFC 9110 §11.4), if it needs one, and the token.
    pub sent: Secret,
    /// Where in it the token begins.
    pub begins: usize,
    /// Whether it is bound to our key (RFC 9449), and not a bearer token.
    pub bound: bool,
    /// When it was got. All in seconds since the epoch.
    pub made_at: u64,
    /// From when on it should be refreshed while it still serves.
    pub refresh_at: u64,
    /// From when on it must not be used.
    pub usable_until: u64,
    /// The key it is bound to, once it was needed.
    pub proof_key: OnceCell<Option<ProofKey>>,
}

impl Token {
    /// The token itself.
    pub fn access_token(&self) -> &str {
        self.sent.expose().get(self.begins..).unwrap_or_default()
    }

    /// The key it is bound to, which `make` makes.
    pub fn proof_key(&self, make: impl FnOnce() -> Option<ProofKey>) -> Option<&ProofKey> {
        self.proof_key.get_or_init(make).as_ref()
    }
}

struct Cached<T> {
    value: Rc<T>,
    made_at: u64,
    refresh_at: u64,
}

impl Site {
    /// A worker's place, with empty caches.
    pub fn new(config: Config, store: Rc<dyn Store>) -> Self {
        let most = config.authorization_server.as_ref().map_or(0, |server| server.verdict_cache);
        let tagger = Tagger::new(&config.seal.secret_of(b"tags"));
        Self {
            store,
            verdicts: RefCell::new(Verdicts::new(tagger.clone(), most)),
            limits: RefCell::new(Limits::new(config.seal.key_of(&[1; 32]))),
            client_limits: RefCell::new(Limits::new(config.seal.key_of(&[2; 32]))),
            callers: RefCell::new(Remembered::new(MAX_TOKENS.get(), MAX_CALLERS)),
            seen: RefCell::new(LruCache::new(MAX_TOKENS)),
            tagger,
            metadata: RefCell::default(),
            keys: RefCell::default(),
            tokens: RefCell::new(LruCache::new(MAX_TOKENS)),
            scopes: RefCell::new(LruCache::new(MAX_TOKENS)),
            nonces: RefCell::default(),
            notes: RefCell::default(),
            config,
        }
    }

    /// The metadata of `party`: from the cache, or fetched once for the process.
    pub async fn metadata(&self, ctx: &Ctx, party: &Rc<Party>) -> Result<Rc<Metadata>, JobError> {
        let job = Job::Metadata(party.clone());
        if let Some((value, _)) = cached(&self.metadata, &job.key(), ctx.now()) {
            return Ok(value);
        }
        let value = ctx.job(job.clone(), Want::Usable).await?;
        let metadata = Metadata::parse(party, &value.data).ok_or(JobError::BadAnswer)?;
        Ok(keep(&self.metadata, job.key(), &value, metadata))
    }

    /// The metadata of `party`, fetched anew unless that was done a moment ago.
    pub async fn newer_metadata(
        &self,
        ctx: &Ctx,
        party: &Rc<Party>,
    ) -> Result<Rc<Metadata>, JobError> {
        let job = Job::Metadata(party.clone());
        let made_at = cached(&self.metadata, &job.key(), ctx.now()).map_or(0, |(_, at)| at);
        let value = ctx.job(job.clone(), Want::NewerThan(made_at)).await?;
        let metadata = Metadata::parse(party, &value.data).ok_or(JobError::BadAnswer)?;
        Ok(keep(&self.metadata, job.key(), &value, metadata))
    }

    /// The key set of `party`, for a token of which `knows` says whether a set has its key. If the
    /// set at hand has not, a newer one is fetched: for the whole process at most once in 30 s, or in a
    /// second if the last one was new indeed.
    pub async fn keys(
        &self,
        ctx: &Ctx,
        party: &Rc<Party>,
        knows: impl Fn(&KeySet) -> bool,
    ) -> Result<Rc<KeySet>, Error> {
        self.keys_for(ctx, party, &knows).await
    }

    /// As [`Site::keys`], once in the binary however many kinds of token ask.
    async fn keys_for(
        &self,
        ctx: &Ctx,
        party: &Rc<Party>,
        knows: &dyn Fn(&KeySet) -> bool,
    ) -> Result<Rc<KeySet>, Error> {
        let job = Job::Keys(party.clone());
        let (keys, made_at) = match cached(&self.keys, &job.key(), ctx.now()) {
            Some(cached) => cached,
            None => self.fetched_keys(ctx, &job, Want::Usable).await?,
        };
        if knows(&keys) {
            return Ok(keys);
        }
        self.fetched_keys(ctx, &job, Want::NewerThan(made_at)).await.map(|(keys, _)| keys)
    }

    async fn fetched_keys(
        &self,
        ctx: &Ctx,
        job: &Job,
        want: Want,
    ) -> Result<(Rc<KeySet>, u64), Error> {
        let value = ctx.job(job.clone(), want).await.map_err(|_| Error::KeysUnavailable)?;
        let keys = KeySet::parse(&value.data).ok_or(Error::KeysUnavailable)?;
        let keys = keys.with_engine(&self.config.engine);
        Ok((keep(&self.keys, job.key(), &value, keys), value.made_at))
    }

    /// The caller under `tag`, if it got a token before.
    pub fn caller(&self, tag: u128) -> Option<Rc<Caller>> {
        self.callers.borrow_mut().get(tag)
    }

    /// Keeps a caller that got a token; the one not seen for longest makes room.
    pub fn keep_caller(&self, tag: u128, caller: &Rc<Caller>) {
        let size = caller.known.subject.size();
        self.callers.borrow_mut().keep(tag, caller.clone(), size);
    }

    /// Whether a request of the likeness `tag` is over, as far as this worker remembers.
    pub fn has_seen(&self, tag: u128) -> bool {
        self.seen.borrow_mut().get(&tag).is_some()
    }

    /// A request of the likeness `tag` is over.
    pub fn keep_seen(&self, tag: u128) {
        self.seen.borrow_mut().put(tag, ());
    }

    /// The token under `key`, if this worker has it and it may still be used.
    pub fn token(&self, key: &Key, now: u64) -> Option<Rc<Token>> {
        let mut tokens = self.tokens.borrow_mut();
        tokens.get(key).filter(|token| now < token.usable_until).cloned()
    }

    /// Keeps a token; the one not used for longest makes room.
    pub fn keep_token(&self, key: Key, token: Token) -> Rc<Token> {
        let token = Rc::new(token);
        self.tokens.borrow_mut().put(key, token.clone());
        token
    }

    /// Drops a token.
    pub fn drop_token(&self, key: &Key) {
        self.tokens.borrow_mut().pop(key);
    }

    /// From now on the caller whose token without further scope has the key `base` gets `scope`: a server
    /// wanted more than was configured.
    pub fn widen(&self, base: Key, scope: &str) {
        self.scopes.borrow_mut().put(base, scope.to_owned());
    }

    /// What [`Site::widen`] was told last.
    pub fn widened(&self, base: &Key) -> Option<String> {
        self.scopes.borrow_mut().get(base).cloned()
    }

    /// Forgets what [`Site::widen`] was told.
    pub fn narrow(&self, base: &Key) {
        self.scopes.borrow_mut().pop(base);
    }

    /// The last nonce of the server under `key`, for proofs (RFC 9449 §9).
    pub fn nonce(&self, key: &Key) -> Option<String> {
        self.nonces.borrow().get(key).cloned()
    }

    /// A server's nonce. As many as the configuration has servers.
    pub fn keep_nonce(&self, key: Key, nonce: String) {
        self.nonces.borrow_mut().insert(key, nonce);
    }

    /// Drops what was made of an older result under `key`: another worker has a newer one.
    pub fn drop_older(&self, key: &Key) {
        self.drop_token(key);
        self.keys.borrow_mut().remove(key);
        self.metadata.borrow_mut().remove(key);
    }

    /// A line about something the operator should look at. Never a credential, never an unverified
    /// identity.
    pub fn warn(&self, line: String) {
        self.notes.borrow_mut().push(Note::Warn(line));
    }

    /// A line about what was done, and one more of its kind: it stands for the record of a decision.
    pub fn done(&self, kind: &'static str, line: String) {
        self.notes.borrow_mut().extend([Note::Count("done", kind), Note::Info(line)]);
    }

    /// The notes since the last call.
    pub fn take_notes(&self) -> Vec<Note> {
        self.notes.take()
    }
}

type Cache<T> = RefCell<BTreeMap<Key, Cached<T>>>;

fn cached<T>(cache: &Cache<T>, key: &Key, now: u64) -> Option<(Rc<T>, u64)> {
    let cache = cache.borrow();
    let entry = cache.get(key).filter(|entry| now < entry.refresh_at)?;
    Some((entry.value.clone(), entry.made_at))
}

/// Parties come from the configuration, so these caches are as large as it says.
fn keep<T>(cache: &Cache<T>, key: Key, shared: &Value, parsed: T) -> Rc<T> {
    let value = Rc::new(parsed);
    let entry =
        Cached { value: value.clone(), made_at: shared.made_at, refresh_at: shared.refresh_at };
    cache.borrow_mut().insert(key, entry);
    value
}
