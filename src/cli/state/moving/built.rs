//! Moves in a build with the feature `etcd`.

use serde_json::json;

use super::super::Run;
use crate::cli::open;
use crate::cli::output::Output;
use crate::config::Config;
use crate::config::store_url::StoreUrl;
use crate::error::{Error, ExitCode, Result};
use crate::etcd::address::Address;
use crate::fs::Disk;
use crate::plural::count;
use crate::store::moving::{Direction, GivenUp, Moved};

pub(super) fn run(
    direction: Direction,
    url: &StoreUrl,
    gives_up: bool,
    config: &Config,
    disk: Disk,
    output: &Output<'_>,
) -> Run {
    let root = open::local(config, disk.clone());
    root.locks().on_wait(output.wait_notice());
    let action = match direction {
        Direction::Push => "state push",
        Direction::Pull => "state pull",
    };
    let mut warnings = Vec::new();
    let work = || -> Result<()> {
        let store = open::cluster::open(url, config, disk)?;
        store.on_wait(Box::new(output.wait_notice()));
        let done = match gives_up {
            true => store.moves().give_up(direction, &root).map(|done| show_end(done, url, output)),
            false => store.moves().run(direction, &root).map(|done| show(direction, &done, output)),
        };
        warnings = store.take_warnings();
        done
    };
    let of_cluster = |error: Error| match Address::parse(url.as_str()) {
        Ok(address) => error.with_etcdctl(&address.etcdctl()),
        Err(_) => error,
    };
    let result = work().map_err(of_cluster);
    if let Err(error) = &result {
        root.logs().record_refusal(action, error);
    }
    for warning in warnings.into_iter().chain(root.take_warnings()) {
        output.warning(&warning);
    }
    result?;
    Ok(ExitCode::Success)
}

fn show(direction: Direction, moved: &Moved, output: &Output<'_>) {
    let head = match direction {
        Direction::Push => format!("State moved to {}", moved.url),
        Direction::Pull => format!("State brought back from {}", moved.url),
    };
    let text = format!(
        "{head}: revision {}, {}, {}",
        moved.revision,
        count(moved.backups, "backup"),
        count(moved.signals, "signal")
    );
    let facts = json!({
        "store": moved.url, "lineage": moved.lineage.as_str(), "revision": moved.revision.get(),
        "backups": moved.backups, "signals": moved.signals,
    });
    output.confirm(&text, &facts);
    if direction == Direction::Push {
        let url = crate::error::quote(&moved.url);
        output.progress_line(&format!("To work with it: export PIPELINE_STORE={url}"));
    }
}

fn show_end(done: GivenUp, url: &StoreUrl, output: &Output<'_>) {
    let text = match done {
        GivenUp::TakenBack => "Move given up",
        GivenUp::Nothing => "No move was interrupted",
    };
    let facts = json!({"store": url.to_string(), "taken_back": done == GivenUp::TakenBack});
    output.confirm(text, &facts);
}
