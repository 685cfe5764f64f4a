//! Meters for tests of streams.

use std::sync::Arc;
use std::time::Duration;

use super::{Bucket, Counted, Counts, Hub, Meter, Part, TokenBudget};

/// Of a request with no prompt, of a budget with so many tokens of which none are reserved.
pub(crate) fn meter(tokens: u64, hard_limit: bool) -> Meter {
    reserved(tokens, hard_limit, 0, 0).0
}

/// As [`meter`], with a prompt of so many tokens, and so many reserved. The budget counts what is used.
pub(crate) fn reserved(
    tokens: u64,
    hard_limit: bool,
    input: u64,
    reserved: u64,
) -> (Meter, Arc<TokenBudget>) {
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
    let part = Part::new(&budget, Arc::new(bucket), reserved);
    (Meter::new(vec![part], input), budget)
}
