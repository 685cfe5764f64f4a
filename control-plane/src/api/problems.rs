//! Errors of the management API that name fields.

use outrigger_proto::api::v1::{InvalidResources, Problem as ProblemMessage, ResourceRef};
use prost::Message;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::model::{IndexedProblem, Problem};

/// The trailer with an encoded `InvalidResources`.
pub const TRAILER: &str = "outrigger-problems-bin";

/// gRPC implementations refuse trailers of more than 8 to 16 KiB unless told otherwise; base64 adds a third.
const MAX_ENCODED: usize = 5 * 1024;
/// Longer messages of a problem or a status are cut.
const MAX_MESSAGE: usize = 800;

/// The answer to resources that do not validate: INVALID_ARGUMENT, with all problems that fit into the trailer.
pub(super) fn invalid(mut problems: Vec<IndexedProblem>, refs: &[ResourceRef]) -> Status {
    problems.sort_by_key(|found| found.index);
    let text = summary(&problems, refs);
    let mut message = InvalidResources::default();
    let mut size = 0;
    for IndexedProblem { index, problem } in &problems {
        let mut next = to_message(*index, problem, refs);
        size += next.encoded_len() + 8;
        if size > MAX_ENCODED {
            let left = problems.len() - message.problems.len();
            next.field = String::new();
            next.message = format!("{left} more problems do not fit into this answer");
            message.problems.push(next);
            break;
        }
        message.problems.push(next);
    }
    let mut metadata = MetadataMap::new();
    metadata.insert_bin(TRAILER, MetadataValue::from_bytes(&message.encode_to_vec()));
    Status::with_metadata(Code::InvalidArgument, text, metadata)
}

/// The problems of an answer, as the caller of the API sees them.
pub fn of_status(status: &Status) -> Vec<ProblemMessage> {
    status
        .metadata()
        .get_bin(TRAILER)
        .and_then(|value| value.to_bytes().ok())
        .and_then(|bytes| InvalidResources::decode(bytes).ok())
        .map(|message| message.problems)
        .unwrap_or_default()
}

fn to_message(index: usize, problem: &Problem, refs: &[ResourceRef]) -> ProblemMessage {
    ProblemMessage {
        index: u32::try_from(index).unwrap_or(u32::MAX),
        resource: refs.get(index).cloned(),
        field: cut(&problem.field),
        message: cut(&problem.message),
    }
}

fn summary(problems: &[IndexedProblem], refs: &[ResourceRef]) -> String {
    let Some(first) = problems.first() else {
        return "the resources are not valid".to_owned();
    };
    let name = refs.get(first.index).map(display).unwrap_or_default();
    let more = match problems.len() - 1 {
        0 => String::new(),
        1 => " (and 1 more problem)".to_owned(),
        more => format!(" (and {more} more problems)"),
    };
    format!("{name}: {}{more}", cut(&first.problem.to_string()))
}

fn display(reference: &ResourceRef) -> String {
    let ResourceRef {
        kind,
        namespace,
        name,
    } = reference;
    let words = [kind.as_str(), namespace, name]
        .map(str::to_owned)
        .into_iter();
    cut(&words
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join("/"))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
