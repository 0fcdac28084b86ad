//! One object of the document, read field by field by hand: derived readers are large, and these are small.

use super::fields::{Result, fail};
use super::raw;
use serde_json::{Map, Value};
use std::cell::RefCell;

/// An object whose fields are asked for by name. What nobody asked for is unknown.
pub(super) struct Object<'a> {
    pub(super) path: String,
    members: &'a Map<String, Value>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Object<'a> {
    pub(super) fn new(path: impl Into<String>, value: &'a Value) -> Result<Self> {
        let path = path.into();
        match value {
            Value::Object(members) => Ok(Self { path, members, asked: RefCell::default() }),
            _ => fail(path, "must be an object"),
        }
    }

    /// Where the field `name` stands.
    pub(super) fn at(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }

    pub(super) fn value(&self, name: &'static str) -> Option<&'a Value> {
        self.asked.borrow_mut().push(name);
        self.members.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn required(&self, name: &'static str) -> Result<&'a Value> {
        match self.value(name) {
            Some(value) => Ok(value),
            None => fail(self.at(name), "is missing"),
        }
    }

    pub(super) fn text(&self, name: &'static str) -> Result<Option<&'a str>> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => fail(self.at(name), "must be a string"),
        }
    }

    pub(super) fn required_text(&self, name: &'static str) -> Result<&'a str> {
        match self.text(name)? {
            Some(text) => Ok(text),
            None => fail(self.at(name), "is missing"),
        }
    }

    /// One of `choices`; the first one if the field is absent.
    pub(super) fn choice<T: Copy>(
        &self,
        name: &'static str,
        choices: &[(&str, T)],
        default: T,
    ) -> Result<T> {
        let Some(text) = self.text(name)? else {
            return Ok(default);
        };
        match choices.iter().find(|(choice, _)| *choice == text) {
            Some((_, meant)) => Ok(*meant),
            None => {
                let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                fail(self.at(name), format!("must be one of {}", names.join(", ")))
            }
        }
    }

    pub(super) fn flag(&self, name: &'static str, default: bool) -> Result<bool> {
        match self.value(name) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => fail(self.at(name), "must be true or false"),
        }
    }

    pub(super) fn number(&self, name: &'static str, default: u64) -> Result<u64> {
        match self.value(name) {
            None => Ok(default),
            Some(value) => match value.as_u64() {
                Some(number) => Ok(number),
                None => fail(self.at(name), "must be a whole number"),
            },
        }
    }

    pub(super) fn list(&self, name: &'static str) -> Result<&'a [Value]> {
        match self.value(name) {
            None => Ok(&[]),
            Some(Value::Array(list)) => Ok(list),
            Some(_) => fail(self.at(name), "must be a list"),
        }
    }

    pub(super) fn texts(&self, name: &'static str) -> Result<Vec<String>> {
        let mut texts = Vec::new();
        for (index, value) in self.list(name)?.iter().enumerate() {
            match value {
                Value::String(text) => texts.push(text.clone()),
                _ => return fail(format!("{}[{index}]", self.at(name)), "must be a string"),
            }
        }
        Ok(texts)
    }

    pub(super) fn object(&self, name: &'static str) -> Result<Option<Object<'a>>> {
        self.value(name).map(|value| Object::new(self.at(name), value)).transpose()
    }

    /// A secret by reference: never by value.
    pub(super) fn reference(&self, name: &'static str) -> Result<Option<raw::Reference>> {
        self.value(name).map(|value| reference(&self.at(name), value)).transpose()
    }

    /// A digest, which may stand in the document.
    pub(super) fn digest(&self, name: &'static str) -> Result<raw::Digest> {
        match self.required(name)? {
            Value::String(text) => Ok(raw::Digest::Literal(text.clone())),
            value => Ok(raw::Digest::Reference(reference(&self.at(name), value)?)),
        }
    }

    /// Every member, whatever its name.
    pub(super) fn all(self) -> &'a Map<String, Value> {
        self.members
    }

    /// Nothing is there that nobody asked for.
    pub(super) fn finish(self) -> Result<()> {
        let asked = self.asked.borrow();
        match self.members.keys().find(|name| !asked.contains(&name.as_str())) {
            Some(unknown) => fail(format!("{}.{unknown}", self.path), "unknown field"),
            None => Ok(()),
        }
    }
}

pub(super) fn reference(path: &str, value: &Value) -> Result<raw::Reference> {
    if !value.is_object() {
        return fail(path, "must be a reference: { env: NAME }");
    }
    let object = Object::new(path, value)?;
    let env = object.required_text("env")?.to_owned();
    object.finish()?;
    Ok(raw::Reference { env })
}
