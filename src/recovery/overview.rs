//! An overview for an operator in trouble: the state, interrupted work, disabled features, the last
//! errors.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::audit::ErrorLogEntry;
use crate::document::degraded::Degraded;
use crate::error::{self, Error, ExitCode, Hint};
use crate::store::Store;
use crate::store::checkpoint::catalog::Which;
use crate::store::diagnosis::HealthKind;
use crate::store::guard::OnRecord;
use crate::store::restore::Interrupted;

/// Lines of the error log that are shown.
const LAST: usize = 10;

/// The overview.
#[derive(Debug, Serialize)]
pub struct Overview {
    /// The state file.
    pub path: String,
    /// The diagnosis; `None` where it could not be made.
    #[serde(serialize_with = "health_or_unknown")]
    pub health: Option<HealthKind>,
    /// The current revision.
    pub revision: Option<u64>,
    /// The checkpoint of an interrupted restore.
    pub interrupted_restore: Option<String>,
    /// The reason why the next command cannot finish it.
    #[serde(skip)]
    pub restore_obstacle: Option<String>,
    /// The guards on record.
    pub guards: Vec<OnRecord>,
    /// Degraded mode.
    #[serde(skip)]
    pub degraded: Degraded,
    /// The number of checkpoints.
    pub checkpoints: usize,
    /// The newest that was made explicitly.
    pub newest_checkpoint: Option<String>,
    /// Errors at the end of the error log, by exit code.
    pub errors: BTreeMap<u8, usize>,
    /// The last lines of the error log.
    pub last_errors: Vec<ErrorLogEntry>,
    /// The commands to type next, where there is a problem.
    #[serde(skip)]
    pub next: Vec<Hint>,
}

/// The diagnosis in a word or two.
pub fn health_name(health: Option<HealthKind>) -> &'static str {
    health.map_or("unknown", HealthKind::name)
}

fn health_or_unknown<S: Serializer>(
    health: &Option<HealthKind>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(health_name(*health))
}

impl Overview {
    /// Examines everything and changes nothing. What cannot be examined is reported as part of the
    /// overview; a store that is out of reach is an error.
    pub fn of(store: &Store) -> error::Result<Self> {
        let (health, revision, refusal) = match store.report().status() {
            Ok((status, refusal)) => {
                (Some(status.document.health), status.document.revision, refusal)
            }
            Err(error) if error.code() == ExitCode::NetworkError => return Err(error),
            Err(error) => (None, None, Some(error)),
        };
        let document = store.report().read_as_it_is().ok().flatten();
        let mut errors = BTreeMap::new();
        let mut noted = store.logs().errors();
        noted.retain(ErrorLogEntry::is_error);
        for ErrorLogEntry { code, .. } in noted.iter().filter(|noted| noted.is_ours()) {
            *errors.entry(*code).or_default() += 1;
        }
        let last_errors = noted.split_off(noted.len().saturating_sub(LAST));
        let obstacle = store.restores().obstacle();
        let interrupted = store.restores().interrupted().ok().flatten();
        let mut next = refusal.map_or_else(Vec::new, |Error { hints, .. }| hints);
        let interrupted_restore = match interrupted {
            Some(Interrupted::Ours(id)) => {
                next.extend(obstacle.iter().flat_map(|error| error.hints.clone()));
                let finishes = "finishes the interrupted restore, like every command";
                if obstacle.is_none() {
                    next.push(Hint::Command("state read".to_owned(), finishes.to_owned()));
                }
                Some(id)
            }
            Some(Interrupted::Foreign(refusal)) => {
                next.extend(refusal.hints);
                None
            }
            None => None,
        };
        let guards = store.guards().list().unwrap_or_default();
        next.extend(guards.iter().flat_map(OnRecord::hints));
        let degraded = document.map(|document| Degraded::of(&document)).unwrap_or_default();
        if degraded.is_on {
            next.push(Hint::Command(
                "recover recover-mode".to_owned(),
                "back to normal".to_owned(),
            ));
        }
        if last_errors.iter().any(ErrorLogEntry::is_ours) {
            next.push(Hint::Command("recover doctor".to_owned(), "check everything".to_owned()));
        }
        Ok(Self {
            path: store.place(),
            health,
            revision,
            interrupted_restore,
            restore_obstacle: obstacle.map(|error| error.message),
            guards,
            degraded,
            checkpoints: store.checkpoints().ids().map_or(0, |ids| ids.len()),
            newest_checkpoint: store
                .checkpoints()
                .find(&Which::Latest(None))
                .ok()
                .map(|checkpoint| checkpoint.id),
            errors,
            last_errors,
            next,
        })
    }
}
