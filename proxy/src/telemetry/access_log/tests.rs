#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Condvar, Mutex};

use http::StatusCode;
use proptest::prelude::*;

use super::*;
use crate::error::Reason;
use crate::inference::stream::Finish;
use crate::inference::{ModelOutcome, account};
use crate::telemetry::metrics::ContinuationResult;
use crate::telemetry::testing::Output;

const PATIENCE: Duration = Duration::from_secs(10);

fn entry() -> Entry {
    Entry {
        time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_000_000_123),
        direction: Direction::Outbound,
        request: Some(RequestLine {
            method: Method::POST,
            uri: "/v1/chat/completions?key=secret".parse().unwrap(),
            host: Some(HeaderValue::from_static("chat.default")),
            request_id: Some(HeaderValue::from_static(
                "5b7c0e9e-6d0b-4e0a-9f0e-0c9a3a1b2c3d",
            )),
            traceparent: Some(HeaderValue::from_static(
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            )),
        }),
        protocol: "http/1.1",
        outcome: Outcome {
            status: Some(StatusCode::GATEWAY_TIMEOUT),
            reason: Some(Reason::RequestTimeout),
            duration: Duration::from_micros(30_000_042),
            first_byte: Some(Duration::from_micros(1_500)),
            request_bytes: 812,
            response_bytes: 0,
        },
        service: "default/chat".into(),
        route: "default/chat-canary".into(),
        upstream: Some("10.0.0.5:15006".parse().unwrap()),
        peer: Some(
            "spiffe://outrigger.local/ns/default/sa/chat"
                .parse()
                .unwrap(),
        ),
        client: Some("[::1]:40312".parse().unwrap()),
        attempts: 2,
        not_retried: Some("budget"),
        filter: Some("fault-delay"),
        fallback: Some("default/chat-small".into()),
        cache_salt: Some("set"),
        turn: Some(Turn {
            waited: Duration::from_micros(12_500),
            priority: Priority::Default,
        }),
        model: Some(Box::new((
            Some("tiny".into()),
            Some("tinier".into()),
            account::Result {
                outcome: ModelOutcome::Failed,
                error: None,
                duration: Duration::from_micros(30_000_042),
                first_token: Some(Duration::from_micros(1_500)),
                per_token: None,
                longest_gap: None,
                input: Some(12),
                output: Some(3),
                finish: Some(Finish::Abort),
                continued: 1,
                not_continued: Some(ContinuationResult::Attempts),
            },
        ))),
    }
}

/// All lines that a log in this format makes of the entries.
fn lines(format: LogFormat, entries: impl IntoIterator<Item = Entry>) -> Vec<String> {
    let output = Output::default();
    let log = AccessLog::to(AccessLogMode::All, format, Box::new(output.clone())).unwrap();
    entries.into_iter().for_each(|entry| log.record(entry));
    assert!(log.flush(PATIENCE));
    assert_eq!(log.dropped(), 0);
    let text = output.text();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(str::to_owned).collect()
}

