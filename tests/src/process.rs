use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A running program with its output in files. Killed when dropped; its log is shown where a test fails.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with stdout and stderr in `directory` (appended, where the process is not the first of its name).
    pub fn spawn(name: &str, mut command: Command, directory: &Path) -> Self {
        let open = |path: &Path| {
            let file = File::options().create(true).append(true).open(path);
            file.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let (stdout, stderr) = (
            directory.join(format!("{name}.out")),
            directory.join(format!("{name}.log")),
        );
        command.stdout(open(&stdout)).stderr(open(&stderr));
        if command.get_program() != "sh" {
            command.stdin(Stdio::null());
        }
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()));
        Self {
            name: name.to_string(),
            child,
            stdout,
            stderr,
            status: None,
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to stdout so far.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it wrote to stderr so far: the log of the product's programs.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// How it ended; `None` while it runs.
    pub fn status(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("a child can be waited for");
        }
        self.status
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it still runs after `limit`.
    pub async fn exited(&mut self, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.status() {
                return status;
            }
            assert!(
                start.elapsed() < limit,
                "{} still runs after {limit:?}",
                self.name
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Sends a signal, by name without `SIG`.
    pub fn signal(&self, signal: &str) {
        // A shell builtin: no dependency and no unsafe code for a call that tests make now and then.
        let kill = Command::new("sh")
            .arg("-c")
            .arg(format!("kill -{signal} {}", self.id()))
            .status();
        assert!(
            kill.is_ok_and(|status| status.success()),
            "{} is gone: kill -{signal} failed",
            self.name
        );
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        if self.status().is_none() {
            // It may have ended by itself since.
            let _ = self.child.kill();
            self.status = self.child.wait().ok();
        }
    }

    /// Resident memory, KiB.
    pub fn rss_kib(&self) -> u64 {
        self.status_field("VmRSS:")
    }

    /// The most resident memory it ever had, KiB.
    pub fn peak_rss_kib(&self) -> u64 {
        self.status_field("VmHWM:")
    }

    fn status_field(&self, field: &str) -> u64 {
        let status = read(Path::new(&format!("/proc/{}/status", self.id())));
        let value = status.lines().find_map(|line| {
            line.strip_prefix(field)?
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        });
        value.unwrap_or_else(|| panic!("{} runs no more: no {field} in its status", self.name))
    }

    /// CPU time of all its threads so far. From the scheduler's accounts in nanoseconds: the ticks of `/proc/PID/stat`
    /// are 10 ms wide.
    pub fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.id()));
        let tasks = tasks.unwrap_or_else(|error| panic!("{} runs no more: {error}", self.name));
        let nanoseconds = tasks.flatten().filter_map(|task| {
            let line = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanoseconds.sum())
    }

    /// The last `lines` of its output.
    pub fn tail(&self, lines: usize) -> String {
        let mut tail = String::new();
        for text in [self.stdout(), self.stderr()] {
            let all: Vec<&str> = text.lines().collect();
            for line in &all[all.len().saturating_sub(lines)..] {
                tail.push_str("  ");
                tail.push_str(line);
                tail.push('\n');
            }
        }
        tail
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let status = self.status();
            eprintln!(
                "--- {} ({status:?}):
{}",
                self.name,
                self.tail(30)
            );
        }
        self.kill();
    }
}

fn read(path: &Path) -> String {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}
