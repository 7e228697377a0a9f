//! A hook's time limit: a person in front of the editor waits for the hook.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::super::output::show_error;
use crate::config::OutputStyle;
use crate::error::{Error, ExitCode, Invocation, Kind};

/// Ends the hook in any case. The promise is 5 s; a busy machine needs some margin.
const WHOLE: Duration = Duration::from_millis(4700);
/// Ends a wait for the lock. The commit uses the remaining time.
const LOCK: Duration = Duration::from_secs(4);
/// Ends the wait for the event, with time left for the lock.
const INPUT: Duration = Duration::from_millis(2500);

/// The time limit of one run, after which the process ends. A second thread ends it in time: a disk
/// that hangs or a slow pattern cannot be interrupted otherwise. A commit cut off so is old or new,
/// as after any kill.
#[derive(Debug)]
pub struct Bound {
    began: Instant,
    stage: Arc<Mutex<Stage>>,
    style: OutputStyle,
    invocation: Invocation,
}

/// The effect of ending now.
#[derive(Debug, Default)]
enum Stage {
    /// The event is not known yet.
    #[default]
    ParsedRules,
    /// These effects may be lost.
    Recording(String),
    /// The editor has its answer.
    Answered,
}

impl Bound {
    /// Starts the clock.
    pub fn begin(style: OutputStyle, invocation: Invocation) -> Self {
        Self { began: Instant::now(), stage: Arc::default(), style, invocation }
    }

    /// Starts the watch. That is a tenth of a short hook's time, so it comes before whatever may
    /// take long, and not before an event of a tool is known to be one that a rule may be about.
    pub fn watch(&self) {
        let (seen, style, invocation) =
            (Arc::clone(&self.stage), self.style, self.invocation.clone());
        let left = WHOLE.saturating_sub(self.began.elapsed());
        let watch = move || {
            std::thread::sleep(left);
            let code =
                end(&seen.lock().unwrap_or_else(PoisonError::into_inner), style, &invocation);
            std::process::exit(code as i32);
        };
        // Without a second thread the limits below still apply.
        let _ = std::thread::Builder::new().stack_size(256 << 10).spawn(watch);
    }

    /// Deadline of the event.
    pub fn input(&self) -> Instant {
        self.began + INPUT
    }

    /// The wanted lock timeout, capped by the remaining time.
    pub fn patience(&self, wanted: Duration) -> Duration {
        wanted.min(LOCK.saturating_sub(self.began.elapsed()))
    }

    /// From now on a timeout may lose this.
    pub fn records(&self, what: &str) {
        self.set(Stage::Recording(what.to_owned()));
    }

    /// The editor has its answer; a timeout is a success from now on.
    pub fn answered(&self) {
        self.set(Stage::Answered);
    }

    fn set(&self, stage: Stage) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }
}

fn end(stage: &Stage, style: OutputStyle, invocation: &Invocation) -> ExitCode {
    let took = format!("the hook was ended after {} s", WHOLE.as_secs_f64());
    let (message, code) = match stage {
        Stage::ParsedRules => (took, ExitCode::General),
        Stage::Recording(what) => {
            (format!("{took}; {what} may not be recorded"), ExitCode::General)
        }
        Stage::Answered => {
            (format!("{took}; what it announced may not be recorded"), ExitCode::Success)
        }
    };
    let error = Error::new(Kind::WaitTimeout, message).detail("exit", code as u8);
    show_error(&error.hint_command("recover doctor", "see what is the matter"), invocation, style);
    code
}
