//! Envoy's foreign functions `verify_signature` and `sign`, whose messages are protobuf.

use crate::host;
use jagway_core::engine::ForeignFunctions;
use jagway_core::protobuf::{field, message, secret_message};

/// How Envoy says that a signature is not good. Whatever else it says, it could not tell.
const NOT_VERIFIED: &[u8] = b"Failed to verify digest. Error code: 0";

/// The host's functions.
pub struct Signatures;

impl ForeignFunctions for Signatures {
    fn verify_signature(
        &self,
        hash: &str,
        public_key: &[u8],
        signature: &[u8],
        text: &[u8],
    ) -> Option<bool> {
        let hash = hash.as_bytes();
        let arguments = message(&[(1, hash), (2, public_key), (3, signature), (4, text)]);
        // VerifySignatureResult: `bool result = 1`, `string error = 2`.
        let answer = host::call_foreign_function("verify_signature", &arguments)?;
        match *fields(&answer)? {
            [(0x08, [1])] => Some(true),
            [(0x12, NOT_VERIFIED)] => Some(false),
            _ => None,
        }
    }

    fn sign(&self, hash: &str, private_key: &[u8], text: &[u8]) -> Option<Vec<u8>> {
        let arguments = secret_message(&[(1, hash.as_bytes()), (2, private_key), (3, text)]);
        // SignResult: `bool result = 1`, `bytes signature = 2`, `string error = 3`.
        let answer = host::call_foreign_function("sign", &arguments)?;
        match *fields(&answer)? {
            [(0x08, [1]), (0x12, signature)] => Some(signature.to_vec()),
            _ => None,
        }
    }
}

/// All fields of `message`, which has no more than it says here: defaults are not written.
fn fields(mut message: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        fields.push(field(&mut message)?);
    }
    Some(fields)
}
