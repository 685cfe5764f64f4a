//! Finds the place of a field.
//!
//! Neither the YAML nor the JSON library tells where a value stood, but both say where an error occurred. So the
//! document is read once more, down to the field, and there an error is raised.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::model::field_path::Segment;

/// Precedes the messages of errors that we raise, so that they can be told from the libraries'.
pub(super) const OURS: &str = "\u{1}";

/// Reads nothing; fails where the path leads, if it leads anywhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Find<'p> {
    pub(super) path: &'p [Segment],
    /// How many fields of that name come before the one that is meant.
    pub(super) occurrence: usize,
}

fn found<T, E: Error>() -> Result<T, E> {
    Err(E::custom(OURS))
}

impl<'de> DeserializeSeed<'de> for Find<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// For a scalar: the path ends at it, or leads nowhere.
macro_rules! scalar {
    ($($name:ident: $kind:ty),* $(,)?) => {
        $(fn $name<E: Error>(self, _: $kind) -> Result<(), E> {
            self.at_scalar()
        })*
    };
}

impl Find<'_> {
    fn at_scalar<E: Error>(self) -> Result<(), E> {
        if self.path.is_empty() {
            found()
        } else {
            Ok(())
        }
    }
}

impl<'de> Visitor<'de> for Find<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document")
    }

    scalar!(visit_bool: bool, visit_i64: i64, visit_i128: i128, visit_u64: u64, visit_u128: u128, visit_f64: f64, visit_str: &str);

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.at_scalar()
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.at_scalar()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Some((segment, rest)) = self.path.split_first() else {
            return found();
        };
        if let Segment::Item(wanted) = segment {
            for _ in 0..*wanted {
                if items.next_element::<IgnoredAny>()?.is_none() {
                    return Ok(());
                }
            }
            items.next_element_seed(Find { path: rest, ..self })?;
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Some((segment, rest)) = self.path.split_first() else {
            return found();
        };
        let wanted = if let Segment::Field(name) = segment {
            Some(name.as_str())
        } else {
            None
        };
        let mut to_skip = if rest.is_empty() { self.occurrence } else { 0 };
        while let Some(matches) = members.next_key_seed(Key {
            wanted,
            last: rest.is_empty() && to_skip == 0,
        })? {
            if matches && !rest.is_empty() {
                members.next_value_seed(Find { path: rest, ..self })?;
            } else {
                to_skip -= usize::from(matches && to_skip > 0);
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Says whether a key is the wanted one; fails there, if the path ends with it.
struct Key<'p> {
    wanted: Option<&'p str>,
    last: bool,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Key<'_> {
    fn is<E: Error>(self, name: &str) -> Result<bool, E> {
        let matches = self.wanted == Some(name);
        if matches && self.last {
            found()
        } else {
            Ok(matches)
        }
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<bool, E> {
        self.is(name)
    }

    fn visit_bool<E: Error>(self, name: bool) -> Result<bool, E> {
        self.is(&name.to_string())
    }

    fn visit_i64<E: Error>(self, name: i64) -> Result<bool, E> {
        self.is(&name.to_string())
    }

    fn visit_u64<E: Error>(self, name: u64) -> Result<bool, E> {
        self.is(&name.to_string())
    }

    fn visit_f64<E: Error>(self, name: f64) -> Result<bool, E> {
        self.is(&name.to_string())
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        self.is("null")
    }
}
