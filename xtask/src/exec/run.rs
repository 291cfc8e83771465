//! Runs an [`Invocation`]: own process group, no stdin, a limit, every line seen, nothing left behind.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::process::Signal;

use super::redact::Redactor;
use super::{env, signal, terminal};
use crate::model::failure::Failure;
use crate::tools::{Invocation, OnSignal, Says, catalog};

/// How long a child may take to end after SIGTERM, and its pipes to close after it.
const GRACE: Duration = Duration::from_millis(500);

/// How long after a signal a child may go on that is over in a moment.
const MOMENT: Duration = Duration::from_millis(300);

/// Of what a command writes to stdout no more is taken: it holds every object of a cluster many times over.
const MOST: usize = 64 << 20;

/// Of what it writes to stderr the end is kept.
const MOST_TALK: usize = 1 << 20;

/// A longer line comes in pieces.
const LONGEST_LINE: u64 = 256 << 10;

/// So many lines may wait to be looked at; then the command does.
const WAITING: usize = 64;

/// How long taking something away may take.
const CLEAN_UP: Duration = Duration::from_secs(10);

/// How much of a failed command's output is shown.
pub(crate) const TAIL: usize = 20;

/// What a command left.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    /// Nothing when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    pub(crate) fn success(&self) -> bool {
        self.code == Some(0)
    }
}

/// Where commands run and what is hidden of them.
#[derive(Clone, Debug)]
pub(crate) struct System {
    pub(crate) root: PathBuf,
    /// 1 shows commands, 2 their output as well.
    pub(crate) verbosity: u8,
    pub(crate) redactor: Redactor,
    /// What children see of the environment in place of what we see; nothing takes a variable away.
    pub(crate) overlay: Vec<(String, Option<String>)>,
}

enum Line {
    Out(Vec<u8>),
    Err(Vec<u8>),
}

impl System {
    /// Runs to the end, whatever its exit code.
    ///
    /// # Errors
    /// It is not installed, ran into its limit, or a signal came.
    pub(crate) fn output(&self, invocation: &Invocation) -> Result<Output> {
        self.stream(invocation, &mut |_| ())
    }

    /// Runs to the end and wants success.
    ///
    /// # Errors
    /// As [`Self::output`], and the command with the end of its stderr when it fails.
    pub(crate) fn stdout(&self, invocation: &Invocation, what: &str) -> Result<String> {
        let output = self.output(invocation)?;
        if output.success() { Ok(output.stdout) } else { Err(self.failed(invocation, &output, what).into()) }
    }

    /// The failure that a command's output amounts to.
    pub(crate) fn failed(&self, invocation: &Invocation, output: &Output, what: &str) -> Failure {
        let status =
            output.code.map_or_else(|| "was killed by a signal".to_owned(), |code| format!("exited with {code}"));
        let text = if output.stderr.trim().is_empty() { &output.stdout } else { &output.stderr };
        Failure {
            command: Some(self.redactor.clean(&invocation.to_string())),
            ..Failure::refused(format!("{what}: {} {status}", invocation.program))
        }
        .tail(if invocation.says == Says::Secrets { Vec::new() } else { tail(text) })
    }

    /// Runs to the end, handing every line of stderr to `on_line` as it comes.
    ///
    /// # Errors
    /// As [`Self::output`].
    pub(crate) fn stream(&self, invocation: &Invocation, on_line: &mut dyn FnMut(&str)) -> Result<Output> {
        self.run(invocation, None, on_line)
    }

    /// Runs to the end, handing every line of stdout to `on_line` as it comes and keeping none.
    ///
    /// # Errors
    /// As [`Self::output`].
    pub(crate) fn follow(&self, invocation: &Invocation, on_line: &mut dyn FnMut(&str)) -> Result<Output> {
        self.run(invocation, Some(on_line), &mut |_| ())
    }

