//! Ctrl-C: children are told at once, and everything that waits notices.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use super::terminal;
use crate::model::failure::{Failure, Kind};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static TAKES_LONGER: AtomicBool = AtomicBool::new(false);
static SINCE: OnceLock<Instant> = OnceLock::new();
static GROUPS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// How long everything may take to notice a signal, tell what was done and end.
const NOTICE: Duration = Duration::from_millis(900);

/// Starts to listen for SIGINT, SIGTERM and SIGHUP. The second signal kills what the first asked to end.
pub(crate) fn listen() {
    let handler = || {
        SINCE.get_or_init(Instant::now);
        let again = INTERRUPTED.swap(true, Ordering::SeqCst);
        stop_children(if again { Signal::KILL } else { Signal::TERM });
        if !again {
            std::thread::spawn(end_what_is_stuck);
        }
    };
    // Without a handler the default stands: the process ends, which is what the user wants anyway.
    drop(ctrlc::set_handler(handler));
}

/// A read that nothing can end must not keep the terminal. Whatever is half done is as after SIGKILL: the next run goes on.
#[expect(clippy::disallowed_methods, reason = "main is stuck")]
fn end_what_is_stuck() {
    std::thread::sleep(NOTICE);
    if !TAKES_LONGER.load(Ordering::SeqCst) {
        stop_children(Signal::KILL);
        terminal::say(
            "interrupted while waiting for what does not end; the same command again finds out what was done",
        );
        std::process::exit(i32::from(failure().exit_code()));
    }
}

/// What has been started takes more than a second to take down: ending is not forced.
pub(crate) fn takes_longer() {
    TAKES_LONGER.store(true, Ordering::SeqCst);
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

/// Of a time that everything may take together once a signal has come, what is left; all of it before.
pub(crate) fn left_of(time: Duration) -> Duration {
    SINCE.get().map_or(time, |since| time.saturating_sub(since.elapsed()))
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

/// Waits for what nothing can interrupt, but not through a signal: it is left behind then.
///
/// # Errors
/// Interrupted, or the machine gives no more threads.
pub(crate) fn wait_for<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
    let (sender, done) = channel();
    let body = move || drop(sender.send(work()));
    let lost = || Failure::environment("a thread ended without its result");
    std::thread::Builder::new().spawn(body).map_err(|error| Failure::environment(format!("no thread: {error}")))?;
    loop {
        check()?;
        match done.recv_timeout(Duration::from_millis(20)) {
            Ok(result) => return Ok(result),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(lost().into()),
        }
    }
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

    /// One that no signal reaches but through this.
    pub(crate) const fn apart(leader: u32) -> Self {
        Self(leader)
    }

    pub(crate) fn signal(&self, which: Signal) {
        signal(self.0, which);
    }

    /// Asks all of it to end, then makes it: who ignores the one can't ignore the other.
    pub(crate) fn end(&self, grace: Duration) {
        let end = Instant::now() + grace;
        self.signal(Signal::TERM);
        while self.exists() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.signal(Signal::KILL);
    }

    fn exists(&self) -> bool {
        let pid = i32::try_from(self.0).ok().and_then(Pid::from_raw);
        pid.is_some_and(|pid| test_kill_process_group(pid).is_ok())
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
