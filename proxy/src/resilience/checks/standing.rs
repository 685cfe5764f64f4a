//! What the results of a check, one after the other, make of an endpoint.

/// The first result decides alone: an endpoint that is dead when it is met for the first time must not get requests for three
/// intervals, nor one that is well be held back. After that it takes some in a row.
#[derive(Debug)]
pub(super) struct Standing {
    unhealthy_after: u32,
    healthy_after: u32,
    /// `None`: not asked yet.
    failing: Option<bool>,
    /// Results in a row that say the opposite.
    against: u32,
}

impl Standing {
    pub(super) fn new(unhealthy_after: u32, healthy_after: u32) -> Standing {
        Standing {
            unhealthy_after,
            healthy_after,
            failing: None,
            against: 0,
        }
    }

    /// Takes a result in. Whether it fails, where that is news.
    pub(super) fn note(&mut self, ok: bool) -> Option<bool> {
        let Some(failing) = self.failing else {
            self.failing = Some(!ok);
            return Some(!ok);
        };
        if ok != failing {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let needed = if failing {
            self.healthy_after
        } else {
            self.unhealthy_after
        };
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.failing = Some(!failing);
        Some(!failing)
    }
}

#[cfg(test)]
mod tests {
    use super::Standing;

    #[test]
    fn the_first_decides_and_then_some_in_a_row() {
        let run = |results: &str| -> Vec<Option<bool>> {
            let mut standing = Standing::new(3, 2);
            results
                .bytes()
                .map(|byte| standing.note(byte == b'+'))
                .collect()
        };
        assert_eq!(run("-"), [Some(true)]);
        assert_eq!(run("+--+---")[4..], [None, None, Some(true)]);
        assert_eq!(run("+--+--")[1..], [None; 5]);
        assert_eq!(run("-+-++")[1..], [None, None, None, Some(false)]);
    }
}
