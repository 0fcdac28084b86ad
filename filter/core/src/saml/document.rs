//! The XML that SAML messages are made of, with bounds: elements, attributes, text.
//!
//! Not XML at large, and never more lenient: a DTD (hence any entity), a comment, a CDATA section, a
//! processing instruction, an encoding other than UTF-8 and a name that is not ASCII are refused. There
//! is no recursion.

use super::Fault;

/// Most elements.
const MAX_ELEMENTS: usize = 2048;
/// Most attributes of an element, declarations of namespaces among them.
const MAX_ATTRIBUTES: usize = 32;
/// Deepest nesting.
const MAX_DEPTH: usize = 64;
/// What XML takes for blank (XML 1.0 §2.3).
const BLANK: [char; 4] = [' ', '\t', '\r', '\n'];
/// Namespaces that are not to be declared (Namespaces in XML 1.0 §3).
const RESERVED: [&str; 2] =
    ["http://www.w3.org/XML/1998/namespace", "http://www.w3.org/2000/xmlns/"];

/// An element.
pub struct Element<'a> {
    /// Place of the element it is in; its own for the root.
    parent: usize,
    namespace: &'a str,
    name: &'a str,
    /// As written: names with their prefix, values with their references.
    attributes: Vec<Attribute<'a>>,
    /// As written. `None` if elements are in it.
    text: Option<&'a str>,
}

type Attribute<'a> = (&'a str, &'a str);

/// Namespace and local name.
pub type Name = (&'static str, &'static str);

/// All elements, in the order they begin. The root is the first.
pub struct Document<'a>(Vec<Element<'a>>);

impl<'a> Document<'a> {
    /// Every element.
    pub fn elements(&'a self) -> impl Iterator<Item = Node<'a>> {
        let document = self.0.as_slice();
        document.iter().enumerate().map(move |(place, element)| Node { document, place, element })
    }
}

/// One element of a document.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    document: &'a [Element<'a>],
    place: usize,
    element: &'a Element<'a>,
}

impl<'a> Node<'a> {
    /// Whether this is its name.
    pub fn is(self, name: Name) -> bool {
        (self.element.namespace, self.element.name) == name
    }

    /// Its local name.
    pub fn local_name(self) -> &'a str {
        self.element.name
    }

    /// Whether it is the outermost element.
    pub fn is_root(self) -> bool {
        self.place == 0
    }

    /// The local name of the element it is in; its own for the root.
    pub fn parent_name(self) -> &'a str {
        self.document.get(self.element.parent).map_or("", |parent| parent.name)
    }

    /// The elements in it.
    pub fn children(self) -> impl Iterator<Item = Node<'a>> {
        let Node { document, place: parent, .. } = self;
        let later = document.iter().enumerate().skip(parent + 1);
        later
            .filter(move |(_, element)| element.parent == parent)
            .map(move |(place, element)| Node { document, place, element })
    }

    /// The elements of this name in it.
    pub fn each(self, name: Name) -> impl Iterator<Item = Node<'a>> {
        self.children().filter(move |node| node.is(name))
    }

    /// The one element of this name in it.
    pub fn only(self, name: Name) -> Result<Node<'a>, Fault> {
        let mut nodes = self.each(name);
        match (nodes.next(), nodes.next()) {
            (Some(node), None) => Ok(node),
            _ => Err(Fault::Missing(name.1)),
        }
    }

    /// The attribute `name`, of no namespace, as written.
    pub fn attribute(self, name: &'static str) -> Result<&'a str, Fault> {
        self.optional(name).ok_or(Fault::Missing(name))
    }

    /// As [`Self::attribute`], if it is there.
    pub fn optional(self, name: &str) -> Option<&'a str> {
        self.attributes().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// All attributes: names with their prefix, values as written.
    pub fn attributes(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.element.attributes.iter().copied()
    }

    /// Whether it holds exactly this text and no element. Nothing is trimmed; of the references only
    /// `&amp;` is read, the one that an identifier which is a URI needs.
    pub fn says(self, text: &str) -> bool {
        self.element.text.is_some_and(|written| written == text.replace('&', "&amp;"))
    }
}

struct Open<'a> {
    place: usize,
    tag: &'a str,
    /// How many namespaces were in scope around it.
    scope: usize,
}

