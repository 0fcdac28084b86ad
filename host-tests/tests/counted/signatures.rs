//! Envoy's foreign functions `verify_signature` and `sign`, for ES256. So what is counted is what the module does
//! itself, as in Envoy.

use std::collections::BTreeMap;

use jagway_core::protobuf::field;
use p256::ecdsa::signature::{Signer, Verifier};
use p256::ecdsa::{DerSignature, SigningKey, VerifyingKey};
use p256::pkcs8::{DecodePrivateKey, DecodePublicKey};

use super::host::Foreign;

/// The status of a host that cannot use the arguments.
const BAD_ARGUMENT: u32 = 2;
const NOT_VERIFIED: &[u8] = b"Failed to verify digest. Error code: 0";

/// Both functions by name.
pub fn es256() -> BTreeMap<String, Foreign> {
    let named = |name: &str, answer: fn(&[u8]) -> Option<Vec<u8>>| {
        let foreign: Foreign = Box::new(move |message| answer(message).ok_or(BAD_ARGUMENT));
        (name.to_owned(), foreign)
    };
    BTreeMap::from([named("verify_signature", verify), named("sign", sign)])
}

/// `None` for all but ES256, which is left to portable code.
fn verify(mut message: &[u8]) -> Option<Vec<u8>> {
    let [hash, key, signature, text] = [(); 4].map(|()| field(&mut message));
    let (key, signature) = (key?.1, DerSignature::from_bytes(signature?.1).ok()?);
    let key =
        VerifyingKey::from_public_key_der(key).ok().filter(|_| hash == Some((10, b"sha256")))?;
    let error = [&[0x12, NOT_VERIFIED.len() as u8], NOT_VERIFIED].concat();
    Some(key.verify(text?.1, &signature).map_or(error, |()| vec![0x08, 1]))
}

fn sign(mut message: &[u8]) -> Option<Vec<u8>> {
    let [_, key, text] = [(); 3].map(|()| field(&mut message));
    let signature: DerSignature = SigningKey::from_pkcs8_der(key?.1).ok()?.sign(text?.1);
    let signature = signature.as_bytes();
    Some([&[0x08, 1, 0x12, signature.len() as u8], signature].concat())
}
