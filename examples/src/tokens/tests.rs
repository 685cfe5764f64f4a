#![allow(clippy::unwrap_used)]

use super::*;

fn detokenize(tokens: &[u32]) -> String {
    tokens.iter().map(|token| text(*token).unwrap()).collect()
}

fn context(tokens: &[u32]) -> Context {
    tokens
        .iter()
        .fold(Context::default(), |context, token| context.with(*token))
}

fn generate(prompt: &[u32], count: usize) -> Vec<u32> {
    let mut tokens = prompt.to_vec();
    for _ in 0..count {
        tokens.push(next(context(&tokens), tokens.last().copied(), 0).unwrap());
    }
    tokens.split_off(prompt.len())
}

#[test]
fn every_text_survives_tokens() {
    for sample in [
        "",
        "hello world",
        "The sea, the  sea.\n\n",
        "päivää 🚣 x\u{0}y",
        "   ",
        "a1b2c3d4e5 lanterns",
        "\u{1}ab",
    ] {
        assert_eq!(detokenize(&tokenize(sample)), sample);
    }
}

#[test]
fn known_words_are_one_token_and_others_are_pieces_of_four_bytes() {
    assert_eq!(tokenize(" lantern").len(), 1);
    assert_eq!(tokenize("Lantern lantern").len(), 2);
    assert_eq!(tokenize("lighthouse").len(), 3);
    assert_eq!(tokenize("🚣").len(), 1);
}

#[test]
fn ids_that_no_text_gives_are_refused() {
    assert_eq!(text(u32::MAX), None);
    assert_eq!(text(WORD_BASE + 3 * 1000), None);
    assert_eq!(text(u32::from_be_bytes(*b"..ab")), None);
}

#[test]
fn generated_text_gives_the_same_tokens_again() {
    let prompt = tokenize("<|user|>\nTell me of the sea.\n<|assistant|>\n");
    let answer = generate(&prompt, 300);
    assert_eq!(tokenize(&detokenize(&answer)), answer);
    let first = detokenize(&answer[..1]);
    assert!(
        first.starts_with(|letter: char| letter.is_ascii_uppercase()),
        "{first:?}"
    );
}

#[test]
fn a_prompt_continued_by_half_an_answer_gives_the_other_half() {
    let prompt = tokenize("Once");
    let answer = generate(&prompt, 64);
    let continued = [&prompt, &answer[..20]].concat();
    assert_eq!(generate(&continued, 44), answer[20..]);
    assert_ne!(generate(&tokenize("Twice"), 64), answer);
}

#[test]
fn texts_end_about_where_they_should() {
    let mut total = 0;
    for prompt in 0..200 {
        let mut tokens = tokenize(&format!("prompt {prompt}"));
        let start = tokens.len();
        while let Some(token) = next(context(&tokens), tokens.last().copied(), 100) {
            tokens.push(token);
            assert!(
                tokens.len() < 5000,
                "the text of prompt {prompt} does not end"
            );
        }
        total += tokens.len() - start;
    }
    let mean = total / 200;
    assert!((70..140).contains(&mean), "mean length {mean}");
}
