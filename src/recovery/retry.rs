//! Runs a command until it succeeds, with growing pauses.

use std::ffi::OsString;
use std::process::Command;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::child::{Cause, Forwarder, code_of, code_of_signal, not_run, wait};
use crate::error::{Error, Kind};

/// Exit codes that are not retried: not executable, not found, and ended on request by SIGINT or
/// SIGTERM.
const FINAL: [u8; 4] = [126, 127, 128 + SIGINT as u8, 128 + SIGTERM as u8];

/// The pause after each failure: twice the previous one, up to a maximum, less up to half of it at
/// random, so that commands that failed together do not retry together ("equal jitter": Brooker,
/// "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// The pause after the first failure.
    pub base: Duration,
    /// The longest pause.
    pub max: Duration,
}

impl Schedule {
    /// The pause after this many failures, at least one; `chance` is any number between 0 and
    /// `u32::MAX`.
    pub fn pause(&self, failures: u32, chance: u32) -> Duration {
        let doubled = 2_u32
            .checked_pow(failures.saturating_sub(1))
            .and_then(|factor| self.base.checked_mul(factor));
        let whole = doubled.map_or(self.max, |pause| pause.min(self.max));
        whole / 2 + (whole / 2).mul_f64(f64::from(chance) / f64::from(u32::MAX))
    }

    /// A random pause after this many failures.
    pub fn draw(&self, failures: u32) -> Duration {
        self.pause(failures, chance())
    }
}

/// The result of an attempt and the pause until the next, in words.
pub fn describe_retry(attempt: u32, attempts: u32, code: u8, pause: Duration) -> String {
    format!(
        "attempt {attempt} of {attempts} ended with {code}; the next begins in {}",
        seconds(pause)
    )
}

/// A time in seconds: in tenths, and below one second with as many digits as are significant.
fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if time.is_zero() || seconds >= 0.95 {
        return format!("{seconds:.1} s");
    }
    let digits = if seconds >= 0.095 { 1 } else { 3 };
    format!("{seconds:.digits$} s")
}

/// The attempts and pauses of a retried command.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The number of attempts.
    pub attempts: u32,
    /// The pauses between them.
    pub schedule: Schedule,
    /// The time limit for all attempts together.
    pub timeout: Option<Duration>,
    /// The exit codes that are retried; empty: all that may be.
    pub retry_on: Vec<u8>,
    /// Additional variables in the command's environment.
    pub environment: Vec<(&'static str, String)>,
}

impl Ended {
    /// The failure in words, for the error log.
    pub fn outcome(&self) -> String {
        let attempts = if self.attempts == 1 { "attempt" } else { "attempts" };
        format!(
            "failed for good after {} {attempts} with its exit code {}",
            self.attempts, self.code
        )
    }
}

/// The end of a retried command.
#[derive(Debug)]
pub struct Ended {
    /// The command's last exit code, or 128 plus the signal that ended the wait for the next
    /// attempt.
    pub code: u8,
    /// The number of attempts.
    pub attempts: u32,
    /// The reason why it could not be started.
    pub error: Option<Error>,
    /// Whether the time limit ended it.
    pub timed_out: bool,
}

