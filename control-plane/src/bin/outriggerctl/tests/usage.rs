//! What is typed wrong, what is asked of the program itself, and output that nobody reads.

use std::io::{self, Write};

use crate::app::{Io, run};
use crate::testing::{Fake, Runner, ctl, fixtures, golden, now};

#[test]
fn help() {
    golden("help", &ctl(&["--help"]).transcript());
    golden("help-get", &ctl(&["get", "--help"]).transcript());
    assert_eq!(
        ctl(&["--version"]).out,
        format!("outriggerctl {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for words in [
        &[][..],
        &["aply"],
        &["apply"],
        &["get"],
        &["get", "widgets"],
        &["get", "services", "-o", "xml"],
        &["get", "services", "-A", "-n", "x"],
        &["get", "services", "chat", "-A"],
        &["get", "services", "-l", "version"],
        &["describe", "services"],
        &["delete"],
        &["delete", "services"],
        &["delete", "services", "chat", "-f", "x.yaml"],
        &["status", "--wait", "soon"],
        &["--timeout", "5", "status"],
        &["token", "create"],
        &[
            "token",
            "create",
            "--service-account",
            "a",
            "--max-uses",
            "0",
        ],
        &["completions", "tcsh"],
    ] {
        let ran = ctl(words);
        assert_eq!(
            (ran.code, ran.out.as_str()),
            (2, ""),
            "{words:?}: {}",
            ran.err
        );
        assert!(!ran.err.is_empty(), "{words:?}");
    }
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let ran = ctl(&["completions", shell]);
        assert_eq!(ran.code, 0, "{shell}");
        assert!(
            ran.out.contains("validate") && ran.out.contains("outriggerctl"),
            "{shell}: {}",
            ran.out
        );
    }
}

#[test]
fn versions() {
    let fake = Fake::start(fixtures::mesh());
    golden("version", &fake.ctl(&["version"]).transcript());
    let alone = ctl(&["version", "--client"]);
    assert_eq!((alone.code, alone.err.as_str()), (0, ""));
}

#[test]
fn the_context_is_shown_without_its_secret() {
    let fake = Fake::start(fixtures::mesh());
    for format in ["text", "yaml", "json"] {
        let ran = fake.ctl(&["config", "view", "-o", format]);
        assert_eq!(ran.code, 0);
        assert!(
            ran.out.contains("127.0.0.1:15011") && !ran.out.contains("admin-secret"),
            "{}",
            ran.out
        );
    }
}

/// `| head`: the reader goes away after some bytes.
struct Closing(usize);

impl Write for Closing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self
            .0
            .checked_sub(bytes.len())
            .ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_closed_stdout_ends_the_run_quietly() {
    let fake = Fake::start(fixtures::mesh());
    let context = fake.context();
    let context = context.to_str().unwrap();
    for words in [
        &["get", "all"][..],
        &["get", "svc", "-o", "yaml"],
        &["get", "svc", "-o", "json"],
        &["describe", "svc/chat"],
        &["status"],
        &["completions", "bash"],
        &["get", "svc", "--watch"],
    ] {
        let mut err = Vec::new();
        let mut io = Io {
            stdin: &mut io::empty(),
            out: &mut Closing(10),
            err: &mut err,
            color_out: false,
            color_err: false,
            home: None,
            now,
        };
        let all = ["outriggerctl", "--context", context]
            .into_iter()
            .chain(words.iter().copied());
        let code = run(all.map(Into::into), &mut io);
        assert_eq!(
            (code, String::from_utf8(err).unwrap().as_str()),
            (0, ""),
            "{words:?}"
        );
    }
}

#[test]
fn without_colours_there_are_no_escapes() {
    let fake = Fake::start(fixtures::mesh_with_refusal());
    assert!(!fake.ctl(&["status"]).out.contains('\x1b'));
    let runner = Runner {
        color: true,
        ..Runner::default()
    };
    assert!(
        fake.run(&runner, &["status"])
            .out
            .contains("\x1b[31mREFUSED\x1b[0m")
    );
}
