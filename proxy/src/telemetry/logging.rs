//! The program's own log: to standard error, with a level that can be changed while it runs.

use std::fmt;
use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::config::LogFormat;

/// Why a level was refused or the log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error(
        "{text:?} is no log level: {why}; allowed are error, warn, info, debug, trace and off, or a list as in outrigger_proxy=debug,info"
    )]
    Level { text: String, why: String },
    #[error("another log was started in this process already")]
    Started,
    #[error("the log is gone")]
    Gone,
}

/// Changes the level. Cheap to clone.
#[derive(Clone)]
pub struct LogLevel {
    inner: Arc<Inner>,
}

struct Inner {
    handle: reload::Handle<Targets, Registry>,
    text: Mutex<String>,
}

/// Starts the log. Call it once, at the start of the process.
pub fn init(level: &str, format: LogFormat) -> Result<LogLevel, LogError> {
    let (filter, handle) = reload::Layer::new(parse(level)?);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // Colours in a file are noise.
        .with_ansi(std::io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Json => registry.with(lines.json()).try_init(),
        LogFormat::Text => registry.with(lines.with_target(false)).try_init(),
    }
    .map_err(|_| LogError::Started)?;
    Ok(LogLevel {
        inner: Arc::new(Inner {
            handle,
            text: Mutex::new(level.trim().to_owned()),
        }),
    })
}

impl LogLevel {
    /// As it was last set.
    pub fn get(&self) -> String {
        self.inner
            .text
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A level (`debug`) or a list by module (`outrigger_proxy=debug,info`), in effect at once.
    pub fn set(&self, level: &str) -> Result<(), LogError> {
        let filter = parse(level)?;
        self.inner
            .handle
            .reload(filter)
            .map_err(|_| LogError::Gone)?;
        level.trim().clone_into(
            &mut self
                .inner
                .text
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        Ok(())
    }
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogLevel").field(&self.get()).finish()
    }
}

/// What a level (`debug`) or a list by module (`outrigger_proxy=debug,info`) lets through.
///
/// Strict: `Targets` alone takes any word for a module's name, so that `debgu` would silence the log.
///
/// # Errors
/// One of the words is no level.
pub fn parse(text: &str) -> Result<Targets, LogError> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let refuse = |why: String| LogError::Level {
        text: text.chars().take(200).collect(),
        why,
    };
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    for part in &parts {
        let level = part.rsplit_once('=').map_or(*part, |(_, level)| level);
        if !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) {
            let level: String = level.chars().take(50).collect();
            return Err(refuse(format!("{level:?} is not a level")));
        }
    }
    parts
        .join(",")
        .parse::<Targets>()
        .map_err(|error| refuse(error.to_string()))
}

/// A level that belongs to no log. It can be set while the layer lives.
#[cfg(test)]
pub(crate) fn detached(
    level: &str,
) -> Result<(reload::Layer<Targets, Registry>, LogLevel), LogError> {
    let (layer, handle) = reload::Layer::new(parse(level)?);
    let text = Mutex::new(level.to_owned());
    Ok((
        layer,
        LogLevel {
            inner: Arc::new(Inner { handle, text }),
        },
    ))
}

#[cfg(test)]
mod tests;
