use proptest::prelude::*;

use super::*;

fn read(messages: &[&[u8]]) -> Prompt {
    let mut reader = PromptReader::new(b"llama");
    for message in messages {
        reader.text(message);
        reader.end_of_message();
    }
    reader.finish_by_bytes()
}

fn hashes(prompt: &Prompt) -> Vec<u64> {
    prompt.marks().iter().map(|mark| mark.hash).collect()
}

#[test]
fn marks_stand_behind_the_model_the_first_messages_and_at_doubling_lengths() {
    let (system, question) = ([b's'; 1000], [b'q'; 100]);
    let prompt = read(&[&system, &question]);
    let tokens: Vec<u32> = prompt.marks().iter().map(|mark| mark.tokens).collect();
    assert_eq!(tokens, [0, 128, 250, 256, 275]);
    assert_eq!(prompt.tokens(), 275);
    assert_eq!(read(&[]).marks().len(), 1, "the model alone");
}

#[test]
fn a_conversation_keeps_its_marks_while_it_grows() {
    let first = read(&[b"be brief", b"hello"]);
    let later = read(&[b"be brief", b"hello", b"hi", b"how are you?", b"well"]);
    assert_eq!(hashes(&first), hashes(&later)[..3]);
    assert_eq!(later.marks().len(), 5, "model, three messages, the whole");
}

#[test]
fn where_a_message_ends_and_which_model_reads_it_makes_a_difference() {
    assert_ne!(hashes(&read(&[b"ab", b"c"])), hashes(&read(&[b"a", b"bc"])));
    let other = PromptReader::new(b"mistral").finish_by_bytes();
    assert_ne!(hashes(&other), hashes(&read(&[])));
}

#[test]
fn hashes_are_the_same_in_all_versions() {
    // XXH64 of "llama" and the byte 0xff, worked out by its specification.
    assert_eq!(hashes(&read(&[]))[0], 0x9626_9ea3_5b50_3d15);
}

#[test]
fn a_prompt_without_end_has_sixteen_marks() {
    let mut reader = PromptReader::new(b"");
    for _ in 0..3 {
        reader.text(b"x");
        reader.end_of_message();
    }
    for _ in 0..2000 {
        reader.text(&[b'x'; 1000]);
    }
    let prompt = reader.finish_by_bytes();
    assert_eq!(prompt.marks().len(), MAX_MARKS);
    assert_eq!(prompt.marks()[MAX_MARKS - 2].tokens, 512 * 1024 / 4);
    assert_eq!(prompt.tokens(), 500_001);
}

proptest! {
    #[test]
    fn pieces_make_no_difference(text in prop::collection::vec(any::<u8>(), 0..5000), cuts in prop::collection::vec(0_usize..5000, 0..10)) {
        let whole = read(&[&text]);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
        cuts.sort_unstable();
        let mut reader = PromptReader::new(b"llama");
        for piece in cuts.windows(2) {
            reader.text(&text[piece[0]..piece[1]]);
        }
        reader.end_of_message();
        prop_assert_eq!(reader.finish_by_bytes(), whole);
    }

    #[test]
    fn prompts_share_the_marks_of_what_they_share(shared in 0_usize..5000, a in 1_usize..3000, b in 1_usize..3000) {
        let text = |last: u8, more: usize| [vec![b'x'; shared], vec![last; more]].concat();
        let (a, b) = (read(&[&text(b'a', a)]), read(&[&text(b'b', b)]));
        for (a, b) in a.marks().iter().zip(b.marks()) {
            let both = u64::from(a.tokens.max(b.tokens)) <= shared as u64 / 4;
            prop_assert!(!both || a == b);
        }
        let last = |prompt: &Prompt| prompt.marks().last().copied();
        prop_assert_ne!(last(&a), last(&b));
    }
}
