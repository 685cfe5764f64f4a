use super::{ErrorType, ModelOutcome, Probe};

#[test]
fn tables_are_in_the_order_of_the_discriminants() {
    for (index, result) in Probe::ALL.into_iter().enumerate() {
        assert_eq!(result as usize, index);
    }
    for (index, outcome) in ModelOutcome::ALL.into_iter().enumerate() {
        assert_eq!(outcome as usize, index);
    }
    for (index, error) in ErrorType::ALL.into_iter().enumerate() {
        assert_eq!(error as usize, index);
    }
}
