//! Runs an [`Invocation`]: own process group, no stdin, a limit, every line seen, nothing left behind.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::process::Signal;

use super::redact::Redactor;
use super::{env, signal};
use crate::model::failure::Failure;
use crate::tools::{Invocation, Says, catalog};

/// How long a child may take to end after SIGTERM, and its pipes to close after it.
const GRACE: Duration = Duration::from_millis(700);

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
    Out(String),
    Err(String),
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
            anstream::eprintln!("\x1b[2m$ {}\x1b[0m", self.redactor.clean(&invocation.to_string()));
        }
        let (stdout, stderr) = (os_pipe()?, os_pipe()?);
        // The expression holds the writing ends of the pipes; it ends here, so that they close with the child.
        let (handle, group) =
            start(&self.expression(invocation)?.stdout_file(stdout.1).stderr_file(stderr.1), invocation)?;
        let (sender, lines) = channel();
        read_lines(stdout.0, sender.clone(), Line::Out);
        read_lines(stderr.0, sender, Line::Err);
        let mut collected = Collected {
            system: self,
            says: invocation.says,
            on_out,
            on_line,
            stdout: String::new(),
            stderr: String::new(),
        };
        let end = collected.until_done(&handle, &lines, invocation.limit);
        if end.is_err() {
            stop(&handle, &group);
        }
        let (stdout, stderr) = (collected.stdout, collected.stderr);
        match end {
            Ok(code) => {
                // Whatever the child left in its group must not outlive it.
                group.signal(Signal::TERM);
                Ok(Output { code, stdout, stderr })
            }
            Err(End::Interrupted) => Err(signal::failure().into()),
            Err(End::TooLong) => {
                let limit = invocation.limit.as_secs_f32();
                let failure = Failure::environment(format!(
                    "{} did not end within {limit} s and was stopped",
                    invocation.program
                ));
                Err(Failure { command: Some(self.redactor.clean(&invocation.to_string())), ..failure }
                    .tail(if invocation.says == Says::Secrets { Vec::new() } else { tail(&stderr) })
                    .into())
            }
            Err(End::Lost(error)) => {
                Err(Failure::environment(format!("lost track of {}: {error}", invocation.program)).into())
            }
        }
    }

    /// Runs what takes something away again, also once a signal has come; what it says is of no interest.
    pub(crate) fn clean_up(&self, invocation: &Invocation) {
        let Ok(expression) = self.expression(invocation) else { return };
        let Ok(handle) = expression.stdout_null().stderr_null().start() else { return };
        if !matches!(handle.wait_timeout(CLEAN_UP), Ok(Some(_))) {
            drop(handle.kill());
        }
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub(super) fn expression(&self, invocation: &Invocation) -> Result<duct::Expression> {
        let program = find(&invocation.program).ok_or_else(|| catalog::missing(&invocation.program))?;
        let args = invocation.args.iter().chain(&invocation.private_args);
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
    let group = signal::Group::register(handle.pids().first().copied().unwrap_or_default());
    Ok((handle, group))
}

/// Ends a group: asked first, then made to.
pub(super) fn stop(handle: &duct::Handle, group: &signal::Group) {
    group.signal(Signal::TERM);
    if !matches!(handle.wait_timeout(GRACE), Ok(Some(_))) {
        group.signal(Signal::KILL);
    }
    drop(handle.wait());
}

enum End {
    Interrupted,
    TooLong,
    Lost(std::io::Error),
}

struct Collected<'a> {
    system: &'a System,
    says: Says,
    on_out: Option<&'a mut dyn FnMut(&str)>,
    on_line: &'a mut dyn FnMut(&str),
    stdout: String,
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
        let mut ended: Option<(Option<i32>, Instant)> = None;
        loop {
            match lines.recv_timeout(Duration::from_millis(10)) {
                Ok(line) => self.take(line),
                Err(RecvTimeoutError::Disconnected) if ended.is_some() => break,
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(2)),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if signal::interrupted() {
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
        while let Ok(line) = lines.try_recv() {
            self.take(line);
        }
        Ok(ended.and_then(|(code, _)| code))
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Out(text) => match &mut self.on_out {
                Some(on_out) => on_out(&self.system.redactor.clean(text.trim_end())),
                None => self.stdout.push_str(&text),
            },
            Line::Err(text) => {
                let clean = self.system.redactor.clean(text.trim_end());
                if self.system.verbosity > 1 && self.says == Says::Openly {
                    anstream::eprintln!("\x1b[2m| {clean}\x1b[0m");
                }
                (self.on_line)(&clean);
                self.stderr.push_str(&clean);
                self.stderr.push('\n');
            }
        }
    }
}

fn os_pipe() -> Result<(std::io::PipeReader, std::io::PipeWriter)> {
    std::io::pipe().map_err(|error| Failure::environment(format!("no pipe: {error}")).into())
}

fn read_lines(pipe: impl Read + Send + 'static, sender: Sender<Line>, wrap: fn(String) -> Line) {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
            if sender.send(wrap(String::from_utf8_lossy(&bytes).into_owned())).is_err() {
                return;
            }
            bytes.clear();
        }
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
