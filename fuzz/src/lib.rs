//! What must hold of any bytes at all that are read from a file of ours: a module for each fuzz
//! target, whose `check` panics where it does not. `cargo test` runs the same checks over the
//! committed corpora (tests/suite/corpus.rs).
//!
//! A new target is a module here, a row in [`TARGETS`], three lines in `targets/`, a `[[bin]]` in
//! `Cargo.toml` and a directory in `corpus/`. To run one, and to keep of what it found only what
//! adds to it:
//!
//! ```sh
//! cargo +nightly fuzz run document -- -max_total_time=300
//! cargo +nightly fuzz cmin document
//! ```

pub mod document;
pub mod intent;
pub mod lock_record;
pub mod manifest;
pub mod skill_rules;

use pipeline_state::document::json;
use pipeline_state::document::seal::with_digest;

/// Panics where bytes are read otherwise than they should be.
pub type Check = fn(&[u8]);

/// The checks by their targets' names.
pub const TARGETS: [(&str, Check); 5] = [
    ("document", document::check),
    ("intent", intent::check),
    ("lock_record", lock_record::check),
    ("manifest", manifest::check),
    ("skill_rules", skill_rules::check),
];

/// The same record with the digest that its bytes have, if it is an object: no fuzzer finds a
/// digest by itself.
fn resealed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut value = json::parse(bytes).ok()?;
    value.as_object_mut()?.shift_remove("digest");
    with_digest(value)
}
