//! Reads a document strictly: no key twice, no tags, nothing that JSON cannot say, and within bounds, however
//! small the text is that unfolds into it.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde_json::{Map, Number, Value};

use super::find::OURS;
use crate::model::Problem;
use crate::model::field_path::{FieldPath, Segment};

/// Mappings and lists within each other; resources need 8.
const MAX_DEPTH: usize = 32;
/// Values in a document, aliases unfolded. The largest resources that the schema allows have about half of it.
const MAX_VALUES: usize = 200_000;
/// Bytes of text in a document, aliases unfolded.
const MAX_TEXT: usize = 4 * 1024 * 1024;

pub(super) const TOO_DEEP: &str =
    "the document is nested too deeply; at most 32 levels are allowed";
pub(super) const TOO_LARGE: &str = "the document is too large once its aliases are unfolded";

/// A document, and what is wrong with it already.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) value: Value,
    pub(super) problems: Vec<Found>,
    path: FieldPath,
    values: usize,
    text: usize,
}

/// A problem with the field of which `occurrence` others with the same path come before.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) problem: Problem,
    pub(super) occurrence: usize,
}

impl Tree {
    fn problem(&mut self, message: impl Into<String>, occurrence: usize) {
        // Nobody reads more, and each costs another reading of the document.
        if self.problems.len() < 25 {
            let problem = Problem::new(self.path.to_string(), message);
            self.problems.push(Found {
                problem,
                occurrence,
            });
        }
    }

    fn count<E: Error>(&mut self, text: usize) -> Result<(), E> {
        self.values += 1;
        self.text += text;
        if self.values > MAX_VALUES || self.text > MAX_TEXT {
            return Err(E::custom(format!("{OURS}{TOO_LARGE}")));
        }
        Ok(())
    }
}

/// Reads one value into a [`Tree`].
#[derive(Debug)]
pub(super) struct TreeSeed<'t> {
    tree: &'t mut Tree,
}

impl<'t> TreeSeed<'t> {
    pub(super) fn new(tree: &'t mut Tree) -> Self {
        Self { tree }
    }

    fn scalar<E: Error>(self, value: Value) -> Result<Value, E> {
        self.tree.count(0)?;
        Ok(value)
    }

    fn refused<E: Error>(self, message: String) -> Result<Value, E> {
        self.tree.problem(message, 0);
        self.scalar(Value::Null)
    }

    fn enter<E: Error>(&mut self, segment: Segment) -> Result<TreeSeed<'_>, E> {
        if self.tree.path.0.len() == MAX_DEPTH {
            return Err(E::custom(format!("{OURS}{TOO_DEEP}")));
        }
        self.tree.path.0.push(segment);
        Ok(TreeSeed { tree: self.tree })
    }

    fn leave(&mut self) {
        self.tree.path.0.pop();
    }
}

impl<'de> DeserializeSeed<'de> for TreeSeed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TreeSeed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.scalar(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        self.scalar(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.scalar(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.scalar(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.scalar(value.into())
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Value, E> {
        self.refused(format!("the number {value} is too large"))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Value, E> {
        self.refused(format!("the number {value} is too large"))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        match Number::from_f64(value) {
            Some(number) => self.scalar(Value::Number(number)),
            None => self.refused(format!(
                "{value} is not a number that can be used; it must be finite"
            )),
        }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.tree.count(value.len())?;
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        self.tree.count(value.len())?;
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        self.tree.count(0)?;
        let mut values = Vec::new();
        loop {
            let seed = self.enter(Segment::Item(values.len()))?;
            let item = items.next_element_seed(seed)?;
            self.leave();
            match item {
                Some(item) => values.push(item),
                None => return Ok(Value::Array(values)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Value, A::Error> {
        self.tree.count(0)?;
        let mut values = Map::new();
        let mut again = std::collections::BTreeMap::<String, usize>::new();
        while let Some(key) = members.next_key_seed(KeySeed)? {
            self.tree.count(key.text.len())?;
            let seed = self.enter(Segment::Field(key.text.clone()))?;
            if let Some(written) = &key.not_text {
                let message = format!(
                    "the key {written} is not text; put it in quotes: \"{}\"",
                    key.text
                );
                seed.tree.problem(message, 0);
            }
            if values.contains_key(&key.text) {
                let occurrence = again.entry(key.text.clone()).or_default();
                *occurrence += 1;
                seed.tree
                    .problem("the field is given twice; give it once", *occurrence);
            }
            let value = members.next_value_seed(seed)?;
            self.leave();
            values.entry(key.text).or_insert(value);
        }
        Ok(Value::Object(values))
    }

    /// A tag, as in `!secret x`.
    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Value, A::Error> {
        let (tag, content) = data.variant::<String>()?;
        self.tree
            .problem(format!("the tag !{tag} is not supported; leave it out"), 0);
        content.newtype_variant_seed(self)
    }
}

/// A key. YAML has others than text; they are reported.
struct Key {
    text: String,
    not_text: Option<String>,
}

struct KeySeed;

impl KeySeed {
    fn other<E: Error>(text: &impl ToString) -> Result<Key, E> {
        let text = text.to_string();
        Ok(Key {
            not_text: Some(text.clone()),
            text,
        })
    }
}

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for KeySeed {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text as a key")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Key, E> {
        Ok(Key {
            text: text.to_owned(),
            not_text: None,
        })
    }

    fn visit_bool<E: Error>(self, key: bool) -> Result<Key, E> {
        Self::other(&key)
    }

    fn visit_i64<E: Error>(self, key: i64) -> Result<Key, E> {
        Self::other(&key)
    }

    fn visit_u64<E: Error>(self, key: u64) -> Result<Key, E> {
        Self::other(&key)
    }

    fn visit_f64<E: Error>(self, key: f64) -> Result<Key, E> {
        Self::other(&key)
    }

    fn visit_unit<E: Error>(self) -> Result<Key, E> {
        Self::other(&"null")
    }
}
