//! Reads the document into the types of [`super::raw`]: every unknown field is refused, and the first thing that
//! is wrong is told with its path.
//!
//! * `object!` declares a struct by its members. An `Option` may be absent or null, `= default` may be absent,
//!   anything else must be there; `as "name"` is for a member whose name is a word of Rust's.
//! * `words!` declares an enum, each variant with the text that stands for it.
//! * Another form is an `impl Read` by hand: it never fails, but refuses and then returns anything.
//!
//! Reading on after a refusal, with nothing for what is wrong, is what makes this small: one early return for
//! each field of each struct, and what it would drop, was a tenth of the module.

use super::ConfigError;
use super::fields::Result;
use serde_json::{Map, Value};

/// `document` as a `T`, or what is wrong with it first.
pub(super) fn read<T: Read>(document: &Value) -> Result<T> {
    let mut reader = Reader { path: String::new(), refusal: None };
    let read = T::read(document, &mut reader);
    match reader.refusal {
        None => Ok(read),
        Some(refusal) => Err(refusal),
    }
}

/// An object whose members have names of the operator's choice, in the order of these.
pub(super) type Named<T> = Vec<(String, T)>;

/// What can stand in the document.
pub(super) trait Read: Sized {
    /// What `value` says. If it says nothing of this form, it is refused and the result means nothing.
    fn read(value: &Value, reader: &mut Reader) -> Self;

    /// What an absent member `name` says.
    fn absent(name: &str, reader: &mut Reader) -> Self {
        reader.refuse(&format!("missing field `{name}`"));
        Self::read(&Value::Null, reader)
    }
}

/// The reading of one document: where it is, and what was wrong first.
pub(super) struct Reader {
    path: String,
    refusal: Option<ConfigError>,
}

impl Reader {
    /// Notes what is wrong here, unless something was wrong before. `problem` must not quote a value: it may
    /// be a secret that somebody wrote down.
    pub(super) fn refuse(&mut self, problem: &str) {
        if self.refusal.is_none() {
            let path = self.path.clone();
            self.refusal = Some(ConfigError { path, problem: problem.to_owned() });
        }
    }

    /// Refuses what is not one of `words`.
    pub(super) fn refuse_all_but(&mut self, words: &[&str]) {
        self.refuse(&format!("must be {}", one_of(words)));
    }

    /// Refuses what is no object, and members other than `names`.
    pub(super) fn object(&mut self, value: &Value, names: &[&str]) {
        let Some(members) = value.as_object() else {
            return self.refuse("must be an object");
        };
        for name in members.keys().filter(|name| !names.contains(&name.as_str())) {
            let here = self.enter(name);
            self.refuse(&match names {
                [] => format!("unknown field `{name}`, there are no fields"),
                _ => format!("unknown field `{name}`, expected {}", one_of(names)),
            });
            self.path.truncate(here);
        }
    }

    /// The member `name` of `object`.
    pub(super) fn member<T: Read>(&mut self, object: &Value, name: &str) -> T {
        match object.get(name) {
            None => T::absent(name, self),
            Some(value) => {
                let here = self.enter(name);
                let read = T::read(value, self);
                self.path.truncate(here);
                read
            }
        }
    }

    /// The member `name` of `object`, which may be absent.
    pub(super) fn member_or_default<T: Read + Default>(&mut self, object: &Value, name: &str) -> T {
        if object.get(name).is_some() { self.member(object, name) } else { T::default() }
    }

    /// Goes on to `segment`. Returns the length to cut the path back to.
    fn enter(&mut self, segment: &str) -> usize {
        let here = self.path.len();
        if here > 0 && !segment.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(segment);
        here
    }
}

/// `words` as a choice between them.
fn one_of(words: &[&str]) -> String {
    match words {
        [one] => format!("`{one}`"),
        [one, other] => format!("`{one}` or `{other}`"),
        _ => format!("one of `{}`", words.join("`, `")),
    }
}

