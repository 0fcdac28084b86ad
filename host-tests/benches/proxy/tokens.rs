//! Tokens by the ten thousand: the claims are written here, and `ring` signs them, as fast as anything does.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use host_tests::keys::{SigningKey, base64url};
use host_tests::now;
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::Signer;
use serde_json::Value;

use crate::cpu::on_all_cores;

/// How long tokens are good for: longer than any run takes.
pub const LIFETIME: u64 = 3600;
/// How long an ID-JAG for Jagway is.
pub const ID_JAG_LIFETIME: u64 = 300;
/// How long one for others is: FastMCP remembers 10,000 at a time, and takes no more.
pub const SHORT_LIFETIME: u64 = 60;

/// Signs JWTs with one header.
pub struct Minter {
    header: String,
    signer: Box<dyn Signer>,
}

impl Minter {
    /// Signs with `key`; `typ` goes into the header.
    pub fn new(key: &SigningKey, typ: &str) -> Self {
        let der = PrivatePkcs8KeyDer::from_pem_slice(key.pem().as_bytes()).unwrap();
        let signing = any_supported_type(&PrivateKeyDer::from(der)).unwrap();
        let offered = [SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PKCS1_SHA256];
        let signer = signing.choose_scheme(&offered).unwrap();
        Self { header: base64url(key.header(typ).to_string().as_bytes()), signer }
    }

    /// A JWT of these claims, with a `jti` of its own and times that begin now. All of one kind are of one length.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_for(LIFETIME, claims)
    }

    /// The same, for so many seconds.
    pub fn sign_for(&self, lifetime: u64, claims: &Value) -> String {
        let (mut claims, now) = (claims.clone(), now());
        claims["iat"] = now.into();
        claims["exp"] = (now + lifetime).into();
        claims["jti"] = unique().into();
        let signed = format!("{}.{}", self.header, base64url(claims.to_string().as_bytes()));
        let signature = self.signer.sign(signed.as_bytes()).unwrap();
        let signature = match self.signer.scheme() {
            // JOSE has the two numbers side by side (RFC 7518 section 3.4), TLS in DER.
            SignatureScheme::ECDSA_NISTP256_SHA256 => {
                let signature = p256::ecdsa::Signature::from_der(&signature).unwrap();
                signature.to_bytes().to_vec()
            }
            _ => signature,
        };
        format!("{signed}.{}", base64url(&signature))
    }
}

/// A text that was never given before.
pub fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{:08x}-{number:012x}", std::process::id())
}

/// So many, made on all cores.
pub fn many(count: usize, make: &(impl Fn() -> String + Sync + ?Sized)) -> Vec<String> {
    on_all_cores(|| {
        let half = || (0..count / 2).map(|_| make()).collect::<Vec<_>>();
        std::thread::scope(|scope| {
            let other = scope.spawn(half);
            let mut all = half();
            all.extend(other.join().unwrap());
            all
        })
    })
}

/// New tokens for each slice: none is ever sent twice to the same target.
pub struct Pool {
    make: Make,
    number: Cell<Option<usize>>,
    batch: RefCell<Rc<Vec<String>>>,
    wanted: Cell<usize>,
}

enum Make {
    Whole(Box<dyn Fn() -> String + Sync>),
    /// What another pool has, and something behind it.
    Behind(Rc<Pool>, Box<dyn Fn() -> String>),
}

impl Pool {
    /// A pool that begins with `count` tokens.
    pub fn new(count: usize, make: impl Fn() -> String + Sync + 'static) -> Rc<Self> {
        Self::of(Make::Whole(Box::new(make)), count)
    }

    /// The tokens of another pool, with something new behind each.
    pub fn behind(pool: &Rc<Self>, make: impl Fn() -> String + 'static) -> Rc<Self> {
        Self::of(Make::Behind(pool.clone(), Box::new(make)), 0)
    }

    fn of(make: Make, count: usize) -> Rc<Self> {
        let wanted = Cell::new(count);
        Rc::new(Self { make, number: Cell::default(), batch: RefCell::default(), wanted })
    }

    /// The tokens of this number. Who asks for the same number as the one before gets the same ones.
    pub fn batch(&self, number: usize) -> Rc<Vec<String>> {
        if self.number.replace(Some(number)) != Some(number) {
            let batch = match &self.make {
                Make::Whole(make) => many(self.wanted.take(), make),
                Make::Behind(pool, make) => {
                    pool.batch(number).iter().map(|token| format!("{token}{}", make())).collect()
                }
            };
            self.batch.replace(Rc::new(batch));
        }
        self.batch.borrow().clone()
    }

    /// Somebody used so many in a slice. Neighbours of the machine may have taken two fifths of it, and the next may be
    /// quiet.
    pub fn used(&self, count: usize) {
        self.want(count + count * 2 / 3);
    }

    /// Somebody will use so many in a slice.
    pub fn want(&self, count: usize) {
        match &self.make {
            Make::Whole(_) => self.wanted.set(count.max(self.wanted.get())),
            Make::Behind(pool, _) => pool.want(count),
        }
    }
}