    fn run<'a>(
        &'a self,
        invocation: &Invocation,
        on_out: Option<&'a mut dyn FnMut(&str)>,
        on_line: &'a mut dyn FnMut(&str),
    ) -> Result<Output> {
        if signal::interrupted() {
            return Err(signal::failure().into());
        }
        if self.verbosity > 0 {
            terminal::say(&format!("\x1b[2m$ {}\x1b[0m", self.redactor.clean(&invocation.to_string())));
        }
        let (stdout, stderr) = (os_pipe()?, os_pipe()?);
        // The expression holds the writing ends of the pipes; it ends here, so that they close with the child.
        let (handle, group) =
            start(&self.expression(invocation)?.stdout_file(stdout.1).stderr_file(stderr.1), invocation)?;
        let (sender, lines) = sync_channel(WAITING);
        read_lines(stdout.0, sender.clone(), Line::Out);
        read_lines(stderr.0, sender, Line::Err);
        let mut collected = Collected {
            system: self,
            says: invocation.says,
            moment: if invocation.on_signal == OnSignal::Finishes { MOMENT } else { Duration::ZERO },
            on_out,
            on_line,
            stdout: Vec::new(),
            stderr: String::new(),
        };
        let limit = env::patience(invocation.limit);
        let end = collected.until_done(&handle, &lines, limit);
        if end.is_err() {
            stop(&handle, &group);
        }
        let (stdout, stderr) = (collected.stdout, collected.stderr);
        match end {
            Ok(code) => {
                // Whatever the child left in its group must not outlive it.
                group.end(GRACE);
                let stdout = String::from_utf8(stdout)
                    .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
                Ok(Output { code, stdout, stderr })
            }
            Err(end) => Err(self.ended(invocation, end, &stderr).into()),
        }
    }

    /// Runs what takes something away again, also once a signal has come; what it says is of no interest.
    pub(crate) fn clean_up(&self, invocation: &Invocation) {
        // It has a limit of its own.
        signal::takes_longer();
        let Ok(expression) = self.expression(invocation) else { return };
        let Ok(handle) = expression.stdout_null().stderr_null().start() else { return };
        if !matches!(handle.wait_timeout(CLEAN_UP), Ok(Some(_))) {
            drop(handle.kill());
        }
    }

    /// Why a command was not let end by itself.
    fn ended(&self, invocation: &Invocation, end: End, stderr: &str) -> Failure {
        let (program, limit) = (&invocation.program, env::patience(invocation.limit).as_secs_f32());
        let why = match end {
            End::Interrupted => return signal::failure(),
            End::Lost(error) => return Failure::environment(format!("lost track of {program}: {error}")),
            End::TooLong => format!("{program} did not end within {limit} s and was stopped"),
            End::TooMuch => format!("{program} wrote more than {} MB and was stopped", MOST >> 20),
        };
        let command = Some(self.redactor.clean(&invocation.to_string()));
        let said = if invocation.says == Says::Secrets { Vec::new() } else { tail(stderr) };
        Failure { command, ..Failure::environment(why) }.tail(said)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub(super) fn expression(&self, invocation: &Invocation) -> Result<duct::Expression> {
        let program = find(&invocation.program).ok_or_else(|| catalog::missing(&invocation.program))?;
        let args = &invocation.args;
        let mut expression = duct::cmd(program, args).stdin_null().unchecked();
        expression = expression.dir(invocation.folder.as_ref().unwrap_or(&self.root)).before_spawn(|command| {
            command.process_group(0);
            Ok(())
        });
        expression = env::CREDENTIALS.iter().fold(expression, |expression, name| expression.env_remove(name));
        let overlay = self.overlay.iter().fold(expression, |expression, (name, value)| match value {
            Some(value) => expression.env(name, value),
            None => expression.env_remove(name),
        });
        Ok(invocation.quiet_env.iter().fold(overlay, |expression, (name, value)| expression.env(name, value)))
    }

    /// The same door, into another folder and with other variables.
    pub(crate) fn at(&self, root: PathBuf, overlay: Vec<(String, Option<String>)>) -> Self {
        Self { root, overlay, ..self.clone() }
    }
}

/// Where `program` is: on PATH, among what `setup` has installed, or where Debian keeps PostgreSQL's server.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let folders = || std::iter::once(env::tools_folder()).chain(postgresql()).map(|folder| folder.join("bin"));
    which::which(program).ok().or_else(|| folders().find_map(|folder| which::which(folder.join(program)).ok()))
}

/// The installed versions, the newest first.
fn postgresql() -> Vec<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = versions.map(|entry| entry.path()).collect();
    versions.sort_by(|a, b| b.cmp(a));
    versions
}

/// Starts `expression` as the leader of a group that signals reach.
pub(super) fn start(expression: &duct::Expression, invocation: &Invocation) -> Result<(duct::Handle, signal::Group)> {
    let failed = |error| Failure::environment(format!("can't start {}: {error}", invocation.program));
    let handle = expression.start().map_err(failed)?;
    let leader = handle.pids().first().copied().unwrap_or_default();
    let group = match invocation.on_signal {
        OnSignal::Ends => signal::Group::register(leader),
        OnSignal::Finishes => signal::Group::apart(leader),
    };
    Ok((handle, group))
}

