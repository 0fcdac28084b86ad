//! HTTP/1.1 messages of known length, as bytes: no more than the two ends of the benchmark need, so that they stay cheap.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Where the parts of a message in a buffer end.
#[derive(Clone, Copy)]
pub struct Message {
    /// The head, with its empty line.
    pub head: usize,
    /// The whole.
    pub end: usize,
}

/// Reads until `buffer` holds one message; nothing if the connection ended before the first byte of it.
///
/// There is no second message behind it: nobody here sends before the answer to the last one is there.
pub async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> io::Result<Option<Message>> {
    buffer.clear();
    let mut message = None;
    loop {
        if message.is_none() {
            message = parse(buffer)?;
        }
        match message {
            Some(message) if message.end <= buffer.len() => return Ok(Some(message)),
            Some(message) => buffer.reserve(message.end - buffer.len()),
            None => buffer.reserve(4096),
        }
        if stream.read_buf(buffer).await? == 0 {
            return if buffer.is_empty() { Ok(None) } else { Err(wrong("it was cut off")) };
        }
    }
}

/// The lines of a head, without the first one and their ends.
pub fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    head.split(|byte| *byte == b'\n').skip(1).map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// The value of the header line, if it has this name, which ends in a colon.
pub fn value<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name.as_bytes()).then(|| rest.trim_ascii())
}

fn parse(buffer: &[u8]) -> io::Result<Option<Message>> {
    let Some(end) = buffer.windows(4).position(|part| part == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = end + 4;
    let mut length = 0;
    for line in lines(&buffer[..head]) {
        if let Some(value) = value(line, "content-length:") {
            let value = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            length = value.ok_or_else(|| wrong("its length is no number"))?;
        } else if value(line, "transfer-encoding:").is_some() {
            return Err(wrong("it has no length"));
        }
    }
    Ok(Some(Message { head, end: head + length }))
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
