use http::StatusCode;

use super::*;
use crate::admission::tokens::testing;

/// Tokens that a budget counts for a request with a prompt of 10, for which 100 were reserved.
fn counted(status: Option<u16>, reason: Option<Reason>, sent: bool, report: Option<Report>) -> u64 {
    let (meter, budget) = testing::reserved(1000, false, 10, 100);
    if sent {
        meter.send();
    }
    let request = ModelRequest::new(Api::Chat);
    let account = Account {
        meter: Some(Rc::new(meter)),
        report: report.map(Rc::new),
        ..Account::new(&request, &Arc::default())
    };
    account.settle(&Outcome {
        status: status.and_then(|status| StatusCode::from_u16(status).ok()),
        reason,
        ..Outcome::default()
    });
    let settled = budget.counts.spent();
    drop(account);
    assert_eq!(budget.counts.spent(), settled, "settled twice");
    settled
}

#[test]
fn what_is_counted_of_requests_whose_answer_says_nothing() {
    let gone = Some(Reason::ClientGone);
    // An error of the server, and a refusal of our own.
    assert_eq!(counted(Some(500), None, true, None), 0);
    assert_eq!(counted(Some(503), Some(Reason::Overloaded), false, None), 0);
    assert_eq!(counted(None, Some(Reason::ConnectFailed), true, None), 0);
    // The client went away: in the queue, before the answer.
    assert_eq!(counted(Some(499), gone, false, None), 0);
    assert_eq!(counted(Some(499), gone, true, None), 10);
    assert_eq!(counted(None, gone, true, None), 10);
    // An answer that is not read.
    assert_eq!(counted(Some(200), None, true, None), 100);
}

#[test]
fn what_is_counted_of_answers() {
    let stream = |data: &str| Some(Report::of(Api::Chat, true, data.as_bytes()));
    let token = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n";
    let usage =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5}}\n\n";
    let done = "data: [DONE]\n\n";
    let gone = Some(Reason::ClientGone);
    // With usage; pieces where there is none; as far as it went where it was cut.
    let whole = format!("{token}{token}{usage}{done}");
    assert_eq!(counted(Some(200), None, true, stream(&whole)), 12);
    let silent = format!("{token}{token}{done}");
    assert_eq!(counted(Some(200), None, true, stream(&silent)), 12);
    assert_eq!(counted(Some(200), gone, true, stream(token)), 11);
    // What was said at the beginning is not the end of it.
    let early =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":1}}\n\n";
    let cut = format!("{early}{token}{token}{token}");
    assert_eq!(counted(Some(200), gone, true, stream(&cut)), 10);
    let json = |data: &str| Some(Report::of(Api::Chat, false, data.as_bytes()));
    let answer = "{\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":30}}";
    assert_eq!(counted(Some(200), None, true, json(answer)), 38);
    assert_eq!(counted(Some(200), None, true, json("{}")), 100);
}
