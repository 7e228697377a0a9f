//! Each request of each step of a guard fails: not sent; lost; carried out and its answer lost;
//! refused; carried out twice. Once, each time, or with all that come after it.

use std::process::{Child, Command, Stdio};

use pipeline_state::error::{Error, Hint, Kind, Result};
use pipeline_state::etcd::client::{Client, Patience};
use pipeline_state::lock::{LockEnv, ancestry};
use pipeline_state::name::Name;
use pipeline_state::store::Settings;
use pipeline_state::store::checkpoint::Snapshot;
use pipeline_state::store::checkpoint::catalog::Which;
use pipeline_state::store::fresh::InitMode;
use pipeline_state::store::guard::Standing;
use pipeline_state::store::guard::record::Record;
use pipeline_state::store::options::WriteOptions;
use pipeline_state::store::remote::RemoteStore;
use serde_json::{Value, json};

use crate::checkpoints::check_parts;
use crate::faults::Fault::{AnswerLost, Lost, NotSent, Refused, Twice};
use crate::faults::{Fault, FaultyWire, IMPATIENT, Plan, Span};
use crate::server::{PATIENT, shared};
use crate::stores::{Place, code, document, set, settings, signal};

/// A place, and a guard that was begun there by a process of its own.
struct Scene {
    place: Place,
    process: Child,
    guard: Option<Record>,
    /// What commands under the guard show.
    env: LockEnv,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.kill();
    }
}

fn begin(store: &RemoteStore) -> Result<(Record, String)> {
    let operation = Name::parse("operation", "deploy")?;
    let begun = store.guards().begin(&Snapshot { operation, phase: None, metadata: json!({}) })?;
    Ok((begun.record.clone(), begun.shown.clone()))
}

impl Scene {
    fn new() -> Self {
        let place = Place::new();
        let store = place.store();
        store.init(InitMode::Continue, &WriteOptions::of("init")).unwrap();
        set(&store, "n", 1).unwrap();
        place.configure("a", "old");
        let process = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        Self { place, process, guard: None, env: LockEnv::default() }
    }

    /// Begins a guard, which runs as long as the process.
    fn begin(&mut self) {
        let (record, shown) = begin(&self.place.store()).unwrap();
        let process = ancestry(self.process.id()).unwrap().remove(0);
        let record = Record { process, lifeline: None, ..record };
        self.place.put(&format!("guard/{}", record.id), record.write().unwrap());
        self.guard = Some(record);
        self.env.guards = LockEnv::parse_guards(&shown);
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn record(&self) -> &Record {
        self.guard.as_ref().unwrap()
    }

    fn settings(&self) -> Settings {
        Settings { lock_env: self.env.clone(), ..settings() }
    }

    /// The guarded command: it changes the document, a signal and `config/`.
    fn change(&self) {
        let store = self.place.store_with(self.settings());
        set(&store, "n", 2).unwrap();
        signal(&store, "ready").unwrap();
        self.place.configure("a", "new");
    }

    /// A commit of another owner.
    fn other(&self, field: &str) {
        set(&self.place.elsewhere().store(), field, 3).unwrap();
    }

    fn faulty(&self, plan: &Plan, patience: Patience) -> RemoteStore {
        let wire = FaultyWire::to(shared(), plan);
        let client = Client::new(Box::new(wire), None, patience);
        self.place.store_of(client, self.settings())
    }

    fn restore(&self, store: &RemoteStore) -> Result<()> {
        store.restores().restore(&Which::Id(self.record().id.clone()), &restoring()).map(drop)
    }

    fn forget(&self, store: &RemoteStore) -> Result<()> {
        store.guards().forget(&self.record().id).map(drop)
    }
}

fn settle(store: &RemoteStore, scene: &Scene) -> Result<()> {
    store.guards().settle_failed(scene.record(), &restoring()).map(drop)
}

fn restoring() -> WriteOptions {
    WriteOptions { group: "recover", ..WriteOptions::of("restore") }
}

/// What there is: the fields that are set, the file of `config/`, and the guards.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    fields: String,
    config: &'static str,
    guards: Vec<String>,
}

impl Found {
    fn of(place: &Place) -> Self {
        let store = place.store();
        let state = document(&store);
        let given = state["signals"].get("ready").is_some();
        assert_eq!(place.value("signal/ready").is_some(), given);
        let shown = |field: &str| state.get(field).map(|value| format!("{field}={value} "));
        let fields: String = ["n", "other"].into_iter().filter_map(shown).collect();
        let config = if place.configured("a").unwrap() == "old" { "old" } else { "new" };
        let beside = |id: &str| {
            let record = Record::read(id, &place.value(&format!("guard/{id}")).unwrap());
            if record.unwrap().beside.is_some() { " beside" } else { "" }
        };
        let standing = |standing: Value| standing["standing"].as_str().unwrap().to_owned();
        let guards = store.guards().list().unwrap().into_iter();
        let guards = guards.map(|guard| standing(json!(guard.standing)) + beside(&guard.id));
        let mut guards: Vec<String> = guards.collect();
        guards.sort();
        Self { fields: format!("{fields}{}", if given { "ready" } else { "" }), config, guards }
    }

