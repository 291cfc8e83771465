//! Many things that wait, at once: a thread each, so many for one host, and none can hold up the end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::signal;
use crate::model::failure::Failure;

/// Enough for a TLS handshake; a thousand of them take only the memory that they touch.
const STACK: usize = 512 << 10;

/// How many run at once at all.
const MOST: usize = 512;

/// How long after its limit something is given up that should have ended by itself.
const GRACE: Duration = Duration::from_millis(1500);

/// How long children may take to end after a signal.
const LAST_WORDS: Duration = Duration::from_millis(650);

/// Something that waits.
pub(crate) struct Job<T> {
    /// Whom it asks; only so many ask the same at once.
    pub(crate) lane: String,
    pub(crate) at_once: usize,
    /// It ends by itself within this.
    pub(crate) limit: Duration,
    pub(crate) work: Box<dyn FnOnce() -> T + Send>,
}

/// What there is to tell while it goes on.
pub(crate) enum Event {
    /// The job at this position has ended, or was given up.
    Done(usize),
    Tick,
}

struct Running {
    lane: String,
    since: Instant,
    limit: Duration,
}

/// Runs all of it; the results are in the order of `jobs`, and nothing stands for what never ended.
///
/// # Errors
/// Interrupted, or the machine gives no more threads.
pub(crate) fn run<T: Send + 'static>(jobs: Vec<Job<T>>, tell: &mut dyn FnMut(Event)) -> Result<Vec<Option<T>>> {
    let total = jobs.len();
    let mut results: Vec<Option<T>> = (0..total).map(|_| None).collect();
    let mut lanes: BTreeMap<String, VecDeque<(usize, Job<T>)>> = BTreeMap::new();
    for (at, job) in jobs.into_iter().enumerate() {
        lanes.entry(job.lane.clone()).or_default().push_back((at, job));
    }
    let mut running: BTreeMap<usize, Running> = BTreeMap::new();
    let mut busy: BTreeMap<String, usize> = BTreeMap::new();
    let (sender, done) = channel::<(usize, T)>();
    let mut left = total;
    while left > 0 {
        for (lane, queue) in &mut lanes {
            let now = busy.entry(lane.clone()).or_default();
            while running.len() < MOST && queue.front().is_some_and(|(_, job)| *now < job.at_once.max(1)) {
                let Some((at, job)) = queue.pop_front() else { break };
                *now += 1;
                running.insert(at, Running { lane: lane.clone(), since: Instant::now(), limit: job.limit });
                let (sender, work) = (sender.clone(), job.work);
                let body = move || drop(sender.send((at, work())));
                std::thread::Builder::new()
                    .stack_size(STACK)
                    .spawn(body)
                    .map_err(|error| Failure::environment(format!("no thread: {error}")))?;
            }
        }
        match done.recv_timeout(Duration::from_millis(20)) {
            // Somebody who was given up may still answer.
            Ok((at, result)) => {
                if let Some(job) = running.remove(&at) {
                    free(&mut busy, &job.lane);
                    left -= 1;
                    tell(Event::Done(at));
                    results[at] = Some(result);
                }
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => tell(Event::Tick),
        }
        if signal::interrupted() {
            last_words(running.len(), &done);
            return Err(signal::failure().left(format!("{} of {total} had answered", total - left)).into());
        }
        let late: Vec<usize> =
            running.iter().filter(|(_, job)| job.since.elapsed() > job.limit + GRACE).map(|(at, _)| *at).collect();
        for at in late {
            if let Some(job) = running.remove(&at) {
                free(&mut busy, &job.lane);
                left -= 1;
                tell(Event::Done(at));
            }
        }
    }
    Ok(results)
}

fn free(busy: &mut BTreeMap<String, usize>, lane: &str) {
    if let Some(now) = busy.get_mut(lane) {
        *now = now.saturating_sub(1);
    }
}

/// Those who run programs end them, and should have the time to; who only waits for the network is left behind.
fn last_words<T>(mut running: usize, done: &std::sync::mpsc::Receiver<(usize, T)>) {
    let end = Instant::now() + LAST_WORDS;
    while running > 0 && signal::has_children() {
        match done.recv_timeout(end.saturating_duration_since(Instant::now()).min(Duration::from_millis(20))) {
            Ok(_) => running -= 1,
            Err(_) if Instant::now() >= end => return,
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    fn job<T>(lane: &str, limit: u64, work: impl FnOnce() -> T + Send + 'static) -> Job<T> {
        Job { lane: lane.to_owned(), at_once: 2, limit: Duration::from_millis(limit), work: Box::new(work) }
    }

    #[test]
    fn a_lane_is_never_wider_than_it_may_be_and_order_is_kept() {
        let counts = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
        let jobs = (0..20).map(|number| {
            let counts = Arc::clone(&counts);
            job("a", 5000, move || {
                counts.1.fetch_max(counts.0.fetch_add(1, SeqCst) + 1, SeqCst);
                std::thread::sleep(Duration::from_millis(2));
                counts.0.fetch_sub(1, SeqCst);
                number
            })
        });
        let results = run(jobs.collect(), &mut |_| ()).unwrap();
        assert_eq!(results, (0..20).map(Some).collect::<Vec<_>>());
        assert_eq!(counts.1.load(SeqCst), 2);
    }

    #[test]
    fn who_never_ends_is_given_up() {
        let (sender, never) = channel::<()>();
        let jobs = vec![job("a", 1, move || never.recv().unwrap_or_default()), job("b", 1, || ())];
        let results = run(jobs, &mut |_| ()).unwrap();
        assert_eq!(results, [None, Some(())]);
        drop(sender);
    }
}
