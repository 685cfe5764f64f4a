use super::Prefixes;

fn hashes(model: &str, pieces: [&str; 3]) -> Vec<u64> {
    Prefixes::new(model, pieces.map(str::as_bytes), 16).collect()
}

#[test]
fn equal_beginnings_have_equal_hashes() {
    let one = hashes(
        "m",
        [
            "a long system prompt of the application",
            "",
            "question one, which is long",
        ],
    );
    let other = hashes(
        "m",
        [
            "a long system prompt of the application",
            "",
            "question two, which is long",
        ],
    );
    assert_eq!((one.len(), other.len()), (4, 4));
    assert_eq!(one[..2], other[..2]);
    assert_ne!(one[3], other[3]);
    let of_another = hashes("n", ["a long system prompt of the application", "", ""]);
    assert_ne!(one[0], of_another[0]);
}

#[test]
fn only_full_blocks_have_a_hash() {
    assert!(hashes("m", ["", "", "fifteen bytes.."]).is_empty());
    assert_eq!(hashes("m", ["", "", "sixteen bytes..."]).len(), 1);
    assert!(hashes("m", ["", "", ""]).is_empty());
}

#[test]
fn the_figures_stay() {
    // Sidecars of different versions must agree.
    assert_eq!(
        hashes("m", ["", "", "sixteen bytes..."]),
        [212_374_940_823_629_734]
    );
}