impl Policy {
    /// Runs a command until it succeeds or a retry is pointless. The callback receives a message
    /// before each pause, and when the time is up.
    pub fn run(&self, command: &[OsString], signals: &Forwarder, notify: &dyn Fn(&str)) -> Ended {
        let deadline = self.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let limit = seconds(self.timeout.unwrap_or_default());
        let program = command.first().map(|program| program.to_string_lossy()).unwrap_or_default();
        let mut attempts = 0;
        let mut code = 0;
        let mut timed_out = false;
        while attempts < self.attempts {
            if let Some(signal) = signals.interrupt() {
                return Ended {
                    code: code_of_signal(signal),
                    attempts,
                    error: None,
                    timed_out: false,
                };
            }
            match run_once(command, &self.environment, signals, deadline) {
                Ok((its, cause)) => {
                    code = its;
                    attempts += 1;
                    if cause == Cause::Deadline {
                        notify(&format!(
                            "{program} was terminated: the time limit of {limit} was reached in \
                             attempt {attempts}"
                        ));
                        timed_out = true;
                        break;
                    }
                }
                Err(error) => {
                    return Ended {
                        code: error.code() as u8,
                        attempts,
                        error: Some(error),
                        timed_out: false,
                    };
                }
            }
            if !self.may_retry(code) || attempts == self.attempts || signals.interrupt().is_some() {
                break;
            }
            let pause = self.schedule.draw(attempts);
            if deadline.is_some_and(|deadline| Instant::now() + pause >= deadline) {
                let of = self.attempts;
                notify(&format!(
                    "attempt {attempts} of {of} ended with {code}; \
                     the time of {limit} leaves none for another"
                ));
                timed_out = true;
                break;
            }
            notify(&describe_retry(attempts, self.attempts, code, pause));
            signals.pause(pause);
        }
        Ended { code, attempts, error: None, timed_out }
    }

    fn may_retry(&self, code: u8) -> bool {
        code != 0
            && !FINAL.contains(&code)
            && (self.retry_on.is_empty() || self.retry_on.contains(&code))
    }
}

fn run_once(
    command: &[OsString],
    environment: &[(&'static str, String)],
    signals: &Forwarder,
    deadline: Option<Instant>,
) -> Result<(u8, Cause), Error> {
    let [program, arguments @ ..] = command else {
        return Err(Error::new(Kind::Usage, "there is no command"));
    };
    let mut child = Command::new(program)
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .spawn()
        .map_err(|error| not_run(program, &error))?;
    signals.begin(child.id());
    let ended = wait(&mut child, deadline);
    signals.end();
    let (status, cause) = ended.map_err(|error| {
        Error::new(Kind::of_io(&error), format!("cannot wait for the command: {error}"))
    })?;
    Ok((code_of(status), cause))
}

/// A random number; the middle one where the system has none.
fn chance() -> u32 {
    let mut bytes = [0; 4];
    match crate::os::fill_random(&mut bytes) {
        Ok(()) => u32::from_ne_bytes(bytes),
        Err(_) => u32::MAX / 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_maximum_with_jitter() {
        let schedule = Schedule { base: Duration::from_secs(2), max: Duration::from_secs(60) };
        for (failures, whole) in
            [(1, 2), (2, 4), (3, 8), (4, 16), (5, 32), (6, 60), (7, 60), (200, 60), (u32::MAX, 60)]
        {
            let whole = Duration::from_secs(whole);
            assert_eq!(schedule.pause(failures, 0), whole / 2, "{failures}");
            assert_eq!(schedule.pause(failures, u32::MAX), whole, "{failures}");
            let middle = schedule.pause(failures, u32::MAX / 2);
            assert!(middle > whole / 2 && middle < whole, "{failures}");
        }
    }

    #[test]
    fn a_short_time_is_not_shown_as_none() {
        let shown = [0, 1, 10, 73, 99, 500, 949, 1000, 61_000]
            .map(|millis| seconds(Duration::from_millis(millis)));
        assert_eq!(
            shown,
            [
                "0.0 s", "0.001 s", "0.010 s", "0.073 s", "0.1 s", "0.5 s", "0.9 s", "1.0 s",
                "61.0 s"
            ]
            .map(str::to_owned)
        );
    }

    #[test]
    fn no_base_is_no_pause_and_a_long_one_is_cut() {
        let none = Schedule { base: Duration::ZERO, max: Duration::from_secs(60) };
        assert_eq!(none.pause(9, u32::MAX), Duration::ZERO);
        let long = Schedule { base: Duration::from_secs(u64::MAX), max: Duration::from_secs(1) };
        assert_eq!(long.pause(2, u32::MAX), Duration::from_secs(1));
    }
}
