//! The module with counters in it: every instruction that runs is counted, by instructions of the module's own.
//!
//! An interpreter's fuel is charged for whole blocks, also for what is jumped over, and by a price list of its own. This
//! counts what runs, so a path that nobody takes costs nothing, and a newer interpreter changes no figure.

use std::collections::BTreeMap;

use wasmparser::{FunctionBody, Operator, Parser, Payload, TypeRef};

/// The name of the global with the count, an `i64`. What moves many bytes at once counts one more for each eight.
pub const COUNTER: &str = "instructions";
/// Told when a function is entered and left: an import of type `(i32) -> i32` that the filter has and that no journey
/// calls, so that no index changes.
pub const HOOK: &str = "proxy_close_stream";

const FUNCTIONS: u8 = 3;
const GLOBALS: u8 = 6;
const EXPORTS: u8 = 7;
const CODE: u8 = 10;

/// Opcodes that are written here.
const CALL: u8 = 0x10;
const DROP: u8 = 0x1a;
const END: u8 = 0x0b;
const LOCAL_GET: u8 = 0x20;
const GLOBAL_GET: u8 = 0x23;
const GLOBAL_SET: u8 = 0x24;
const I32_CONST: u8 = 0x41;
const I64_CONST: u8 = 0x42;
const I64_ADD: u8 = 0x7c;
const I64_SHR_U: u8 = 0x88;
const I64_EXTEND_I32_U: u8 = 0xad;

/// What of a module is read to write it anew.
#[derive(Default)]
struct Parts<'a> {
    bytes: &'a [u8],
    /// How many parameters each type has.
    parameters: Vec<usize>,
    /// How many functions are imported, and which is the hook.
    imported: u32,
    hook: Option<u32>,
    /// The type of each function, and its body.
    kinds: Vec<u32>,
    bodies: Vec<FunctionBody<'a>>,
    /// How many globals and exports there are, and they.
    globals: (u32, &'a [u8]),
    exports: (u32, &'a [u8]),
    sections: Vec<(u8, &'a [u8])>,
}

/// `module` with counters; if `tells`, each function also tells the hook of itself.
pub fn instrumented(module: &[u8], tells: bool) -> Vec<u8> {
    let parts = Parts::of(module);
    // The counter, and a place for one number.
    let (counter, place) = (parts.globals.0, parts.globals.0 + 1);
    let bodies = parts.bodies.iter().map(|body| parts.counted(body, counter, place));
    let mut bodies: Vec<Vec<u8>> = bodies.collect();
    let mut kinds = parts.kinds.clone();
    if tells {
        kinds.extend(&parts.kinds);
        bodies.splice(0..0, (0..parts.kinds.len() as u32).map(|index| parts.telling(index)));
    }
    let count = leb(kinds.len() as u32);
    let kinds = kinds.into_iter().flat_map(leb);
    let code = bodies.iter().flat_map(|body| [&leb(body.len() as u32), &body[..]].concat());
    let globals = [0x7e, 1, I64_CONST, 0, END, 0x7f, 1, I32_CONST, 0, END];
    let export = [&[COUNTER.len() as u8], COUNTER.as_bytes(), &[3], &leb(counter)].concat();
    let new = BTreeMap::from([
        (FUNCTIONS, [count.clone(), kinds.collect()].concat()),
        (GLOBALS, [&leb(parts.globals.0 + 2), parts.globals.1, &globals].concat()),
        (EXPORTS, [&leb(parts.exports.0 + 1), parts.exports.1, &export].concat()),
        (CODE, [count, code.collect()].concat()),
    ]);
    let mut bytes = module[..8].to_vec();
    for (id, old) in &parts.sections {
        let content = new.get(id).map_or(*old, Vec::as_slice);
        bytes.push(*id);
        bytes.extend(leb(content.len() as u32));
        bytes.extend(content);
    }
    bytes
}

impl<'a> Parts<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let mut parts = Self { bytes, ..Self::default() };
        let rest = |start: u64, end: u64| &bytes[start as usize..end as usize];
        for payload in Parser::new(0).parse_all(bytes).map(|payload| payload.unwrap()) {
            // Custom sections are for readers.
            if let Some((id, range)) = payload.as_section().filter(|(id, _)| *id != 0) {
                parts.sections.push((id, rest(range.start, range.end)));
            }
            match payload {
                Payload::TypeSection(section) => {
                    let kinds = section.into_iter_err_on_gc_types().map(|kind| kind.unwrap());
                    parts.parameters = kinds.map(|kind| kind.params().len()).collect();
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports().map(|import| import.unwrap()) {
                        assert!(matches!(import.ty, TypeRef::Func(_)), "{import:?}");
                        if import.name == HOOK {
                            parts.hook = Some(parts.imported);
                        }
                        parts.imported += 1;
                    }
                }
                Payload::FunctionSection(section) => {
                    parts.kinds = section.into_iter().map(|kind| kind.unwrap()).collect();
                }
                Payload::GlobalSection(section) => {
                    let globals = rest(section.original_position(), section.range().end);
                    parts.globals = (section.count(), globals);
                }
                Payload::ExportSection(section) => {
                    let exports = rest(section.original_position(), section.range().end);
                    parts.exports = (section.count(), exports);
                }
                Payload::CodeSectionEntry(body) => parts.bodies.push(body),
                _ => {}
            }
        }
        parts
    }

    /// `body` with a counter before each run of instructions that is left at its end only.
    fn counted(&self, body: &FunctionBody<'_>, counter: u32, place: u32) -> Vec<u8> {
        let operators = body.get_operators_reader().unwrap();
        let (start, end) = (operators.original_position() as usize, body.range().end as usize);
        let mut bytes = self.bytes[body.range().start as usize..start].to_vec();
        let mut operators = operators.into_iter_with_offsets().map(|one| one.unwrap()).peekable();
        let (mut run, mut count) = (Vec::new(), 0);
        while let Some((operator, at)) = operators.next() {
            use Operator::*;
            if matches!(operator, MemoryCopy { .. } | MemoryFill { .. }) {
                run.extend(counts_size(counter, place));
            }
            let next = operators.peek().map_or(end, |(_, at)| *at as usize);
            run.extend(&self.bytes[at as usize..next]);
            let is_mark = matches!(operator, Block { .. } | Loop { .. } | Else | End);
            count += u32::from(!is_mark);
            let ends = matches!(
                operator,
                If { .. } | Br { .. } | BrIf { .. } | BrTable { .. } | Return | Unreachable
            );
            if is_mark || ends {
                if count > 0 {
                    bytes.extend(adds(counter, &[&[I64_CONST], &signed(count)[..]].concat()));
                }
                bytes.append(&mut run);
                count = 0;
            }
        }
        bytes
    }

    /// A function in the place of function `index` that calls it where it now is, behind all others.
    fn telling(&self, index: u32) -> Vec<u8> {
        let (function, hook) = (self.imported + index, self.hook.expect("the filter ends streams"));
        let tell =
            |word: u32| [&[I32_CONST], &signed(word)[..], &[CALL], &leb(hook), &[DROP]].concat();
        let mut body = vec![0];
        body.extend(tell(function << 1));
        for parameter in 0..self.parameters[self.kinds[index as usize] as usize] {
            body.push(LOCAL_GET);
            body.extend(leb(parameter as u32));
        }
        body.push(CALL);
        body.extend(leb(function + self.kinds.len() as u32));
        body.extend(tell(function << 1 | 1));
        body.push(END);
        body
    }
}

