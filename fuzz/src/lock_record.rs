//! What is on record for a lock: it reads back as it was written, or it is torn.

use pipeline_state::lock::Record;

pub fn check(bytes: &[u8]) {
    reads_back(bytes);
    if let Some(sealed) = super::resealed(bytes) {
        reads_back(&sealed);
    }
}

fn reads_back(bytes: &[u8]) {
    let Ok(record) = Record::parse(bytes) else { return };
    let written = record.to_bytes();
    let again = Record::parse(&written).expect("what was written can be read");
    assert_eq!(format!("{again:?}"), format!("{record:?}"));
    assert_eq!(again.to_bytes(), written);
    for grant in &record.holders {
        let found = record.grant(grant.token).expect("who is on record is found");
        assert_eq!(found.token, grant.token);
    }
    for waiter in &record.waiters {
        assert!(record.position_of(&waiter.process).is_some(), "who waits has a place");
    }
}
