//! `config view`: the context in use.

use clap::{Args, Subcommand};
use serde_json::json;

use crate::app::Io;
use crate::cli::{Data, Global};
use crate::failure::Failure;
use crate::output::document::Document;
use crate::session::load_context;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show where the context comes from and what is in it, without the secret
    View(ViewArgs),
}

#[derive(Debug, Args)]
pub struct ViewArgs {
    /// Output format
    #[arg(short = 'o', long, value_enum, default_value_t = Data::Text)]
    pub output: Data,
}

pub fn view(args: &ViewArgs, global: &Global, io: &mut Io<'_>) -> Result<(), Failure> {
    let (path, context) = load_context(global, io)?;
    let server = global.server.as_ref().unwrap_or(&context.server);
    let document = match args.output {
        Data::Text => {
            let from = if global.server.is_some() {
                " (from --server)"
            } else {
                ""
            };
            writeln!(io.out, "Context          {}", path.display())?;
            writeln!(io.out, "Control plane    {server}{from}")?;
            writeln!(io.out, "CA fingerprint   sha256:{}", context.ca_fingerprint)?;
            if let Some(trust_domain) = &context.trust_domain {
                writeln!(io.out, "Trust domain     {trust_domain}")?;
            }
            writeln!(
                io.out,
                "Token            <redacted, {} characters>",
                context.token.len()
            )?;
            return Ok(());
        }
        Data::Yaml => Document::Yaml,
        Data::Json => Document::Json,
    };
    let value = json!({
        "context": path,
        "server": server,
        "caFingerprint": context.ca_fingerprint,
        "caCertificate": context.ca_certificate,
        "trustDomain": context.trust_domain,
        "token": "REDACTED",
    });
    Ok(document.write(&value, io.out)?)
}
