//! From the engine's events to pieces of text: stop strings, and faults in the middle of an answer.

use tokio_util::sync::CancellationToken;

use crate::engine::{Event, FinishReason, Generation};
use crate::faults::{Die, Verdict};
use crate::tokens;

/// What an answer is made of.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text, with the tokens that it is made of.
    Text {
        /// May be empty where a stop string may be about to come.
        text: String,
        /// Token ids since the last piece.
        tokens: Vec<u32>,
    },
    /// The end.
    End(FinishReason),
    /// A fault on demand: the answer ends with an error.
    Broken,
}

/// Tokens counted for one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Those of them that were in the prefix cache.
    pub cached: usize,
    /// Tokens generated.
    pub completion: usize,
}

impl Usage {
    /// The OpenAI API's object.
    pub fn json(self) -> serde_json::Value {
        serde_json::json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        })
    }
}

/// One answer as it is made. Dropping it cancels the generation.
#[derive(Debug)]
pub struct Output {
    generation: Option<Generation>,
    stops: StopFilter,
    verdict: Verdict,
    connection: CancellationToken,
    usage: Usage,
    pending: Vec<u32>,
    /// What follows the text that was held back.
    after: Option<Piece>,
}

impl Output {
    /// Follows a generation. `connection` is cancelled where a fault closes it.
    pub fn new(
        generation: Generation,
        prompt_tokens: usize,
        stops: Vec<String>,
        verdict: Verdict,
        connection: CancellationToken,
    ) -> Self {
        Self {
            generation: Some(generation),
            stops: StopFilter::new(stops),
            verdict,
            connection,
            usage: Usage {
                prompt: prompt_tokens,
                ..Usage::default()
            },
            pending: Vec::new(),
            after: None,
        }
    }

    /// Tokens so far.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// The next piece. After [`Piece::End`] or [`Piece::Broken`] there is none.
    pub async fn next(&mut self) -> Piece {
        if let Some(piece) = self.after.take() {
            return piece;
        }
        loop {
            if self
                .verdict
                .error_after
                .is_some_and(|after| self.usage.completion >= after)
            {
                self.finish(FinishReason::Error);
                return Piece::Broken;
            }
            if let Some((after, die)) = self.verdict.die
                && self.usage.completion >= after
            {
                match die {
                    Die::Exit => std::process::exit(1),
                    Die::Close => {
                        self.finish(FinishReason::Error);
                        self.connection.cancel();
                        // The connection's task drops this answer together with everything else on it.
                        std::future::pending::<()>().await;
                    }
                }
            }
            let Some(generation) = &mut self.generation else {
                return Piece::End(FinishReason::Stop);
            };
            match generation.next().await {
                Event::Prefilled { cached_tokens } => self.usage.cached = cached_tokens,
                Event::Token(token) => {
                    self.usage.completion += 1;
                    self.pending.push(token);
                    let (text, stopped) = self.stops.push(&tokens::text(token).unwrap_or_default());
                    if stopped {
                        self.finish(FinishReason::Stop);
                        self.after = Some(Piece::End(FinishReason::Stop));
                    }
                    if stopped || !text.is_empty() {
                        return Piece::Text {
                            text,
                            tokens: std::mem::take(&mut self.pending),
                        };
                    }
                }
                Event::Finished(reason) => {
                    let text = self.stops.rest();
                    if text.is_empty() && self.pending.is_empty() {
                        return Piece::End(reason);
                    }
                    self.after = Some(Piece::End(reason));
                    return Piece::Text {
                        text,
                        tokens: std::mem::take(&mut self.pending),
                    };
                }
            }
        }
    }

    fn finish(&mut self, reason: FinishReason) {
        if let Some(generation) = self.generation.take() {
            generation.finish(reason);
        }
    }
}

/// Finds stop strings in a text that comes in pieces, and holds back what may be the start of one.
#[derive(Debug)]
struct StopFilter {
    stops: Vec<String>,
    held: String,
}

impl StopFilter {
    fn new(stops: Vec<String>) -> Self {
        Self {
            stops,
            held: String::new(),
        }
    }

    /// Adds text. Returns what is certain not to belong to a stop string, and whether one has come.
    fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        if let Some(at) = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop))
            .min()
        {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let certain = (0..=self.held.len())
            .filter(|at| self.held.is_char_boundary(*at))
            .find(|at| {
                self.stops
                    .iter()
                    .any(|stop| *at < self.held.len() && stop.starts_with(&self.held[*at..]))
            })
            .unwrap_or(self.held.len());
        let rest = self.held.split_off(certain);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What was held back, at the end of the text.
    fn rest(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut filter = StopFilter::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
        let mut out = Vec::new();
        for piece in pieces {
            let (text, stopped) = filter.push(piece);
            out.push(text);
            if stopped {
                return (out, true);
            }
        }
        out.push(filter.rest());
        (out, false)
    }

    #[test]
    fn a_stop_string_is_found_across_pieces_and_not_sent() {
        assert_eq!(
            filter(&["and the"], &["sea", " a", "nd", " the", " x"]).0,
            ["se", "a ", "", ""]
        );
        assert!(filter(&["."], &["a.b"]).1);
        assert_eq!(filter(&["b", "ab"], &["xab"]).0, ["x"]);
    }

    #[test]
    fn what_only_looks_like_a_stop_string_is_sent_later() {
        assert_eq!(
            filter(&["andy"], &["sea", " and", " so"]),
            (
                vec!["se".into(), "a ".into(), "and so".into(), "".into()],
                false
            )
        );
        assert_eq!(
            filter(&["end."], &["the end"]),
            (vec!["the ".into(), "end".into()], false)
        );
        assert_eq!(
            filter(&["äx"], &["ä", "y"]),
            (vec!["".into(), "äy".into(), "".into()], false)
        );
    }

    #[test]
    fn without_stop_strings_nothing_is_held_back() {
        assert_eq!(
            filter(&[], &["a", "b"]),
            (vec!["a".into(), "b".into(), "".into()], false)
        );
    }
}
