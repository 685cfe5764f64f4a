#![allow(clippy::unwrap_used)]

use super::*;
use crate::SECOND;

#[test]
fn mooncake_prompts_share_what_their_hashes_say() {
    let text = r#"
{"timestamp": 1000, "input_length": 1100, "output_length": 20, "hash_ids": [1, 2, 3]}
{"timestamp": 3500, "input_length": 1500, "output_length": 0, "hash_ids": [1, 2, 4]}
"#;
    let requests = parse(text, Format::Mooncake, 10, 2.0).unwrap();
    assert_eq!((requests[0].at, requests[1].at), (0, SECOND * 5 / 4));
    assert_eq!(
        (requests[1].prompt_tokens, requests[1].output_tokens),
        (1500, 1)
    );
    assert_eq!(requests[0].chain[..64], requests[1].chain[..64]);
    assert_ne!(requests[0].chain[64], requests[1].chain[64]);
    let problem = parse("{\"timestamp\": 1}", Format::Mooncake, 10, 1.0).unwrap_err();
    assert!(
        format!("{problem:#}").starts_with("line 1: missing field"),
        "{problem:#}"
    );
}

#[test]
fn tables_are_read_by_the_names_of_their_columns() {
    let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 23:59:59.5,374,44\n2023-11-17 00:00:01.0000000,396,109\n";
    let requests = parse(azure, Format::Azure, 10, 1.0).unwrap();
    assert_eq!((requests[0].at, requests[1].at), (0, SECOND * 3 / 2));
    assert_eq!(
        (requests[1].prompt_tokens, requests[1].output_tokens),
        (396, 109)
    );
    let burst = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,x\n45,ChatGPT,1087,0,1087,x\n";
    assert_eq!(
        parse(burst, Format::Burstgpt, 10, 1.0).unwrap().len(),
        1,
        "failed ones are left out"
    );
    let problem = parse("Time\n", Format::Burstgpt, 10, 1.0).unwrap_err();
    assert_eq!(
        problem.to_string(),
        "no column \"Timestamp\"; there are Time"
    );
}
