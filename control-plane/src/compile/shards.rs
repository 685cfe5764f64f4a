//! A map that is cheap to copy and then change a little: a new state shares all but the touched parts with the old one.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

/// With 10,000 services, a change copies about 40 pointers.
const SHARDS: usize = 256;

/// A map from names, split into parts that are shared until they are changed.
#[derive(Clone, Debug)]
pub struct Shards<V> {
    parts: Vec<Arc<HashMap<Arc<str>, V>>>,
}

impl<V: Clone> Shards<V> {
    pub fn get(&self, name: &str) -> Option<&V> {
        self.parts[index(name)].get(name)
    }

    pub fn insert(&mut self, name: Arc<str>, value: V) -> Option<V> {
        Arc::make_mut(&mut self.parts[index(&name)]).insert(name, value)
    }

    pub fn remove(&mut self, name: &str) -> Option<V> {
        let part = &mut self.parts[index(name)];
        // A look first: removing nothing should copy nothing.
        part.contains_key(name)
            .then(|| Arc::make_mut(part).remove(name))
            .flatten()
    }
}

impl<V> Default for Shards<V> {
    fn default() -> Self {
        Shards {
            parts: (0..SHARDS).map(|_| Arc::default()).collect(),
        }
    }
}

fn index(name: &str) -> usize {
    // Unkeyed, so that all copies agree. Uneven parts cost a little time and nothing else.
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(name);
    (hash % SHARDS as u64) as usize
}
