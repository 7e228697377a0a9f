//! A checkpoint's manifest: it reads back as it was written and names nothing outside the
//! checkpoint, or it is refused. And its metadata.

use std::path::{Component, Path};

use pipeline_state::store::checkpoint::manifest::{self, Metadata};

pub fn check(bytes: &[u8]) {
    reads_back(bytes);
    if let Some(sealed) = super::resealed(bytes) {
        reads_back(&sealed);
    }
    if let Some(metadata) = Metadata::read(bytes) {
        let written = metadata.write().expect("what was read can be written");
        let again = Metadata::read(&written).expect("what was written can be read");
        assert_eq!(format!("{again:?}"), format!("{metadata:?}"));
    }
}

fn reads_back(bytes: &[u8]) {
    let Ok(listing) = manifest::read(bytes) else { return };
    let written = manifest::write(&listing, manifest::LIMIT).expect("what was read can be written");
    assert_eq!(manifest::read(&written).expect("what was written can be read"), listing);
    for entry in listing.entries() {
        let stays =
            Path::new(&entry.path).components().all(|part| matches!(part, Component::Normal(_)));
        assert!(
            stays && !entry.path.is_empty() && !entry.path.contains('\0'),
            "{:?} is outside",
            entry.path
        );
        assert!(entry.mode <= 0o7777 && (0..1_000_000_000).contains(&entry.mtime.1), "{entry:?}");
    }
}
