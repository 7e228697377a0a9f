//! The checks of the fuzz targets over the committed corpora: every input that the fuzzer kept
//! passes.

#[path = "../../fuzz/src/lib.rs"]
pub mod oracles;

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

#[test]
fn every_file_of_every_corpus_passes_the_check_of_its_target() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut names: Vec<_> =
        fs::read_dir(&corpora).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(
        names,
        oracles::TARGETS.map(|(name, _)| name),
        "a corpus for each target, and a target for each corpus"
    );
    for (name, check) in oracles::TARGETS {
        let files: Vec<_> =
            fs::read_dir(corpora.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() >= 10, "the corpus of {name} is gone");
        let failed = files.iter().filter(|file| {
            let bytes = fs::read(file).unwrap();
            catch_unwind(|| check(&bytes))
                .inspect_err(|_| eprintln!("{} fails", file.display()))
                .is_err()
        });
        let failed = failed.count();
        assert_eq!(failed, 0, "{failed} of {} files of {name} fail; see above", files.len());
        println!("{name}: {} files", files.len());
    }
}
