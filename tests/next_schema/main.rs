//! A program of the next schema takes over the files of today's release, and today's release
//! refuses the files of that one.
//!
//! This binary is both: under the name `pipeline-state` it is the program with schema 1.1, under
//! its own name it runs the tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../suite/sandbox.rs"]
#[allow(dead_code)]
mod sandbox;
mod states;
mod takes_over;
mod todays_release;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Arguments, Trial};
use pipeline_state::document::schema::{Field, Migration, Need, Schema, V1_0, take_up};
use serde_json::{Map, Value};

use crate::sandbox::{Ran, Sandbox};

const NAME: &str = "pipeline-state";

/// The fields of 1.0, and one more that must be there.
static FIELDS: [Field; 9] = {
    let pipeline = Field::new("pipeline", Need::Required, Value::is_string, "a string");
    let mut fields = [pipeline; 9];
    let mut place = 0;
    while place < V1_0.fields.len() {
        fields[place] = V1_0.fields[place];
        place += 1;
    }
    fields
};
static V1_1: Schema = Schema {
    version: "1.1",
    fields: &FIELDS,
    steps: &[Migration { from: "1.0", apply: name_pipeline }],
};

/// The pipeline gets a name field of its own; it was part of the metadata.
fn name_pipeline(fields: &mut Map<String, Value>) {
    let named = fields.get("metadata").and_then(|metadata| metadata.get("pipeline")).cloned();
    fields.entry("pipeline").or_insert_with(|| named.unwrap_or_else(|| "default".into()));
}

/// The program of the next schema.
#[derive(Clone)]
pub struct Next(PathBuf);

impl Next {
    /// Runs in this root.
    pub fn command(&self, root: &Sandbox) -> Command {
        let mut command = root.program(&self.0);
        command.env("PIPELINE_BINARY", &self.0);
        command
    }

    /// Runs the program with these words, split at spaces.
    pub fn run(&self, root: &Sandbox, words: &str) -> Ran {
        Ran::of(self.command(root).args(words.split_whitespace()).output().unwrap())
    }

    /// Runs the program and expects success; returns standard output without its last newline.
    #[track_caller]
    pub fn ok(&self, root: &Sandbox, words: &str) -> String {
        self.run(root, words).expect(0).stdout.trim_end().to_owned()
    }
}

fn main() {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments
        .first()
        .is_some_and(|program| Path::new(program).file_name() == Some(NAME.as_ref()))
    {
        assert!(take_up(&V1_1));
        std::process::exit(pipeline_state::cli::main(arguments).into());
    }
    // Not a symbolic link: the program runs itself by the path that /proc has.
    let own = std::env::current_exe().unwrap();
    let directory = tempfile::tempdir_in(own.parent().unwrap()).unwrap();
    let next = Next(directory.path().join(NAME));
    std::fs::hard_link(&own, &next.0).unwrap();

    let claims = takes_over::CLAIMS.iter().chain(todays_release::CLAIMS);
    let trials = claims.map(|(name, claim)| {
        let next = next.clone();
        Trial::test(*name, move || {
            claim(&next);
            Ok(())
        })
    });
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials.collect());
    drop(directory);
    conclusion.exit();
}

/// A claim that a test holds up.
pub type Claim = (&'static str, fn(&Next));