/// Adds to `counter` the number that `number` pushes.
fn adds(counter: u32, number: &[u8]) -> Vec<u8> {
    let counter = leb(counter);
    [&[GLOBAL_GET], &counter[..], number, &[I64_ADD, GLOBAL_SET], &counter].concat()
}

/// Adds to `counter` an eighth of the number on top of the stack, which stays.
fn counts_size(counter: u32, place: u32) -> Vec<u8> {
    let place = leb(place);
    let number = [&[GLOBAL_GET], &place[..], &[I64_EXTEND_I32_U, I64_CONST, 3, I64_SHR_U]].concat();
    let keep = [&[GLOBAL_SET], &place[..], &[GLOBAL_GET], &place].concat();
    [keep, adds(counter, &number)].concat()
}

fn leb(mut number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// A number below 2^27, as a signed LEB128 of four bytes.
fn signed(number: u32) -> [u8; 4] {
    let part = |index: u32| (number >> (7 * index)) as u8 & 0x7f;
    [part(0) | 0x80, part(1) | 0x80, part(2) | 0x80, part(3)]
}

#[test]
fn each_round_of_a_loop_counts_and_what_is_jumped_over_does_not() {
    // loop: local.get 0, i32.const 1, i32.sub, local.tee 0, br_if 0; block: i32.const 1, br_if 0, nop, nop.
    let body =
        b"\x03\x40\x20\x00\x41\x01\x6b\x22\x00\x0d\x00\x0b\x02\x40\x41\x01\x0d\x00\x01\x01\x0b\x0b";
    let head =
        b"\0asm\x01\0\0\0\x01\x05\x01\x60\x01\x7f\0\x03\x02\x01\0\x06\x06\x01\x7f\0\x41\0\x0b";
    let rest = b"\x07\x05\x01\x01f\0\0\x0a\x19\x01\x17\0";
    let module = instrumented(&[&head[..], rest, body].concat(), false);
    let engine = wasmi::Engine::default();
    let mut store = wasmi::Store::new(&engine, ());
    let module = wasmi::Module::new(&engine, module).unwrap();
    let instance = wasmi::Linker::new(&engine).instantiate_and_start(&mut store, &module).unwrap();

    instance.get_typed_func::<u32, ()>(&store, "f").unwrap().call(&mut store, 10).unwrap();

    let counter = instance.get_global(&store, COUNTER).unwrap().get(&store);
    assert_eq!(counter.i64(), Some(10 * 5 + 2));
}
