//! Processes that never outlive this one.
//!
//! All of them are in one process group, whose leader is a watchdog: a shell that waits for the end of its stdin. That
//! end comes when this process ends in whatever way, be it a panic or SIGKILL, and then the watchdog kills the group.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// Lines of a log that are shown where something fails.
const TAIL_LINES: usize = 12;
/// How often processes are asked whether they have ended.
const POLL: Duration = Duration::from_millis(10);

/// All processes, by name.
#[derive(Debug)]
pub struct Children {
    watchdog: Mutex<std::process::Child>,
    group: i32,
    logs: PathBuf,
    verbose: bool,
    all: Mutex<Vec<Child>>,
}

#[derive(Debug)]
struct Child {
    name: String,
    process: std::process::Child,
    log: PathBuf,
    /// Its end is wanted and no failure.
    killed: bool,
    status: Option<ExitStatus>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is only a list; a panic leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Children {
    /// Starts the watchdog. Logs go to `<directory>/logs`.
    pub fn new(directory: &Path, verbose: bool) -> anyhow::Result<Self> {
        let logs = directory.join("logs");
        std::fs::create_dir_all(&logs)
            .with_context(|| format!("cannot create {}", logs.display()))?;
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' HUP INT TERM; read -r _; kill -KILL 0"]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let watchdog = command.spawn().context("cannot start the watchdog (sh)")?;
        let group = i32::try_from(watchdog.id())
            .context("the watchdog's process id is no process group")?;
        Ok(Self {
            watchdog: Mutex::new(watchdog),
            group,
            logs,
            verbose,
            all: Mutex::new(Vec::new()),
        })
    }

    /// Starts a program with its output in `logs/<name>.log`. One that was started under this name before must be gone.
    pub fn spawn(&self, name: &str, mut command: Command) -> anyhow::Result<()> {
        let log = self.logs.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        self.show(&command);
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(self.group);
        let process = command
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let mut all = lock(&self.all);
        all.retain(|child| child.name != name);
        all.push(Child {
            name: name.to_owned(),
            process,
            log,
            killed: false,
            status: None,
        });
        Ok(())
    }

    /// Prints a command where that is wanted.
    pub fn show(&self, command: &Command) {
        if self.verbose {
            let arguments: Vec<_> = command
                .get_args()
                .map(|argument| argument.to_string_lossy())
                .collect();
            let _ = writeln!(
                std::io::stderr(),
                "+ {} {}",
                command.get_program().display(),
                arguments.join(" ")
            );
        }
    }

    /// # Errors
    /// Where the program has ended, with the end of its log.
    pub fn ensure_alive(&self, name: &str) -> anyhow::Result<()> {
        let mut all = lock(&self.all);
        let Some(child) = all.iter_mut().find(|child| child.name == name) else {
            return Ok(());
        };
        match child.poll() {
            None => Ok(()),
            Some(status) => anyhow::bail!("{name} has ended ({status})"),
        }
    }

    /// `kill -9` for all of these at once. They are gone when this returns.
    pub fn kill(&self, names: &[String]) {
        let mut all = lock(&self.all);
        let mut killed: Vec<&mut Child> = all
            .iter_mut()
            .filter(|child| names.contains(&child.name))
            .collect();
        for child in &mut killed {
            child.killed = true;
            // An error means that it has ended already.
            let _ = child.process.kill();
        }
        for child in killed {
            child.status = child.process.wait().ok();
        }
    }

    /// SIGTERM to all, and after `limit` SIGKILL. Returns the names of those that were not gone by then, or ended with an
    /// error; what was killed on purpose does not count.
    pub async fn stop_all(&self, limit: Duration) -> Vec<String> {
        let running: Vec<String> = lock(&self.all)
            .iter_mut()
            .filter_map(|child| {
                child
                    .poll()
                    .is_none()
                    .then(|| child.process.id().to_string())
            })
            .collect();
        if !running.is_empty() {
            // The standard library sends no other signal than SIGKILL, but every system has this program.
            let _ = Command::new("kill")
                .arg("-TERM")
                .args(&running)
                .stderr(Stdio::null())
                .status();
        }
        let started = Instant::now();
        while lock(&self.all)
            .iter_mut()
            .any(|child| child.poll().is_none())
            && started.elapsed() < limit
        {
            tokio::time::sleep(POLL).await;
        }
        let mut unclean = Vec::new();
        for mut child in lock(&self.all).drain(..) {
            let clean = child.poll().is_some_and(|status| status.success());
            if !clean && !child.killed {
                unclean.push(child.name.clone());
            }
            let _ = child.process.kill();
            let _ = child.process.wait();
        }
        self.release_watchdog();
        unclean
    }

    /// The end of the logs of those programs that ended unasked.
    pub fn tails(&self) -> String {
        let mut text = String::new();
        for child in lock(&self.all).iter_mut() {
            if !child.killed && child.poll().is_some() {
                text.push_str(&format!(
                    "\nthe end of {}:\n{}",
                    child.log.display(),
                    tail(&child.log)
                ));
            }
        }
        text
    }

    /// The end of one program's log.
    pub fn tail(&self, name: &str) -> String {
        tail(&self.logs.join(format!("{name}.log")))
    }

    fn release_watchdog(&self) {
        let mut watchdog = lock(&self.watchdog);
        drop(watchdog.stdin.take());
        let _ = watchdog.wait();
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for child in lock(&self.all).iter_mut() {
            let _ = child.process.kill();
            let _ = child.process.wait();
        }
        self.release_watchdog();
    }
}

impl Child {
    fn poll(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.process.try_wait().ok().flatten();
        }
        self.status
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    last.iter().map(|line| format!("    {line}\n")).collect()
}
