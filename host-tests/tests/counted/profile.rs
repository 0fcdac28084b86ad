//! Where the instructions go, function by function.

use std::collections::BTreeMap;

use wasmparser::{KnownCustom, Name, Parser, Payload};

/// What a function cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    pub calls: u64,
    /// Instructions of its own.
    pub own: u64,
    /// With those of what it called.
    pub all: u64,
}

/// The functions that are running, and what those that ran cost.
#[derive(Default)]
pub struct Profile {
    /// Function, instructions when it was entered, and those of what it called since.
    running: Vec<(u32, u64, u64)>,
    pub costs: BTreeMap<u32, Cost>,
}

impl Profile {
    /// The module says `word` to the hook, when the counter stands at `used`.
    pub fn told(&mut self, word: u32, used: u64) {
        let function = word >> 1;
        if word & 1 == 0 {
            return self.running.push((function, used, 0));
        }
        let (entered, since, below) = self.running.pop().unwrap();
        assert_eq!(entered, function);
        let all = used - since;
        let cost = self.costs.entry(function).or_default();
        cost.calls += 1;
        cost.own += all - below;
        // A function that calls itself is counted once.
        if !self.running.iter().any(|(other, ..)| *other == function) {
            cost.all += all;
        }
        if let Some((_, _, below)) = self.running.last_mut() {
            *below += all;
        }
    }
}

/// The names of the functions of `module`.
pub fn names(module: &[u8]) -> BTreeMap<u32, String> {
    let mut names = BTreeMap::new();
    for payload in Parser::new(0).parse_all(module) {
        let Ok(Payload::CustomSection(section)) = payload else { continue };
        let KnownCustom::Name(section) = section.as_known() else { continue };
        for subsection in section {
            if let Ok(Name::Function(functions)) = subsection {
                let functions = functions.into_iter().map(|naming| naming.unwrap());
                names.extend(functions.map(|naming| (naming.index, plain(naming.name))));
            }
        }
    }
    names
}

/// The identifiers in a mangled name, of either kind, for reading only.
fn plain(mangled: &str) -> String {
    let is_new = mangled.starts_with("_R");
    let is_hash = |part: &str| part.len() == 17 && part.starts_with('h');
    let (mut rest, mut parts) = (mangled, Vec::new());
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        if is_new && (first == 's' || first == 'B') {
            // What tells crates or implementations apart, or points back.
            rest = rest.split_once('_').map_or("", |(_, rest)| rest);
        } else if end > 0 {
            let size: usize = rest[..end].parse().unwrap_or(usize::MAX);
            let part = &rest[end..];
            let part = part.strip_prefix('_').filter(|_| is_new).unwrap_or(part);
            let Some(name) = part.get(..size) else { break };
            parts.push(name);
            rest = &part[size..];
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    parts.retain(|part| !is_hash(part));
    let path = if parts.is_empty() { mangled.to_owned() } else { parts.join("::") };
    let signs =
        [("$LT$", "<"), ("$GT$", ">"), ("$u20$", " "), ("$RF$", "&"), ("$C$", ","), ("..", "::")];
    signs.iter().fold(path, |path, (from, to)| path.replace(from, to))
}
