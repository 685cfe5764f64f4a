//! Conditions on headers.

use std::cell::RefCell;

use http::{HeaderMap, HeaderName};

use super::string::StringMatch;

/// The buffer for joined values is given back when a request made it larger than this, bytes.
const KEPT: usize = 4096;

/// A condition on one header. A header that is absent never matches.
///
/// One that occurs several times counts as its values joined by commas, as Envoy does and RFC 9110 (section 5.2) allows:
/// `x-tier: gold` next to `x-tier: free` is `gold,free`, and not `gold`. To let any value match would allow a client to
/// pick a rule by adding to a header that somebody before the sidecar had set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    pub name: HeaderName,
    pub value: StringMatch,
}

impl HeaderMatch {
    pub fn matches(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(&self.name).iter();
        let Some(first) = values.next() else {
            return false;
        };
        let Some(second) = values.next() else {
            return self.value.matches(first.as_bytes());
        };
        thread_local! {
            static JOINED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        JOINED.with_borrow_mut(|joined| {
            joined.clear();
            joined.extend_from_slice(first.as_bytes());
            for value in [second].into_iter().chain(values) {
                joined.push(b',');
                joined.extend_from_slice(value.as_bytes());
            }
            let matches = self.value.matches(joined);
            if joined.capacity() > KEPT {
                *joined = Vec::new();
            }
            matches
        })
    }
}
