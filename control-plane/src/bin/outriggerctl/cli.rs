//! What can be typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands::{config, token};
use crate::input::value;

/// Applies resources to an Outrigger mesh, shows them, and shows what the sidecars make of them.
#[derive(Debug, Parser)]
// Golden files must not depend on the terminal that the tests run in.
#[cfg_attr(test, command(term_width = 100))]
#[command(
    name = "outriggerctl",
    version,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done, 1 refused or failed, 2 usage, 3 not found, 4 conflict, 5 control plane not reachable or token refused."
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// File that says where the control plane is and how to log in [default: ~/.config/outrigger/context.yaml]
    #[arg(
        long,
        value_name = "FILE",
        env = "OUTRIGGER_CONTEXT",
        hide_env_values = true,
        global = true,
        help_heading = "Connection"
    )]
    pub context: Option<PathBuf>,
    /// Address of the management API instead of the context's
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "OUTRIGGER_SERVER",
        hide_env_values = true,
        global = true,
        help_heading = "Connection"
    )]
    pub server: Option<String>,
    /// How long to wait for the connection, e.g. 500ms, 5s
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = value::duration, global = true, help_heading = "Connection")]
    pub timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create or change resources from files, all or none of them
    Apply(ApplyArgs),
    /// Show resources as a table, YAML or JSON
    #[command(
        override_usage = "outriggerctl get KIND [NAME...] [OPTIONS]\n       outriggerctl get KIND/NAME... [OPTIONS]"
    )]
    Get(GetArgs),
    /// Show one resource in words, and which sidecars accepted or refused it
    #[command(
        override_usage = "outriggerctl describe KIND NAME... [OPTIONS]\n       outriggerctl describe KIND/NAME... [OPTIONS]"
    )]
    Describe(DescribeArgs),
    /// Delete resources by name or by file
    #[command(
        override_usage = "outriggerctl delete KIND NAME... [OPTIONS]\n       outriggerctl delete KIND/NAME... [OPTIONS]\n       outriggerctl delete -f FILE [OPTIONS]"
    )]
    Delete(DeleteArgs),
    /// Check files without a control plane, with the control plane's own checks
    Validate(ValidateArgs),
    /// Show the control plane and every sidecar, and whether they are in sync
    Status(StatusArgs),
    /// Say which service, rule, backends and policies a request would meet, and why
    #[command(
        after_help = "Example: outriggerctl explain --from default/web POST http://chat.models/v1/chat/completions -H 'x-tier: gold'"
    )]
    Explain(ExplainArgs),
    /// Create, list and revoke the tokens with which sidecars join the mesh
    #[command(subcommand)]
    Token(token::Command),
    /// Show the context in use
    #[command(subcommand)]
    Config(config::Command),
    /// Show the versions of this program and of the control plane
    Version(VersionArgs),
    /// Print completions for a shell
    #[command(
        after_help = "Example: outriggerctl completions bash > /etc/bash_completion.d/outriggerctl"
    )]
    Completions {
        /// Shell to complete for
        shell: clap_complete::Shell,
    },
}

/// `-f`.
#[derive(Debug, Clone, Args)]
pub struct Files {
    /// File, directory (its *.yaml, *.yml and *.json, sorted), or - for stdin; may be given several times
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-")]
    pub files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ApplyArgs {
    #[arg(
        short = 'f',
        long = "filename",
        value_name = "FILE|DIR|-",
        required = true
    )]
    /// File, directory (its *.yaml, *.yml and *.json, sorted), or - for stdin; may be given several times
    pub files: Vec<PathBuf>,
    /// Say what would happen and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct ValidateArgs {
    #[arg(
        short = 'f',
        long = "filename",
        value_name = "FILE|DIR|-",
        required = true
    )]
    /// File, directory (its *.yaml, *.yml and *.json, sorted), or - for stdin; may be given several times
    pub files: Vec<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub struct Scope {
    /// Namespace [default: default]
    #[arg(short = 'n', long, value_name = "NS")]
    pub namespace: Option<String>,
}

#[derive(Debug, Args)]
pub struct GetArgs {
    /// Kind (mesh, services, routes, workloads, all; several with commas) and names, or KIND/NAME, KIND/NAMESPACE/NAME
    #[arg(required = true, value_name = "KIND [NAME]")]
    pub words: Vec<String>,
    #[command(flatten)]
    pub scope: Scope,
    /// All namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// Only resources with this label; several: all of them
    #[arg(short = 'l', long = "selector", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = value::label)]
    pub labels: Vec<(String, String)>,
    /// Output format
    #[arg(short = 'o', long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// Go on and show every change (JSON: one line for each event)
    #[arg(short = 'w', long)]
    pub watch: bool,
    /// Leave out the table's first line
    #[arg(long)]
    pub no_headers: bool,
}

#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// Kind and name, or KIND/NAME, KIND/NAMESPACE/NAME
    #[arg(required = true, value_name = "KIND NAME")]
    pub words: Vec<String>,
    #[command(flatten)]
    pub scope: Scope,
}

#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Kind and names, or KIND/NAME, KIND/NAMESPACE/NAME
    #[arg(
        required_unless_present = "files",
        conflicts_with = "files",
        value_name = "KIND NAME"
    )]
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: Files,
    #[command(flatten)]
    pub scope: Scope,
    /// What does not exist is no error
    #[arg(long)]
    pub ignore_not_found: bool,
    /// Say what would happen and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Output format
    #[arg(short = 'o', long, value_enum, default_value_t = Summary::Table)]
    pub output: Summary,
    /// Wait at most this long (30, 30s, 2m) until all connected sidecars are in sync; exit code 1 if they are not
    #[arg(long, value_name = "DURATION", value_parser = value::seconds_or_duration)]
    pub wait: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Who asks: a SPIFFE id, or NAMESPACE/ACCOUNT
    #[arg(long, value_name = "IDENTITY")]
    pub from: String,
    /// For example GET
    pub method: String,
    /// http://HOST[:PORT]/PATH; the scheme may be left out
    pub url: String,
    /// A header of the request; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<String>,
    /// The model that the request's body names
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Output format
    #[arg(short = 'o', long, value_enum, default_value_t = Explained::Table)]
    pub output: Explained,
}

/// How an explanation is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Explained {
    Table,
    Yaml,
    Json,
}

#[derive(Debug, Args)]
pub struct VersionArgs {
    /// Only this program's; asks no control plane
    #[arg(long)]
    pub client: bool,
    /// Output format
    #[arg(short = 'o', long, value_enum, default_value_t = Data::Text)]
    pub output: Data,
}

/// How resources are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    /// A table with more columns
    Wide,
    Yaml,
    Json,
    /// kind/namespace/name, for scripts
    Name,
}

/// How a summary is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Summary {
    Table,
    /// A table with more columns
    Wide,
    Yaml,
    Json,
}

/// How a few values are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Data {
    Text,
    Yaml,
    Json,
}
