//! Meters for tests of streams.

use std::sync::Arc;
use std::time::Duration;

use super::{Bucket, Counted, Counts, Hub, Meter, Part, TokenBudget};

/// Of a request with no prompt, of a budget with so many tokens of which none are reserved.
pub(crate) fn meter(tokens: u64, hard_limit: bool) -> Meter {
    let budget = Arc::new(TokenBudget {
        service: "default/chat".into(),
        policy: "default/limits".into(),
        name: "tokens".into(),
        matches: Vec::new(),
        key: Vec::new(),
        tokens,
        per: Duration::from_secs(3600),
        counted: Counted::Total,
        shared: false,
        hard_limit,
        default_max_tokens: 1,
        advance: 0,
        always_report: false,
        counts: Arc::new(Counts::new(&[], 1, &Arc::new(Hub::default()))),
    });
    let bucket = Bucket::new(Default::default(), "".into(), 0, tokens, 0);
    Meter::new(vec![Part::new(&budget, Arc::new(bucket), 0)], 0)
}
