//! `token create|list|delete`: what sidecars outside Kubernetes join with.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use outrigger_proto::api::v1::{
    CreateTokenRequest, DeleteTokenRequest, ListTokensRequest, TokenInfo,
};
use serde_json::{Value, json};

use crate::app::Io;
use crate::cli::{Global, Summary};
use crate::failure::Failure;
use crate::input::value;
use crate::output::document::Document;
use crate::output::style::{GREEN, RED};
use crate::output::table::{Cell, Table};
use crate::output::{age, json};
use crate::session::{Session, call};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a token; prints the token and nothing else on stdout
    #[command(
        after_help = "Example:\n  outrigger-proxy --join-token \"$(outriggerctl token create --namespace default --service-account chat)\" …"
    )]
    Create(CreateArgs),
    /// List tokens (their secrets are not kept)
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Revoke tokens; certificates that were issued with them stay valid until they expire
    #[command(visible_alias = "revoke")]
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Namespace of the identity that the sidecar gets
    #[arg(short = 'n', long, value_name = "NS", default_value = "default")]
    pub namespace: String,
    /// Account of the identity that the sidecar gets
    #[arg(short = 's', long, value_name = "SA")]
    pub service_account: String,
    /// How long the token can be used, at most 30 days (720h)
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = value::duration)]
    pub ttl: Duration,
    /// How many sidecars can join with it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_uses: u32,
    /// Output format
    #[arg(short = 'o', long, value_enum, default_value_t = Created::Token)]
    pub output: Created,
}

/// How a new token is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Created {
    /// The token alone
    Token,
    Yaml,
    Json,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Output format
    #[arg(short = 'o', long, value_enum, default_value_t = Summary::Table)]
    pub output: Summary,
}

#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Id of the token, from `token list`
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
}

pub async fn run(command: &Command, global: &Global, io: &mut Io<'_>) -> Result<(), Failure> {
    let session = Session::open(global, io).await?;
    match command {
        Command::Create(args) => create(args, &session, io).await,
        Command::List(args) => list(args, &session, io).await,
        Command::Delete(args) => delete(args, &session, io).await,
    }
}

async fn create(args: &CreateArgs, session: &Session, io: &mut Io<'_>) -> Result<(), Failure> {
    let ttl = prost_types::Duration::try_from(args.ttl)
        .map_err(|_| Failure::usage("--ttl is too long; at most 720h is allowed"))?;
    let request = CreateTokenRequest {
        namespace: args.namespace.clone(),
        service_account: args.service_account.clone(),
        ttl: Some(ttl),
        max_uses: args.max_uses,
    };
    let response = session
        .client
        .tokens()
        .create_token(call(request))
        .await
        .map_err(|status| session.explain("create the token", &status))?
        .into_inner();
    let info = response.info.unwrap_or_default();
    let document = match args.output {
        Created::Token => {
            writeln!(io.out, "{}", response.token)?;
            io.out.flush()?;
            let uses = match info.max_uses {
                0 | 1 => "once".to_owned(),
                uses => format!("{uses} times"),
            };
            let until = json::time(info.expires_at.as_ref()).map_or_else(String::new, |time| {
                format!(
                    " until {} ({})",
                    age::point(time),
                    age::relative(time, (io.now)())
                )
            });
            writeln!(
                io.err,
                "token {} for {}, can be used {uses}{until}",
                info.id, info.spiffe_id
            )?;
            return Ok(());
        }
        Created::Yaml => Document::Yaml,
        Created::Json => Document::Json,
    };
    let mut value = info_json(&info);
    value["token"] = response.token.into();
    Ok(document.write(&value, io.out)?)
}

async fn list(args: &ListArgs, session: &Session, io: &mut Io<'_>) -> Result<(), Failure> {
    let tokens = session
        .client
        .tokens()
        .list_tokens(call(ListTokensRequest {}))
        .await
        .map_err(|status| session.explain("list tokens", &status))?
        .into_inner()
        .tokens;
    let document = match args.output {
        Summary::Table | Summary::Wide => {
            if tokens.is_empty() {
                writeln!(io.err, "There are no tokens.")?;
                return Ok(());
            }
            let text = table(&tokens, (io.now)()).render(io.color_out);
            return Ok(io.out.write_all(text.as_bytes())?);
        }
        Summary::Yaml => Document::Yaml,
        Summary::Json => Document::Json,
    };
    let items: Vec<Value> = tokens.iter().map(info_json).collect();
    Ok(document.write(&json!({"tokens": items}), io.out)?)
}

fn table(tokens: &[TokenInfo], now: jiff::Timestamp) -> Table {
    let mut table = Table::new(vec!["ID", "IDENTITY", "USES", "STATE", "EXPIRES", "AGE"]);
    for token in tokens {
        let time = |time: &Option<prost_types::Timestamp>| json::time(time.as_ref());
        let expires = time(&token.expires_at);
        let state = if token.uses >= token.max_uses.max(1) {
            Cell::colored("used-up", RED)
        } else if expires.is_some_and(|expires| expires <= now) {
            Cell::colored("expired", RED)
        } else {
            Cell::colored("usable", GREEN)
        };
        table.row(vec![
            token.id.as_str().into(),
            token.spiffe_id.as_str().into(),
            format!("{}/{}", token.uses, token.max_uses.max(1)).into(),
            state,
            expires
                .map_or_else(String::new, |time| age::relative(time, now))
                .into(),
            time(&token.created_at)
                .map_or_else(String::new, |time| age::age(time, now))
                .into(),
        ]);
    }
    table
}

fn info_json(info: &TokenInfo) -> Value {
    json!({
        "id": info.id,
        "spiffeId": info.spiffe_id,
        "createdAt": json::time(info.created_at.as_ref()),
        "expiresAt": json::time(info.expires_at.as_ref()),
        "maxUses": info.max_uses,
        "uses": info.uses,
    })
}

async fn delete(args: &DeleteArgs, session: &Session, io: &mut Io<'_>) -> Result<(), Failure> {
    for id in &args.ids {
        let request = DeleteTokenRequest { id: id.clone() };
        session
            .client
            .tokens()
            .delete_token(call(request))
            .await
            .map_err(|status| session.explain(&format!("delete token {id}"), &status))?;
        writeln!(io.out, "token {id} deleted")?;
    }
    Ok(())
}
