//! A line on a terminal for what takes longer than a second, gone when it is done. Elsewhere there
//! is none.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Delay before the first line, and the interval between updates.
const BEAT: Duration = Duration::from_secs(1);

/// A running operation; dropping this ends it.
#[derive(Debug)]
pub struct Progress {
    over: Option<Sender<()>>,
    teller: Option<JoinHandle<()>>,
}

impl Progress {
    /// Begins to count if standard error is a terminal.
    pub fn begin(what: String) -> Self {
        if !io::stderr().is_terminal() {
            return Self { over: None, teller: None };
        }
        let (over, ends) = channel();
        let teller = std::thread::Builder::new().spawn(move || {
            let began = Instant::now();
            let mut is_shown = false;
            while ends.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                is_shown = true;
                say(&format!("\r{what}: {} s\u{1b}[K", began.elapsed().as_secs()));
            }
            if is_shown {
                say("\r\u{1b}[K");
            }
        });
        Self { over: Some(over), teller: teller.ok() }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.over.take();
        if let Some(teller) = self.teller.take() {
            let _ = teller.join();
        }
    }
}

fn say(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}
