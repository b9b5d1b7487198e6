//! `dislog token`: bearer tokens.

use dislog_client::{Client, TokenInfo};
use jiff::Timestamp;
use serde::Serialize;

use crate::args::FormatArg;
use crate::consume::format::rfc3339;
use crate::failure::Failure;
use crate::output::{Format, Outcome, Output, note};
use crate::quantity::parse_duration;
use crate::servers::ServersArg;
use crate::topic::{confirm, count};

/// Arguments of `dislog token`.
#[derive(Debug, clap::Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, clap::Subcommand)]
enum TokenCommand {
    /// Make a token; it is printed once and kept nowhere
    Create {
        /// Whom it names: the subject that rules speak of
        name: String,
        /// Let it expire after so long, as 90d or 12h; without, it holds until it is revoked
        #[arg(long, value_name = "TIME", value_parser = parse_expiry_ms)]
        expires: Option<i64>,
        #[command(flatten)]
        common: Common,
    },
    /// List the tokens: whom they name, not the tokens themselves
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Make tokens worthless at once
    Revoke {
        /// The id of a token, or a name: then all tokens of that name
        #[arg(value_name = "ID|NAME")]
        token: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, clap::Args)]
struct Common {
    #[command(flatten)]
    servers: ServersArg,
    #[command(flatten)]
    format: FormatArg,
}

impl Common {
    async fn client(&self) -> Result<Client, Failure> {
        self.servers.resolve()?.client().await
    }
}

fn parse_expiry_ms(text: &str) -> Result<i64, String> {
    let ms = parse_duration(text)?.as_millis();
    i64::try_from(ms)
        .ok()
        .filter(|ms| *ms > 0)
        .and_then(|ms| Timestamp::now().as_millisecond().checked_add(ms))
        .ok_or_else(|| format!("{text:?} is no time that a token could hold for"))
}

#[derive(Serialize)]
struct Created<'a> {
    token: &'a str,
    #[serde(flatten)]
    row: Row,
}

#[derive(Serialize)]
struct Row {
    id: String,
    name: String,
    created_ms: i64,
    expires_ms: Option<i64>,
    created_by: String,
}

/// Runs one of the token commands.
pub(crate) async fn run(args: TokenArgs, output: &mut Output) -> Outcome {
    match args.command {
        TokenCommand::Create { name, expires, common } => {
            let client = common.client().await?;
            let created = client.create_token(&name, expires).await.map_err(Failure::from)?;
            let (token, info) = created;
            match common.format.format {
                Format::Json => output.json(&Created { token: &token, row: info.into() }),
                Format::Table => {
                    output.line(&token)?;
                    output.flush()?;
                    let until = info.expires_ms.map_or_else(
                        || "until it is revoked".to_owned(),
                        |expires_ms| format!("until {}", rfc3339(expires_ms)),
                    );
                    note(&format!(
                        "whoever has it is {name}, {until}; it is not shown again (token {})",
                        info.id
                    ));
                    Ok(())
                }
            }
        }
        TokenCommand::List { common } => {
            let tokens = common.client().await?.list_tokens().await.map_err(Failure::from)?;
            if tokens.is_empty() {
                note(&"there are no tokens; `dislog token create NAME` makes one");
            }
            show(tokens, common.format.format, output)
        }
        TokenCommand::Revoke { token, yes, common } => {
            confirm(yes, &format!("revoke the tokens of id or name {token}"))?;
            let client = common.client().await?;
            let revoked = client.revoke_token(&token).await.map_err(Failure::from)?;
            note(&format!("revoked {}", count(revoked.len() as u64, "token")));
            match common.format.format {
                Format::Json => show(revoked, Format::Json, output),
                Format::Table => Ok(()),
            }
        }
    }
}

fn show(tokens: Vec<TokenInfo>, format: Format, output: &mut Output) -> Outcome {
    let rows: Vec<Row> = tokens.into_iter().map(Row::from).collect();
    if format == Format::Json {
        return output.json(&rows);
    }
    let now_ms = Timestamp::now().as_millisecond();
    let expiry = |row: &Row| match row.expires_ms {
        None => "never".to_owned(),
        Some(ms) if ms <= now_ms => format!("expired {}", rfc3339(ms)),
        Some(ms) => rfc3339(ms),
    };
    let lines = rows.iter().map(|row| {
        let created = rfc3339(row.created_ms);
        vec![row.id.clone(), row.name.clone(), created, row.created_by.clone(), expiry(row)]
    });
    output.table(&["ID", "NAME", "CREATED", "BY", "EXPIRES"], &[], lines.collect())
}

impl From<TokenInfo> for Row {
    fn from(token: TokenInfo) -> Row {
        let TokenInfo { id, name, created_ms, expires_ms, created_by } = token;
        Row { id, name, created_ms, expires_ms, created_by }
    }
}
