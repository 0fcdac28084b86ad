//! The few DER structures (X.690) in which a host takes keys and signatures.

use zeroize::Zeroizing;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;

/// `rsaEncryption` with its NULL (RFC 3279 §2.3.1).
const RSA: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
/// `id-ecPublicKey` with the named curve (RFC 5480 §2.1.1).
const P256: [u8; 21] = [
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
    0xce, 0x3d, 0x03, 0x01, 0x07,
];
/// As [`P256`].
const P384: [u8; 18] = [
    0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04,
    0x00, 0x22,
];

/// A SubjectPublicKeyInfo (RFC 5280 §4.1) of the RSA key with this modulus and exponent, big-endian.
pub(crate) fn rsa_public_key(n: &[u8], e: &[u8]) -> Vec<u8> {
    public_key(&RSA, &element(SEQUENCE, &[integer(n), integer(e)].concat()))
}

/// A SubjectPublicKeyInfo of this point of P-256, uncompressed.
pub(crate) fn p256_public_key(point: &[u8]) -> Vec<u8> {
    public_key(&P256, point)
}

/// A SubjectPublicKeyInfo of this point of P-384, uncompressed.
pub(crate) fn p384_public_key(point: &[u8]) -> Vec<u8> {
    public_key(&P384, point)
}

/// The P-256 key with this scalar and its point, uncompressed, in PKCS#8 (RFC 5958 §2, RFC 5915 §3).
/// Put together in one piece: no part of it is left behind in memory.
pub(crate) fn p256_private_key(scalar: &[u8; 32], point: &[u8]) -> Zeroizing<Vec<u8>> {
    const OUTER: [u8; 6] = [0x30, 0x81, 0x87, 0x02, 0x01, 0x00];
    const INNER: [u8; 9] = [0x04, 0x6d, 0x30, 0x6b, 0x02, 0x01, 0x01, 0x04, 0x20];
    const PUBLIC: [u8; 5] = [0xa1, 0x44, 0x03, 0x42, 0x00];
    let parts: [&[u8]; 6] = [&OUTER, &P256, &INNER, scalar, &PUBLIC, point];
    Zeroizing::new(parts.concat())
}

/// An ECDSA signature of two halves of one length (RFC 7518 §3.4) as an ECDSA-Sig-Value (RFC 3279
/// §2.2.3). Made for each new token, so in one piece.
pub(crate) fn ecdsa_signature(halves: &[u8]) -> Vec<u8> {
    let (r, s) = halves.split_at_checked(halves.len() / 2).unwrap_or_default();
    let numbers = [unsigned(r), unsigned(s)];
    // The curves there are have halves of 48 bytes at most: each length is one byte.
    let length = |(zero, digits): (&[u8], &[u8])| zero.len() + digits.len();
    let content: usize = numbers.iter().map(|number| 2 + length(*number)).sum();
    let mut bytes = Vec::with_capacity(2 + content);
    bytes.extend([SEQUENCE, content as u8]);
    for (zero, digits) in numbers {
        bytes.extend([INTEGER, length((zero, digits)) as u8]);
        bytes.extend_from_slice(zero);
        bytes.extend_from_slice(digits);
    }
    bytes
}

fn public_key(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let key = element(BIT_STRING, &[&[0], key].concat());
    element(SEQUENCE, &[algorithm, &key].concat())
}

fn integer(bytes: &[u8]) -> Vec<u8> {
    let (zero, digits) = unsigned(bytes);
    element(INTEGER, &[zero, digits].concat())
}

/// A number without sign in the bytes of one with it: a zero byte, or none, and digits. No zero byte that is not needed
/// (X.690 §8.3.2).
fn unsigned(bytes: &[u8]) -> (&[u8], &[u8]) {
    let digits = without_leading_zeros(bytes);
    match digits.first() {
        Some(first) if *first < 0x80 => (&[], digits),
        _ => (&[0], digits),
    }
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let digits = without_leading_zeros(&length);
    let mut bytes = vec![tag];
    if content.len() >= 0x80 {
        bytes.push(0x80 | digits.len() as u8);
    }
    bytes.extend(if digits.is_empty() { &[0] } else { digits });
    bytes.extend(content);
    bytes
}

/// A big-endian number without the zero bytes it begins with.
pub(crate) fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use p256::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
    use rsa::traits::PublicKeyParts;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn keys_are_encoded_as_the_libraries_encode_them() {
        let p256 = p256::SecretKey::from_slice(&[7; 32]).unwrap();
        let point = p256.public_key().to_sec1_bytes();

        let public = p256_public_key(&point);
        let private = p256_private_key(&[7; 32], &point);

        assert_eq!(public, p256.public_key().to_public_key_der().unwrap().as_bytes());
        assert_eq!(*private, *p256.to_pkcs8_der().unwrap().as_bytes());
        assert_eq!(p256::SecretKey::from_pkcs8_der(&private).unwrap(), p256);
    }

    #[test]
    fn a_key_of_p384_is_encoded_as_another_library_encodes_it() {
        let p384 = p384::SecretKey::from_slice(&[7; 48]).unwrap().public_key();

        let public = p384_public_key(&p384.to_sec1_bytes());

        assert_eq!(p384::PublicKey::from_public_key_der(&public), Ok(p384));
    }

    #[test]
    fn rsa_keys_are_read_back_as_they_were() {
        for (length, first) in [(256, 0x80), (256, 0xff), (384, 0x80), (512, 0xff)] {
            let mut n = vec![0x55; length];
            n[0] = first;

            let public = rsa_public_key(&n, &[1, 0, 1]);

            let key = rsa::RsaPublicKey::from_public_key_der(&public).unwrap();
            assert_eq!((key.n().to_bytes_be(), key.e().to_bytes_be()), (n, vec![1, 0, 1]));
        }
    }

    #[test]
    fn halves_of_any_size_become_the_same_signature() {
        let small = [vec![0; 31], vec![1]].concat();
        let high = [vec![0; 30], vec![0x80, 0]].concat();
        let full = vec![0xee; 32];

        for (r, s) in [(&small, &small), (&small, &high), (&high, &full), (&full, &small)] {
            let halves = [&r[..], &s[..]].concat();

            let der = ecdsa_signature(&halves);

            let signature = p256::ecdsa::Signature::from_der(&der).unwrap();
            assert_eq!(signature.to_bytes().to_vec(), halves);
        }
        assert_eq!(ecdsa_signature(&[]), [0x30, 6, 2, 1, 0, 2, 1, 0]);
    }
}