macro_rules! object {
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $name:literal) => { $name };
    (@read $reader:ident $value:ident $name:expr) => { $reader.member($value, $name) };
    (@read $reader:ident $value:ident $name:expr, default) => {
        $reader.member_or_default($value, $name)
    };
    ($(#[$about:meta])* pub(super) struct $object:ident {
        $($(#[$doc:meta])* pub $field:ident : $type:ty $(as $name:literal)? $(= $default:ident)?,)*
    }) => {
        $(#[$about])*
        pub(super) struct $object { $($(#[$doc])* pub $field: $type,)* }

        impl Read for $object {
            fn read(value: &serde_json::Value, reader: &mut Reader) -> Self {
                reader.object(value, &[$(object!(@name $field $($name)?)),*]);
                Self {
                    $($field: object!(@read reader value object!(@name $field $($name)?) $(, $default)?),)*
                }
            }
        }
    };
}

macro_rules! words {
    ($(#[$about:meta])* $visible:vis enum $choice:ident {
        $(#[$first_doc:meta])* $first:ident = $first_word:literal,
        $($(#[$doc:meta])* $variant:ident = $word:literal,)*
    }) => {
        $(#[$about])*
        $visible enum $choice { $(#[$first_doc])* $first, $($(#[$doc])* $variant,)* }

        impl Read for $choice {
            fn read(value: &serde_json::Value, reader: &mut Reader) -> Self {
                match value.as_str() {
                    $(Some($word) => return Self::$variant,)*
                    Some($first_word) => {}
                    _ => reader.refuse_all_but(&[$first_word, $($word),*]),
                }
                Self::$first
            }
        }
    };
}

pub(super) use {object, words};

impl<T: Read> Read for Option<T> {
    fn read(value: &Value, reader: &mut Reader) -> Self {
        if value.is_null() { None } else { Some(T::read(value, reader)) }
    }

    fn absent(_: &str, _: &mut Reader) -> Self {
        None
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(value: &Value, reader: &mut Reader) -> Self {
        let mut list = Self::new();
        let Some(items) = value.as_array() else {
            reader.refuse("must be a list");
            return list;
        };
        for (index, item) in items.iter().enumerate() {
            let here = reader.enter(&format!("[{index}]"));
            list.push(T::read(item, reader));
            reader.path.truncate(here);
        }
        list
    }
}

impl<T: Read> Read for Named<T> {
    fn read(value: &Value, reader: &mut Reader) -> Self {
        let members = Map::read(value, reader);
        members.keys().map(|name| (name.clone(), reader.member(value, name))).collect()
    }
}

impl Read for Map<String, Value> {
    fn read(value: &Value, reader: &mut Reader) -> Self {
        match value {
            Value::Object(members) => members.clone(),
            _ => {
                reader.refuse("must be an object");
                Self::new()
            }
        }
    }
}

impl Read for Value {
    fn read(value: &Value, _: &mut Reader) -> Self {
        value.clone()
    }
}

impl Read for String {
    fn read(value: &Value, reader: &mut Reader) -> Self {
        match value {
            Value::String(text) => text.clone(),
            _ => {
                reader.refuse("must be a string");
                Self::new()
            }
        }
    }
}

impl Read for bool {
    fn read(value: &Value, reader: &mut Reader) -> Self {
        match value {
            Value::Bool(value) => *value,
            _ => {
                reader.refuse("must be a boolean");
                false
            }
        }
    }
}

macro_rules! whole_numbers {
    ($($type:ty)*) => {$(
        impl Read for $type {
            fn read(value: &Value, reader: &mut Reader) -> Self {
                match value.as_u64().map(Self::try_from) {
                    Some(Ok(number)) => number,
                    _ => {
                        reader.refuse("must be a whole number");
                        0
                    }
                }
            }
        }
    )*};
}

whole_numbers!(u16 u32 u64 usize);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    object! {
        pub(super) struct Shelf {
            pub boxes: Vec<Box>,
            pub whom: Option<String> as "for",
            pub full: bool = default,
        }
    }

    object! {
        pub(super) struct Box {
            pub size: Size,
        }
    }

    words! {
        #[derive(Debug, PartialEq)]
        pub(super) enum Size { Small = "small", VeryLarge = "very_large", }
    }

    #[test]
    fn what_may_be_absent_may_be_absent() {
        let document = json!({ "boxes": [{ "size": "small" }, { "size": "very_large" }] });

        let shelf: Shelf = read(&document).unwrap();

        let sizes: Vec<Size> = shelf.boxes.into_iter().map(|item| item.size).collect();
        assert_eq!(sizes, [Size::Small, Size::VeryLarge]);
        assert_eq!((shelf.whom, shelf.full), (None, false));
    }

    #[test]
    fn the_first_thing_wrong_is_told_with_its_path() {
        for (document, path, problem) in [
            (json!([]), "", "must be an object"),
            (json!({ "for": "x" }), "", "missing field `boxes`"),
            (json!({ "boxes": null }), "boxes", "must be a list"),
            (json!({ "boxes": [], "for": 1 }), "for", "must be a string"),
            (json!({ "boxes": [], "full": null }), "full", "must be a boolean"),
            (
                json!({ "boxes": [], "whom": "x" }),
                "whom",
                "unknown field `whom`, expected one of `boxes`, `for`, `full`",
            ),
            (json!({ "boxes": [{ "size": "small" }, {}] }), "boxes[1]", "missing field `size`"),
            (
                json!({ "boxes": [{ "size": "tall" }], "full": 1 }),
                "boxes[0].size",
                "must be `small` or `very_large`",
            ),
        ] {
            let refusal = read::<Shelf>(&document).err().unwrap();

            assert_eq!((refusal.path.as_str(), refusal.problem.as_str()), (path, problem));
        }
    }
}
