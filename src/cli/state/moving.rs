//! `state push` and `state pull`: the state moves between the files of a root and a store.

#[cfg(feature = "etcd")]
mod built;

use super::Run;
use super::args::{Pull, Push};
use crate::cli::open;
use crate::cli::output::Output;
use crate::config::Config;
use crate::config::store_url::StoreUrl;
use crate::error::{Error, Kind, Result};
use crate::fs::Disk;
use crate::store::moving::Direction;

pub(super) fn push(arguments: &Push, config: &Config, disk: Disk, output: &Output<'_>) -> Run {
    run(Direction::Push, &arguments.url, arguments.abort, config, disk, output)
}

pub(super) fn pull(arguments: &Pull, config: &Config, disk: Disk, output: &Output<'_>) -> Run {
    let url = match &arguments.url {
        Some(url) => url.clone(),
        None => known_store(config, &disk)?,
    };
    run(Direction::Pull, &url, arguments.abort, config, disk, output)
}

/// The store that the state was moved to, or the one that is configured.
fn known_store(config: &Config, disk: &Disk) -> Result<StoreUrl> {
    let marked = open::local(config, disk.clone()).moves().mark()?;
    let marked = marked.and_then(|mark| StoreUrl::parse(&mark.url).ok());
    marked.or_else(|| config.store.clone()).ok_or_else(|| {
        Error::new(Kind::Usage, "no state was moved from here, and no store is configured")
            .hint_command("state pull --help", "name the store")
    })
}

#[cfg(feature = "etcd")]
use built::run;

/// A build without the feature has no store to move to.
#[cfg(not(feature = "etcd"))]
fn run(_: Direction, url: &StoreUrl, _: bool, _: &Config, _: Disk, _: &Output<'_>) -> Run {
    let message = format!("{url} is a store on etcd, and this build has no `etcd` feature");
    let error = Error::new(Kind::DependencyMissing, message)
        .hint_shell("cargo install pipeline-state --features etcd", "a build that has it");
    Err(error.into())
}
