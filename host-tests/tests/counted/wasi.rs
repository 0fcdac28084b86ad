//! What of WASI the module asks for.

use super::host::Call;
use jagway_core::digest::sha256;

impl Call<'_, '_> {
    /// Bytes that differ with every call and are the same in every run.
    pub(super) fn random(&mut self) {
        let (at, size) = (self.word(0), self.word(1) as usize);
        let mut bytes = Vec::new();
        while bytes.len() < size {
            self.state().drawn += 1;
            bytes.extend(sha256(&self.state().drawn.to_le_bytes()));
        }
        self.write(at, &bytes[..size]);
    }

    pub(super) fn environment(&mut self) -> Vec<u8> {
        let lines = self.state().environment.iter();
        lines.flat_map(|(name, value)| format!("{name}={value}\0").into_bytes()).collect()
    }

    pub(super) fn environ_get(&mut self) {
        let (mut pointer, start) = (self.word(0), self.word(1));
        let bytes = self.environment();
        self.write(start, &bytes);
        let mut at = start;
        for line in bytes.split_inclusive(|byte| *byte == 0) {
            self.write(pointer, &at.to_le_bytes());
            pointer += 4;
            at += line.len() as u32;
        }
    }

    /// What a panic says, for one.
    pub(super) fn fd_write(&mut self) {
        let (parts, count) = (self.word(1), self.word(2));
        let mut text = Vec::new();
        for part in 0..count {
            let mut place = [0; 8];
            self.memory().read(&*self.caller, (parts + 8 * part) as usize, &mut place).unwrap();
            let number = |at: usize| u32::from_le_bytes(place[at..at + 4].try_into().unwrap());
            let (start, size) = (number(0) as usize, number(4) as usize);
            text.extend_from_slice(&self.memory().data(&*self.caller)[start..start + size]);
        }
        self.write(self.word(3), &(text.len() as u32).to_le_bytes());
        self.state().log.push(String::from_utf8_lossy(&text).into_owned());
    }
}
