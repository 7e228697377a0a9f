//! The record of a restore that is decided: it reads back as it was written, or it is refused.

use pipeline_state::error::Kind;
use pipeline_state::store::restore::intent::Intent;

pub fn check(bytes: &[u8]) {
    reads_back(bytes);
    if let Some(sealed) = super::resealed(bytes) {
        reads_back(&sealed);
    }
}

fn reads_back(bytes: &[u8]) {
    match Intent::read(bytes) {
        Ok(intent) => {
            let written = intent.write().expect("what was read can be written");
            assert_eq!(Intent::read(&written).expect("what was written can be read"), intent);
        }
        Err(error) => assert!(matches!(error.kind, Kind::Corrupt | Kind::NewerSchema), "{error:?}"),
    }
}