fn json(entry: Entry) -> serde_json::Value {
    let lines = lines(LogFormat::Json, [entry]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    serde_json::from_str(&lines[0]).unwrap()
}

#[test]
fn as_json() {
    assert_eq!(
        lines(LogFormat::Json, [entry()]),
        [concat!(
            r#"{"time":"2026-11-18T11:06:40.123Z","direction":"outbound","request_id":"5b7c0e9e-6d0b-4e0a-9f0e-0c9a3a1b2c3d","#,
            r#""method":"POST","authority":"chat.default","path":"/v1/chat/completions","protocol":"http/1.1","status":504,"#,
            r#""reason":"request-timeout","service":"default/chat","route":"default/chat-canary","upstream":"10.0.0.5:15006","#,
            r#""peer":"spiffe://outrigger.local/ns/default/sa/chat","client":"[::1]:40312","duration_ms":30000.042,"#,
            r#""first_byte_ms":1.500,"bytes_in":812,"bytes_out":0,"attempts":2,"not_retried":"budget","filter":"fault-delay","#,
            r#""fallback":"default/chat-small","cache_salt":"set","queue_ms":12.500,"priority":"default","model":"tiny","fallback_model":"tinier","outcome":"failed","first_token_ms":1.500,"input_tokens":12,"output_tokens":3,"finish":"abort","continued":1,"not_continued":"attempts","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"}"#
        )]
    );
}

#[test]
fn as_text() {
    assert_eq!(
        lines(LogFormat::Text, [entry()]),
        [concat!(
            "time=2026-11-18T11:06:40.123Z direction=outbound request_id=5b7c0e9e-6d0b-4e0a-9f0e-0c9a3a1b2c3d ",
            "method=POST authority=chat.default path=/v1/chat/completions protocol=http/1.1 status=504 ",
            "reason=request-timeout service=default/chat route=default/chat-canary upstream=10.0.0.5:15006 ",
            "peer=spiffe://outrigger.local/ns/default/sa/chat client=[::1]:40312 duration_ms=30000.042 ",
            "first_byte_ms=1.500 bytes_in=812 bytes_out=0 attempts=2 not_retried=budget filter=fault-delay ",
            "fallback=default/chat-small cache_salt=set queue_ms=12.500 priority=default model=tiny fallback_model=tinier outcome=failed first_token_ms=1.500 input_tokens=12 output_tokens=3 finish=abort continued=1 not_continued=attempts trace_id=4bf92f3577b34da6a3ce929d0e0e4736"
        )]
    );
}

/// What operators read lists the fields that there are, in their order.
#[test]
fn the_documented_fields_are_the_ones_there_are() {
    let page = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../examples/access-log.md"
    ))
    .unwrap();
    let (_, table) = page.split_once("\n## Fields\n").unwrap();
    let documented: Vec<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let line = lines(LogFormat::Text, [entry()]).remove(0);
    let written: Vec<&str> = line
        .split(' ')
        .map(|field| field.split('=').next().unwrap())
        .collect();
    assert_eq!(documented, written);
}

#[test]
fn what_does_not_apply_is_left_out() {
    let tcp = Entry {
        request: None,
        protocol: "tcp",
        outcome: Outcome::default(),
        service: "".into(),
        route: "".into(),
        upstream: None,
        peer: None,
        client: None,
        attempts: 0,
        not_retried: None,
        filter: None,
        fallback: None,
        cache_salt: None,
        turn: None,
        model: None,
        ..entry()
    };
    assert_eq!(
        lines(LogFormat::Text, [tcp]),
        [
            "time=2026-11-18T11:06:40.123Z direction=outbound protocol=tcp duration_ms=0.000 bytes_in=0 bytes_out=0 attempts=0"
        ]
    );
}

#[test]
fn an_absolute_uri_names_the_authority() {
    let mut entry = entry();
    let request = entry.request.as_mut().unwrap();
    request.uri = "http://chat.models:8080/v1/models".parse().unwrap();
    let logged = json(entry);
    assert_eq!(logged["authority"], "chat.models:8080");
    assert_eq!(logged["path"], "/v1/models");
}

#[test]
fn a_traceparent_that_is_none_is_no_trace_id() {
    for bad in [
        "",
        "00",
        "00-xyz-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
    ] {
        let mut entry = entry();
        entry.request.as_mut().unwrap().traceparent = Some(HeaderValue::from_static(bad));
        assert_eq!(json(entry).get("trace_id"), None, "{bad}");
    }
}