#[derive(Default)]
struct Reader<'a> {
    elements: Vec<Element<'a>>,
    open: Vec<Open<'a>>,
    /// Prefix and namespace; the last one of a prefix counts.
    scope: Vec<(&'a str, &'a str)>,
}

/// Reads `xml`.
pub fn parse(xml: &str) -> Result<Document<'_>, Fault> {
    // A DTD, a comment or a CDATA section; nothing else may have this in it.
    if xml.contains("<!") {
        return Err(Fault::Markup);
    }
    if !xml.chars().all(is_char) || !has_sound_references(xml) || xml.contains("]]>") {
        return Err(Fault::Xml);
    }
    let text = after_declaration(xml)?;
    let mut reader = Reader::default();
    // A `<` is always markup, in the value of an attribute too (XML 1.0 §2.4).
    let mut parts = text.split('<');
    if parts.next().is_none_or(|before| !is_blank(before)) {
        return Err(Fault::Xml);
    }
    for part in parts {
        let after = match part.as_bytes().first() {
            Some(b'?') => return Err(Fault::Markup),
            Some(b'/') => reader.end(part)?,
            _ => reader.start(part)?,
        };
        if reader.open.is_empty() && !is_blank(after) {
            return Err(Fault::Xml);
        }
    }
    if reader.elements.is_empty() || !reader.open.is_empty() {
        return Err(Fault::Xml);
    }
    Ok(Document(reader.elements))
}

