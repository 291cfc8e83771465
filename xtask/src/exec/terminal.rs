//! Somebody who can be asked.

use std::io::{IsTerminal as _, Write as _};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::Result;

use super::signal;

/// A line of talk. A reader that has gone away is not an error.
pub(crate) fn say(text: &str) {
    drop(writeln!(anstream::stderr(), "{text}"));
}

/// Is there somebody who reads and can answer?
pub(crate) fn is_attended() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Waits for a line that says yes; anything else, the end of the input included, is a no.
///
/// # Errors
/// Interrupted.
pub(crate) fn says_yes() -> Result<bool> {
    let (sender, lines) = channel();
    // A read can't be interrupted; the thread that is stuck in it ends with the process.
    std::thread::spawn(move || {
        let mut line = String::new();
        drop(std::io::stdin().read_line(&mut line).map(|_| sender.send(line)));
    });
    loop {
        signal::check()?;
        match lines.recv_timeout(Duration::from_millis(50)) {
            Ok(line) => return Ok(matches!(line.trim().to_lowercase().as_str(), "y" | "yes")),
            Err(RecvTimeoutError::Disconnected) => return Ok(false),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}