    fn without_guards(&self) -> (&str, &str) {
        (&self.fields, self.config)
    }
}

/// A step of a guard, where it begins, and what is there when it has succeeded.
struct Case {
    name: &'static str,
    prepare: fn(&mut Scene),
    run: fn(&RemoteStore, &Scene) -> Result<()>,
    /// The revisions that it makes.
    revisions: usize,
    fields: &'static str,
    config: &'static str,
    guards: &'static [&'static str],
}

const CASES: [Case; 12] = [
    Case {
        name: "begin",
        prepare: |_| {},
        run: |store, _| begin(store).map(drop),
        revisions: 0,
        fields: "n=1 ",
        config: "old",
        guards: &["running"],
    },
    Case {
        name: "begin beside another one",
        prepare: |scene| {
            scene.begin();
            scene.env = LockEnv::default();
        },
        run: |store, _| begin(store).map(drop),
        revisions: 0,
        fields: "n=1 ",
        config: "old",
        guards: &["running beside", "running beside"],
    },
    Case {
        name: "begin after one that was killed",
        prepare: |scene| {
            scene.begin();
            scene.change();
            scene.kill();
        },
        run: |store, _| begin(store).map(drop),
        revisions: 0,
        fields: "n=2 ready",
        config: "new",
        guards: &["killed", "running"],
    },
    Case {
        name: "end",
        prepare: |scene| {
            scene.begin();
            scene.change();
        },
        run: |store, scene| store.guards().end(&scene.record().id),
        revisions: 0,
        fields: "n=2 ready",
        config: "new",
        guards: &[],
    },
    Case {
        name: "put back",
        prepare: |scene| {
            scene.begin();
            scene.change();
        },
        run: settle,
        revisions: 1,
        fields: "n=1 ",
        config: "old",
        guards: &[],
    },
    Case {
        name: "put back, but not the commits of others",
        prepare: |scene| {
            scene.begin();
            scene.change();
            scene.other("other");
        },
        run: settle,
        revisions: 1,
        fields: "n=1 other=3 ",
        config: "old",
        guards: &[],
    },
    Case {
        name: "put the document back, but not the commits of others",
        prepare: |scene| {
            scene.begin();
            scene.change();
            scene.place.configure("a", "old");
            scene.other("other");
        },
        run: settle,
        revisions: 1,
        fields: "n=1 other=3 ",
        config: "old",
        guards: &[],
    },
    Case {
        name: "put nothing back where only others committed",
        prepare: |scene| {
            scene.begin();
            scene.other("other");
        },
        run: settle,
        revisions: 0,
        fields: "n=1 other=3 ",
        config: "old",
        guards: &[],
    },
    Case {
        name: "put nothing back where others changed the same",
        prepare: |scene| {
            scene.begin();
            scene.change();
            scene.other("n");
        },
        run: settle,
        revisions: 0,
        fields: "n=3 ready",
        config: "new",
        guards: &["unrestored"],
    },
    Case {
        name: "put back, but not config/ that another guard ran beside",
        prepare: |scene| {
            scene.begin();
            begin(&scene.place.store()).unwrap();
            scene.change();
            scene.other("other");
        },
        run: settle,
        revisions: 1,
        fields: "n=1 other=3 ",
        config: "new",
        guards: &["running beside", "unrestored beside"],
    },
    Case {
        name: "restore after one that was killed",
        prepare: |scene| {
            scene.begin();
            scene.change();
            scene.other("other");
            scene.kill();
        },
        run: |store, scene| scene.restore(store),
        revisions: 1,
        fields: "n=1 ",
        config: "old",
        guards: &[],
    },
    Case {
        name: "forget one that was killed",
        prepare: |scene| {
            scene.begin();
            scene.change();
            scene.kill();
        },
        run: |store, scene| scene.forget(store),
        revisions: 0,
        fields: "n=2 ready",
        config: "new",
        guards: &[],
    },
];

