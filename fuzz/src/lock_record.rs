//! What is on record for a lock: it reads back as it was written, or it is torn.

use pipeline_state::lock::files::encoding::{decode, encode};

pub fn check(bytes: &[u8]) {
    reads_back(bytes);
    if let Some(sealed) = super::resealed(bytes) {
        reads_back(&sealed);
    }
}

fn reads_back(bytes: &[u8]) {
    let Ok(record) = decode(bytes) else { return };
    let written = encode(&record);
    let again = decode(&written).expect("what was written can be read");
    assert_eq!(format!("{again:?}"), format!("{record:?}"));
    assert_eq!(encode(&again), written);
    for grant in &record.holders {
        let found = record.grant(grant.token).expect("who is on record is found");
        assert_eq!(found.token, grant.token);
    }
    for waiter in &record.waiters {
        assert!(record.position_of(&waiter.process).is_some(), "who waits has a place");
    }
}