impl<'a> Reader<'a> {
    /// The end tag in `part`. Returns what follows it.
    fn end(&mut self, part: &'a str) -> Result<&'a str, Fault> {
        let (tag, after) = part.split_once('>').ok_or(Fault::Xml)?;
        let open = self.open.pop().ok_or(Fault::Xml)?;
        if tag.strip_prefix('/').map(|tag| tag.trim_end_matches(BLANK)) != Some(open.tag) {
            return Err(Fault::Xml);
        }
        self.scope.truncate(open.scope);
        Ok(after)
    }

    /// The start tag in `part`. Returns what follows it.
    fn start(&mut self, part: &'a str) -> Result<&'a str, Fault> {
        let place = self.elements.len();
        if place == MAX_ELEMENTS || self.open.len() == MAX_DEPTH {
            return Err(Fault::TooLarge);
        }
        let parent = match self.open.last() {
            Some(open) => open.place,
            None if place == 0 => 0,
            None => return Err(Fault::Xml),
        };
        if let Some(parent) = self.elements.get_mut(parent) {
            parent.text = None;
        }
        let end = part.find(|c| BLANK.contains(&c) || c == '/' || c == '>').ok_or(Fault::Xml)?;
        let (tag, rest) = part.split_at_checked(end).ok_or(Fault::Xml)?;
        let (attributes, end, after) = attributes(rest)?;
        let scope = self.scope.len();
        let namespace = self.namespace(qualified(tag)?.0, &attributes)?;
        let name = qualified(tag)?.1;
        let text = match end {
            ">" => {
                self.open.push(Open { place, tag, scope });
                after
            }
            "/>" => {
                self.scope.truncate(scope);
                ""
            }
            _ => return Err(Fault::Xml),
        };
        self.elements.push(Element { parent, namespace, name, attributes, text: Some(text) });
        Ok(after)
    }

    /// Takes the namespaces that `attributes` declare into scope; the namespace of `prefix` then.
    fn namespace(&mut self, prefix: &str, attributes: &[Attribute<'a>]) -> Result<&'a str, Fault> {
        for (name, value) in attributes {
            let prefix = match qualified(name)? {
                ("", "xmlns") => "",
                ("xmlns", prefix) if !prefix.starts_with("xml") && !value.is_empty() => prefix,
                ("xmlns", _) => return Err(Fault::Xml),
                _ => continue,
            };
            // A reference could spell the name of one namespace in two ways.
            if value.contains('&') || RESERVED.contains(value) {
                return Err(Fault::Xml);
            }
            self.scope.push((prefix, value));
        }
        for (name, _) in attributes {
            let (prefix, _) = qualified(name)?;
            if !matches!(prefix, "" | "xml" | "xmlns") {
                self.resolve(prefix)?;
            }
        }
        self.resolve(prefix)
    }

    fn resolve(&self, prefix: &str) -> Result<&'a str, Fault> {
        let mut inner = self.scope.iter().rev();
        match inner.find(|(other, _)| *other == prefix) {
            Some((_, namespace)) => Ok(namespace),
            None if prefix.is_empty() => Ok(""),
            None => Err(Fault::Xml),
        }
    }
}

/// The attributes in `rest` of a tag, what ends it, and what follows it.
fn attributes(mut rest: &str) -> Result<(Vec<Attribute<'_>>, &'static str, &str), Fault> {
    let mut attributes = Vec::new();
    loop {
        let next = rest.trim_start_matches(BLANK);
        for end in [">", "/>", "?>"] {
            if let Some(after) = next.strip_prefix(end) {
                return Ok((attributes, end, after));
            }
        }
        let (name, value) = next.split_once('=').ok_or(Fault::Xml)?;
        let name = name.trim_end_matches(BLANK);
        let value = value.trim_start_matches(BLANK);
        let quote = if value.starts_with('"') { '"' } else { '\'' };
        let value = value.strip_prefix(quote).and_then(|value| value.split_once(quote));
        let (value, after) = value.ok_or(Fault::Xml)?;
        // Two of one local name could be one attribute under two prefixes.
        let (prefix, local) = qualified(name)?;
        let is_same = |(other, _): &Attribute<'_>| {
            let Ok((other, name)) = qualified(other) else { return true };
            name == local && (other == "xmlns") == (prefix == "xmlns")
        };
        if next.len() == rest.len() || attributes.iter().any(is_same) {
            return Err(Fault::Xml);
        }
        if attributes.len() == MAX_ATTRIBUTES {
            return Err(Fault::TooLarge);
        }
        attributes.push((name, value));
        rest = after;
    }
}

/// Prefix, empty if there is none, and local name.
fn qualified(name: &str) -> Result<(&str, &str), Fault> {
    let (prefix, local) = name.split_once(':').unwrap_or(("", name));
    let is_name = |name: &str| {
        let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        starts && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
    };
    if is_name(local) && (is_name(prefix) || !name.contains(':')) {
        return Ok((prefix, local));
    }
    Err(Fault::Xml)
}

fn is_blank(text: &str) -> bool {
    text.trim_start_matches(BLANK).is_empty()
}

/// What follows the XML declaration, if there is one (XML 1.0 §2.8). It must name UTF-8 if it names an
/// encoding: another reader may believe it.
fn after_declaration(xml: &str) -> Result<&str, Fault> {
    let Some(rest) = xml.strip_prefix("<?xml") else {
        return Ok(xml);
    };
    let (attributes, end, after) = attributes(rest)?;
    let (encoding, standalone) = match attributes.as_slice() {
        [("version", "1.0")] => ("utf-8", "no"),
        [("version", "1.0"), ("encoding", encoding)] => (*encoding, "no"),
        [("version", "1.0"), ("encoding", encoding), ("standalone", alone)] => (*encoding, *alone),
        _ => return Err(Fault::Xml),
    };
    if !encoding.eq_ignore_ascii_case("utf-8") {
        return Err(Fault::Charset);
    }
    if end == "?>" && matches!(standalone, "yes" | "no") { Ok(after) } else { Err(Fault::Xml) }
}

/// XML 1.0 §2.2.
fn is_char(c: char) -> bool {
    (c >= ' ' || BLANK.contains(&c)) && !matches!(c, '\u{fffe}' | '\u{ffff}')
}

/// Whether each `&` begins a reference to a character. None is resolved.
fn has_sound_references(xml: &str) -> bool {
    xml.split('&').skip(1).all(|rest| {
        let name = rest.split_once(';').map_or("", |(name, _)| name);
        let Some(number) = name.strip_prefix('#') else {
            return matches!(name, "amp" | "lt" | "gt" | "quot" | "apos");
        };
        let (digits, radix) = number.strip_prefix('x').map_or((number, 10), |hex| (hex, 16));
        let is_number = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_number
            && u32::from_str_radix(digits, radix).ok().and_then(char::from_u32).is_some_and(is_char)
    })
}