/// Runs `check` for each request of each step and each of these faults, until a run has no such
/// request.
fn for_each_fault(faults: &[(Fault, Span)], check: impl Fn(&Case, &mut Scene, &Plan) + Sync) {
    let check_all = |fault, span| {
        for case in &CASES {
            for number in 0.. {
                assert!(number < 50, "{} makes ever more requests", case.name);
                let mut scene = Scene::new();
                (case.prepare)(&mut scene);
                let plan = Plan::new(Some((number, fault, span)));
                check(case, &mut scene, &plan);
                if plan.calls.get() <= number {
                    break;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for (fault, span) in faults {
            scope.spawn(|| check_all(*fault, *span));
        }
    });
}

fn is_done(case: &Case, found: &Found) -> bool {
    (&*found.fields, found.config) == (case.fields, case.config) && found.guards == case.guards
}

#[test]
fn one_fault_costs_nothing_and_happens_once() {
    let faults = [NotSent, AnswerLost, Refused, Twice].map(|fault| (fault, Span::Once));
    for_each_fault(&faults, |case, scene, plan| {
        let context = format!("{} {:?}", case.name, plan.fails);
        let revisions = scene.place.below("log/").len() + case.revisions;
        let done = (case.run)(&scene.faulty(plan, PATIENT), scene);
        done.unwrap_or_else(|error| panic!("{context}: {error}"));
        let found = Found::of(&scene.place);
        assert!(is_done(case, &found), "{context}: {found:?}");
        assert_eq!(scene.place.below("log/").len(), revisions, "{context}");
        check_parts(&scene.place);
    });
}

#[test]
fn a_fault_that_stays_ends_with_the_code_that_is_true() {
    let from_then_on = [NotSent, AnswerLost, Refused].map(|fault| (fault, Span::FromThenOn));
    let each_time = [Lost, AnswerLost].map(|fault| (fault, Span::EachTime));
    for_each_fault(&[&from_then_on[..], &each_time].concat(), |case, scene, plan| {
        let before = Found::of(&scene.place);
        let revisions = scene.place.below("log/").len();
        let result = (case.run)(&scene.faulty(plan, IMPATIENT), scene);
        let found = Found::of(&scene.place);
        let made = scene.place.below("log/").len() - revisions;
        let context = format!("{} {:?} {result:?} {before:?} {found:?}", case.name, plan.fails);
        match result {
            Ok(()) => assert!(is_done(case, &found) && made == case.revisions, "{context}"),
            Err(error) => check_error(case, &error, &before, &found, &context),
        }
        check_parts(&scene.place);
        end_all(scene, plan, &context);
    });
}

fn check_error(case: &Case, error: &Error, before: &Found, found: &Found, context: &str) {
    let is_as_before = before.without_guards() == found.without_guards();
    match error.kind {
        // Nothing was put back. That may be on record.
        Kind::Unreachable => {
            assert_eq!((code(error), is_as_before), (8, true), "{context}");
            assert_eq!(before.guards.len(), found.guards.len(), "{context}");
        }
        // It may have been, and the error says which revision by which operation.
        Kind::DurabilityUnknown => {
            assert!(is_done(case, found) || is_as_before, "{context}");
            if case.name.starts_with("begin") {
                assert!(
                    error.to_text("", &"p".into()).contains("recover guard --forget"),
                    "{context}"
                );
            }
            if case.revisions > 0 {
                assert!(error.details["revision"].is_u64(), "{context}");
                assert!(error.details["operation"].is_string(), "{context}");
            }
        }
        _ => panic!("{context}"),
    }
}

/// Types what the guards on record ask for: none of them stays.
fn end_all(scene: &mut Scene, plan: &Plan, context: &str) {
    let store = scene.place.store();
    scene.kill();
    for guard in store.guards().list().unwrap() {
        if let Standing::Running = guard.standing {
            store.guards().end(&guard.id).unwrap();
            continue;
        }
        assert!(matches!(guard.standing, Standing::Killed | Standing::Unrestored(_)), "{context}");
        let typed =
            |hint: &Hint| matches!(hint, Hint::Command(typed, _) if typed.ends_with(&guard.id));
        assert!(guard.hints().iter().all(typed), "{context}");
        if plan.fails.unwrap().0.is_multiple_of(2) {
            scene.forget(&store).unwrap();
            continue;
        }
        scene.restore(&store).unwrap();
        let found = Found::of(&scene.place);
        assert_eq!(found.without_guards(), ("n=1 ", "old"), "{context}");
    }
    // What the cluster carries out only now finds that it was decided.
    let decided = Found::of(&scene.place);
    assert!(decided.guards.is_empty(), "{context}");
    if !context.starts_with("begin") {
        plan.send_late();
        assert_eq!(Found::of(&scene.place), decided, "{context}");
    }
    set(&store, "n", 9).unwrap();
    assert_eq!(store.take_warnings(), [""; 0], "{context}");
}
