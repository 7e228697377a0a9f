//! The `config` commands: what is set, by what; and trust in a root's store.

use serde_json::{Value, json};

use super::args::config::{self as args, Command};
use super::output::Output;
use super::table::{Column, Table};
use crate::config::setting::{STORE, Scope};
use crate::config::trust::{UserDir, trust};
use crate::config::{CliOverrides, Config, FileSeen, ProcessEnvironment, Standing, file};
use crate::error::{Error, ExitCode, Kind, Result, quote_path};
use crate::fs::Disk;

/// Runs one `config` command; its exit code.
pub fn run(
    command: &args::Config,
    overrides: &CliOverrides,
    config: &Config,
    output: &Output<'_>,
) -> anyhow::Result<u8> {
    match &command.command {
        None => show(overrides, config, output)?,
        Some(Command::Trust) => trust_root(config, output)?,
    }
    Ok(ExitCode::Success as u8)
}

fn show(overrides: &CliOverrides, config: &Config, output: &Output<'_>) -> anyhow::Result<()> {
    let rows = config.rows(overrides, &ProcessEnvironment);
    let (root, user) = (Some(&config.files.root), config.files.user.as_ref());
    let files = [(Scope::Root, root), (Scope::User, user)];
    let files = files.into_iter().filter_map(|(scope, seen)| Some((scope, seen?)));
    if output.is_json() {
        let settings: Vec<Value> = rows
            .iter()
            .map(|row| {
                json!({
                    "name": row.name, "value": row.value,
                    "origin": row.source.layer(), "from": row.source.place(),
                })
            })
            .collect();
        let files: Vec<Value> = files
            .map(|(scope, FileSeen { path, standing, problems })| {
                json!({
                    "scope": scope.name(), "path": path.display().to_string(),
                    "standing": standing.name(), "problems": problems,
                })
            })
            .collect();
        return output.json(&json!({"settings": settings, "files": files}));
    }
    let mut table =
        Table::new(&[Column::new("SETTING").whole(), Column::new("VALUE"), Column::new("FROM")]);
    for row in rows {
        let value = match &row.value {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        let from = row.source.place().unwrap_or_else(|| row.source.layer().to_owned());
        table.row([row.name.into(), value.into(), from.into()]);
    }
    output.table(table)?;
    for (scope, FileSeen { path, standing, .. }) in files {
        let whose = match scope {
            Scope::Root => "the root's file",
            Scope::User => "your file",
        };
        let end = match standing {
            Standing::Missing => " (there is none)",
            Standing::Refused => " (it is not used)",
            Standing::Untrusted => " (its store is not trusted)",
            Standing::Used => "",
        };
        output.line(&format!("{whose}: {}{end}", path.display()))?;
    }
    Ok(())
}

fn trust_root(config: &Config, output: &Output<'_>) -> Result<()> {
    let disk = Disk::real();
    let path = config.files.root.path.clone();
    let shown = path.display().to_string();
    let file = match file::read(&disk, Scope::Root, path.clone()) {
        file::Found::Read(file) => file,
        file::Found::Refused(error) => return Err(error),
        file::Found::Missing => {
            return Err(Error::new(
                Kind::DependencyMissing,
                format!("{shown} does not exist, so there is nothing to trust"),
            )
            .hint_command("config", "see which files are read")
            .detail("path", shown));
        }
    };
    let Some((_, _)) = file.get(STORE.name) else {
        let message = format!("{shown} names no store, so there is nothing to trust");
        return Err(Error::new(Kind::NotFound, message)
            .hint_shell(format!("cat {}", quote_path(&path)), "see what is in it")
            .detail("path", shown));
    };
    let Some(dir) = UserDir::of(&ProcessEnvironment) else {
        let message = "neither XDG_CONFIG_HOME nor HOME says where your own files are";
        return Err(Error::new(Kind::DependencyMissing, message)
            .hint_shell("export HOME=~", "then trust it again"));
    };
    let trusted = trust(&disk, &dir, &file)?;
    let store = file.get(STORE.name).and_then(|(text, _)| (STORE.parse)(text).ok()).flatten();
    let store = store.map(|url| url.to_string());
    output.confirm(
        &format!("Trusted: {} with the store {}", trusted.path, store.as_deref().unwrap_or("-")),
        &json!({"path": trusted.path, "sha256": trusted.sha256, "store": store}),
    );
    Ok(())
}
