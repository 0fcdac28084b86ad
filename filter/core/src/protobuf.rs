//! As much of the protobuf wire format as a host's messages need: one field after the other.

use zeroize::Zeroizing;

/// The wire type of a field that has a length: text, bytes, a message.
const WITH_LENGTH: u8 = 2;

/// Takes the next field off `message`: its tag, which is its number and wire type, and what it holds.
///
/// `None` if that is cut off, or none of what is read here: fields 1 to 15, numbers below 128, eight fixed
/// bytes, and anything with a length.
pub fn field<'a>(message: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (tag, rest) = message.split_first()?;
    let (length, rest) = match tag & 7 {
        0 => (1, rest),
        1 => (8, rest),
        2 => length(rest)?,
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *message = rest;
    Some((*tag, content))
}

/// A length, in at most four groups of seven bits, lowest first, and what follows it.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(4) {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(index + 1..)?));
        }
    }
    None
}

/// A message of these fields, each with its number (1 to 15), all text or bytes.
pub fn message(fields: &[(u8, &[u8])]) -> Vec<u8> {
    let size = fields.iter().map(|(_, content)| content.len() + 6).sum();
    // As large as it gets: what moved would leave a copy behind, see `secret_message`.
    let mut message = Vec::with_capacity(size);
    for (number, content) in fields {
        message.push(number << 3 | WITH_LENGTH);
        let mut length = content.len();
        while length >= 0x80 {
            message.push(length as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(content);
    }
    message
}

/// As [`message`], with a key in it: erased when dropped.
pub fn secret_message(fields: &[(u8, &[u8])]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(message(fields))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn what_is_written_reads_back() {
        for length in [0, 1, 127, 128, 300, 16_383, 16_384, 100_000] {
            let content = vec![7; length];

            let written = message(&[(1, b"sha256"), (15, &content)]);

            let mut rest = written.as_slice();
            assert_eq!(field(&mut rest), Some((0x0a, b"sha256".as_slice())));
            assert_eq!(field(&mut rest), Some((0x7a, content.as_slice())));
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn a_message_is_what_another_library_makes_of_it() {
        use prost::Message;
        let long = "x".repeat(300);

        let written = message(&[(1, long.as_bytes())]);

        assert_eq!(String::decode(written.as_slice()), Ok(long));
    }
}
