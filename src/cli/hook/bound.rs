//! A hook's time: whatever it waits for, the person in front of the editor waits, too.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::super::output::show_error;
use crate::config::Look;
use crate::error::{Error, ExitCode, Kind};

/// After which a hook ends, whatever it is at. 5 s are promised, and a busy machine takes its time, too.
const WHOLE: Duration = Duration::from_millis(4700);
/// By when a wait for the lock ends. The commit that follows has the rest.
const LOCK: Duration = Duration::from_secs(4);
/// How long the event may take to come in; a wait for the lock still fits behind it.
const INPUT: Duration = Duration::from_millis(2500);

/// The time of one run. While it lives, a second thread sees to it that the process ends in time: a disk that hangs or a
/// pattern that takes for ever listens to nothing else. A commit that is cut off so is old or new, as after any death.
#[derive(Debug)]
pub struct Bound {
    began: Instant,
    stage: Arc<Mutex<Stage>>,
    _alive: Sender<()>, // dropping it ends the watch
}

/// What it would mean to end now.
#[derive(Debug, Default)]
enum Stage {
    /// Nothing is known yet.
    #[default]
    Reading,
    /// This may get lost.
    Recording(String),
    /// The editor has its answer.
    Answered,
}

impl Bound {
    /// Begins now.
    pub fn begin(look: Look) -> Self {
        let (alive, watched) = channel::<()>();
        let stage = Arc::new(Mutex::new(Stage::default()));
        let seen = Arc::clone(&stage);
        let watch = move || {
            if watched.recv_timeout(WHOLE) == Err(RecvTimeoutError::Timeout) {
                let code = end(&seen.lock().unwrap_or_else(PoisonError::into_inner), look);
                std::process::exit(code as i32);
            }
        };
        // Without a second thread the waits below are bounded all the same.
        let _ = std::thread::Builder::new().stack_size(256 << 10).spawn(watch);
        Self { began: Instant::now(), stage, _alive: alive }
    }

    /// Until when to wait for the event.
    pub fn input(&self) -> Instant {
        self.began + INPUT
    }

    /// How long a wait for the lock may be that was to be this long.
    pub fn patience(&self, wanted: Duration) -> Duration {
        wanted.min(LOCK.saturating_sub(self.began.elapsed()))
    }

    /// From here on this is lost if time runs out, as far as anybody can tell.
    pub fn records(&self, what: &str) {
        self.set(Stage::Recording(what.to_owned()));
    }

    /// The editor has its answer, and an end is none the worse for it.
    pub fn answered(&self) {
        self.set(Stage::Answered);
    }

    fn set(&self, stage: Stage) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }
}

fn end(stage: &Stage, look: Look) -> ExitCode {
    let took = format!("the hook was ended after {} s", WHOLE.as_secs_f64());
    let (message, code) = match stage {
        Stage::Reading => (took, ExitCode::General),
        Stage::Recording(what) => (format!("{took}; {what} may not be recorded"), ExitCode::General),
        Stage::Answered => (format!("{took}; what it announced may not be recorded"), ExitCode::Success),
    };
    let error = Error::new(Kind::WaitTimeout, message).detail("exit", code as u8);
    show_error(&error.try_command("recover doctor", "see what is the matter"), "pipeline-state", look);
    code
}