/// Ends a group: asked first, then made to.
pub(super) fn stop(handle: &duct::Handle, group: &signal::Group) {
    let since = Instant::now();
    // A signal that came has reached all groups at once, and their time has begun with it: many that are slow to end
    // are not waited for one after another.
    let grace = signal::left_of(GRACE);
    group.signal(Signal::TERM);
    // Reaped, so that the group is empty once all of it has ended.
    drop(handle.wait_timeout(grace));
    group.end(grace.saturating_sub(since.elapsed()));
    drop(handle.wait());
}

enum End {
    Interrupted,
    TooLong,
    TooMuch,
    Lost(std::io::Error),
}

struct Collected<'a> {
    system: &'a System,
    says: Says,
    /// How long after a signal it may go on.
    moment: Duration,
    on_out: Option<&'a mut dyn FnMut(&str)>,
    on_line: &'a mut dyn FnMut(&str),
    stdout: Vec<u8>,
    stderr: String,
}

impl Collected<'_> {
    fn until_done(
        &mut self,
        handle: &duct::Handle,
        lines: &Receiver<Line>,
        limit: Duration,
    ) -> Result<Option<i32>, End> {
        let started = Instant::now();
        let mut interrupted: Option<Instant> = None;
        let mut ended: Option<(Option<i32>, Instant)> = None;
        // Who has closed its pipes has all but ended.
        let mut nap = Duration::from_micros(100);
        loop {
            match lines.recv_timeout(Duration::from_millis(10)) {
                Ok(line) => self.take(line)?,
                Err(RecvTimeoutError::Disconnected) if ended.is_some() => break,
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(nap);
                    nap = (nap * 2).min(Duration::from_millis(10));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if signal::interrupted() && interrupted.get_or_insert_with(Instant::now).elapsed() >= self.moment {
                return Err(End::Interrupted);
            }
            match ended {
                // A grandchild that keeps a pipe open does not keep us.
                Some((_, since)) if since.elapsed() > GRACE => break,
                Some(_) => {}
                None if started.elapsed() > limit => return Err(End::TooLong),
                None => {
                    ended = handle.try_wait().map_err(End::Lost)?.map(|output| (output.status.code(), Instant::now()));
                }
            }
        }
        for line in lines.try_iter().take(WAITING) {
            self.take(line)?;
        }
        Ok(ended.and_then(|(code, _)| code))
    }

    fn take(&mut self, line: Line) -> Result<(), End> {
        let text = |bytes: &[u8]| self.system.redactor.clean(String::from_utf8_lossy(bytes).trim_end());
        match line {
            Line::Out(bytes) => match &mut self.on_out {
                Some(on_out) => on_out(&text(&bytes)),
                None if self.stdout.len() + bytes.len() > MOST => return Err(End::TooMuch),
                None => self.stdout.extend(bytes),
            },
            Line::Err(bytes) => {
                let clean = text(&bytes);
                if self.system.verbosity > 1 && self.says == Says::Openly {
                    terminal::say(&format!("\x1b[2m| {clean}\x1b[0m"));
                }
                (self.on_line)(&clean);
                self.stderr.push_str(&clean);
                self.stderr.push('\n');
                if self.stderr.len() > MOST_TALK {
                    let end = self.stderr.lines().map(str::len).scan(0, |at, length| {
                        *at += length + 1;
                        Some(*at)
                    });
                    let half = end.into_iter().find(|end| *end > MOST_TALK / 2).unwrap_or_default();
                    self.stderr.drain(..half);
                }
            }
        }
        Ok(())
    }
}

fn os_pipe() -> Result<(std::io::PipeReader, std::io::PipeWriter)> {
    std::io::pipe().map_err(|error| Failure::environment(format!("no pipe: {error}")).into())
}

fn read_lines(pipe: impl Read + Send + 'static, sender: SyncSender<Line>, wrap: fn(Vec<u8>) -> Line) {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = || {
            let mut bytes = Vec::new();
            let count = (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut bytes);
            count.is_ok_and(|count| count > 0).then_some(bytes)
        };
        while line().is_some_and(|bytes| sender.send(wrap(bytes)).is_ok()) {}
    });
}

/// The last lines of `text` that say something.
pub(crate) fn tail(text: &str) -> Vec<String> {
    let mut last = VecDeque::with_capacity(TAIL);
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        if last.len() == TAIL {
            last.pop_front();
        }
        last.push_back(line.to_owned());
    }
    last.into()
}
