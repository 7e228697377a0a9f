//! A push that the store does not know yet.

use pipeline_state::error::Kind;
use pipeline_state::store::fresh::InitMode;
use pipeline_state::store::layout::MOVED;
use pipeline_state::store::moving::Direction;
use pipeline_state::store::options::WriteOptions;

use crate::moving::{dying_disk, root_on, with_state};
use crate::stores::{Place, code, set};

#[test]
fn a_push_that_the_store_does_not_know_yet_is_moving_on_its_host() {
    let is_marked = |place: &Place| place.root.path().join(MOVED).exists();
    let marked = (1..200).map(|nth| {
        let place = with_state();
        let pushed =
            place.store().moves().run(Direction::Push, &root_on(&place, dying_disk(nth).0));
        assert!(pushed.is_err());
        place
    });
    let place = marked.into_iter().find(is_marked).unwrap();
    assert_eq!(place.value("meta"), None);
    let store = place.store();
    let begin = |mode| store.init(mode, &WriteOptions::of("init")).unwrap_err();
    for error in [
        store.read().unwrap_err(),
        set(&store, "n", 1).unwrap_err(),
        begin(InitMode::Continue),
        begin(InitMode::Fresh),
        store.report().status().unwrap().1.unwrap(),
    ] {
        assert_eq!((code(&error), error.kind), (3, Kind::Moving), "{error}");
        assert!(error.to_text("", &"p".into()).contains("--abort"), "{error}");
    }
    // Another host knows nothing of it.
    let elsewhere = place.elsewhere().store().read().unwrap_err();
    assert_eq!(elsewhere.kind, Kind::NotInitialized);
}