#[test]
fn nothing_breaks_out_of_its_field() {
    // A line break cannot be in a header, but bytes above 0x7f can: C1 controls, separators, direction marks.
    let evil = "a\" status=200 \\ \u{9b}31m \u{2028}\u{202e}\u{feff} x\tüñ";
    let mut entry = entry();
    entry.request.as_mut().unwrap().request_id =
        Some(HeaderValue::from_bytes(evil.as_bytes()).unwrap());
    assert_eq!(
        json(entry.clone())["request_id"],
        evil,
        "JSON gives it back as it was"
    );
    for format in [LogFormat::Json, LogFormat::Text] {
        let line = lines(format, [entry.clone()]).remove(0);
        assert!(
            line.contains(r#""a\" status=200 \\ \u009b31m \u2028\u202e"#),
            "{line}"
        );
        assert!(
            !line
                .chars()
                .any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{202e}')),
            "{line:?}"
        );
    }
}

#[test]
fn which_requests_are_logged() {
    let with = |mode| AccessLog::to(mode, LogFormat::Json, Box::new(std::io::sink())).unwrap();
    let ok = Outcome {
        status: Some(StatusCode::OK),
        ..Outcome::default()
    };
    let not_found = Outcome {
        status: Some(StatusCode::NOT_FOUND),
        ..Outcome::default()
    };
    let failed = Outcome {
        status: Some(StatusCode::BAD_GATEWAY),
        ..Outcome::default()
    };
    let gone = Outcome {
        reason: Some(Reason::ClientGone),
        ..ok
    };
    let logged = |log: &AccessLog, mesh| {
        [ok, not_found, failed, gone].map(|outcome| log.enabled(mesh, &outcome))
    };
    let errors = [false, false, true, true];
    assert_eq!(logged(&with(AccessLogMode::Off), None), [false; 4]);
    assert_eq!(logged(&with(AccessLogMode::Errors), None), errors);
    assert_eq!(logged(&with(AccessLogMode::All), None), [true; 4]);
    assert_eq!(
        logged(&with(AccessLogMode::Off), Some(AccessLogMode::Errors)),
        errors,
        "the mesh decides"
    );
    assert_eq!(
        logged(&with(AccessLogMode::All), Some(AccessLogMode::Off)),
        [false; 4]
    );
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a test's own thread")]
fn a_line_is_there_soon() {
    let output = Output::default();
    let log = AccessLog::to(
        AccessLogMode::All,
        LogFormat::Json,
        Box::new(output.clone()),
    )
    .unwrap();
    log.record(entry());
    let begun = std::time::Instant::now();
    while output.text().is_empty() {
        assert!(
            begun.elapsed() < PATIENCE,
            "nothing was written without a flush"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// An output that takes nothing until it is opened.
#[derive(Clone, Debug, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let open = self.0.0.lock().unwrap();
        let _open = self.0.1.wait_while(open, |open| !*open).unwrap();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_output_that_stands_still_costs_lines_and_not_time() {
    let gate = Gate::default();
    let log = AccessLog::to(AccessLogMode::All, LogFormat::Json, Box::new(gate.clone())).unwrap();
    let sent = 3 * QUEUE as u64;
    let begun = std::time::Instant::now();
    (0..sent).for_each(|_| log.record(entry()));
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    let dropped = log.dropped();
    assert!(dropped >= sent / 3, "{dropped} of {sent}");
    assert!(
        !log.flush(Duration::from_millis(20)),
        "a flush has patience, but not without end"
    );
    gate.open();
    assert!(log.flush(PATIENCE));
    assert_eq!(log.dropped(), dropped, "what was queued is written");
}

#[derive(Debug)]
struct Broken;

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_broken_output_is_counted_and_does_not_end_the_writer() {
    let log = AccessLog::to(AccessLogMode::All, LogFormat::Json, Box::new(Broken)).unwrap();
    for round in 1..=3 {
        log.record(entry());
        log.record(entry());
        assert!(log.flush(PATIENCE));
        assert_eq!(log.dropped(), 2 * round);
    }
}

proptest! {
    #[test]
    fn any_bytes_make_one_line_of_json(
        id in prop::collection::vec(prop_oneof![Just(b'\t'), 0x20_u8..0x7f, 0x80_u8..=0xff], 0..60),
        route in any::<String>(),
    ) {
        let mut entry = entry();
        entry.request.as_mut().unwrap().request_id = Some(HeaderValue::from_bytes(&id).unwrap());
        entry.route = route.as_str().into();
        let mut line = Vec::new();
        format::line(&mut line, &entry, LogFormat::Json);
        let line = String::from_utf8(line).unwrap();
        prop_assert_eq!(line.lines().count(), 1);
        let logged: serde_json::Value = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(logged["request_id"].as_str().unwrap(), String::from_utf8_lossy(&id));
        prop_assert_eq!(logged["route"].as_str().unwrap_or_default(), route.as_str());
        prop_assert!(!line.trim_end().chars().any(char::is_control));
    }

    #[test]
    fn in_text_no_value_adds_a_field(route in prop_oneof![any::<String>(), r#"[ab =\\"]{0,8}"#]) {
        let plain = |route: &str| {
            let mut line = Vec::new();
            format::line(&mut line, &Entry { route: route.into(), ..entry() }, LogFormat::Text);
            String::from_utf8(line).unwrap()
        };
        // Outside of quotes there are as many fields as ever.
        let fields = |line: &str| {
            let (mut quoted, mut escape, mut count) = (false, false, 0);
            for c in line.chars() {
                match c {
                    _ if escape => escape = false,
                    '\\' if quoted => escape = true,
                    '"' => quoted = !quoted,
                    '=' if !quoted => count += 1,
                    _ => {}
                }
            }
            (count, quoted)
        };
        let expected = if route.is_empty() { plain("") } else { plain("x") };
        prop_assert_eq!(fields(&plain(&route)), fields(&expected));
    }
}
