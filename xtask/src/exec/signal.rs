//! Ctrl-C: children are told at once, and everything that waits notices.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::model::failure::{Failure, Kind};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static GROUPS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Starts to listen for SIGINT, SIGTERM and SIGHUP. The second signal kills what the first asked to end.
pub(crate) fn listen() {
    let handler = || {
        let again = INTERRUPTED.swap(true, Ordering::SeqCst);
        stop_children(if again { Signal::KILL } else { Signal::TERM });
    };
    // Without a handler the default stands: the process ends, which is what the user wants anyway.
    drop(ctrlc::set_handler(handler));
}

/// Signals everything that runs; this process goes on.
pub(crate) fn stop_children(which: Signal) {
    for group in GROUPS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        signal(*group, which);
    }
}

pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Does anything run that we have started?
pub(crate) fn has_children() -> bool {
    !GROUPS.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
}

/// The error every wait ends with once a signal has come.
pub(crate) fn failure() -> Failure {
    Failure::new(Kind::Interrupted, "interrupted")
}

/// Ends what goes on once a signal has come.
///
/// # Errors
/// Interrupted.
pub(crate) fn check() -> anyhow::Result<()> {
    if interrupted() { Err(failure().into()) } else { Ok(()) }
}

/// Sleeps, but not through a signal.
///
/// # Errors
/// Interrupted.
pub(crate) fn sleep(duration: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        if interrupted() {
            return Err(failure().into());
        }
        std::thread::sleep(Duration::from_millis(25).min(end.saturating_duration_since(Instant::now())));
    }
    Ok(())
}

/// A process group that a signal reaches for as long as this lives.
pub(crate) struct Group(u32);

impl Group {
    pub(crate) fn register(leader: u32) -> Self {
        GROUPS.lock().unwrap_or_else(PoisonError::into_inner).insert(leader);
        Self(leader)
    }

    pub(crate) fn signal(&self, which: Signal) {
        signal(self.0, which);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        GROUPS.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

fn signal(group: u32, which: Signal) {
    if let Some(pid) = i32::try_from(group).ok().and_then(Pid::from_raw) {
        // Gone already is fine.
        kill_process_group(pid, which).unwrap_or_default();
    }
}
