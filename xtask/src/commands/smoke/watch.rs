//! One container: started, looked at, asked, removed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::image::Loaded;
use super::{Smoke, group, prepare};
use crate::exec::http::{self, Client};
use crate::exec::process::{self, Look};
use crate::exec::run::{System, tail};
use crate::exec::workspace::Workspace;
use crate::exec::{signal, tls};
use crate::model::expectation::Answer;
use crate::model::failure::{Failure, Kind};
use crate::model::image::RunConfig;
use crate::model::trial::{Ask, Probe, Trial};
use crate::probes::{Bad, Check, Checked, Outlook, Question, Verdict, container, web};
use crate::tools::engine::{self, Engine, State};

/// How long a process has to stay up that has nothing to be asked for.
const SETTLED: Duration = Duration::from_secs(2);

/// How often it is looked at.
const PAUSE: Duration = Duration::from_millis(150);

/// A container, removed when dropped.
struct Container<'a> {
    system: &'a System,
    engine: Engine,
    name: String,
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        self.system.clean_up(&self.engine.remove(&self.name));
    }
}

struct Watch<'a> {
    smoke: &'a Smoke<'a>,
    trial: &'a Trial,
    image: &'a RunConfig,
    container: Container<'a>,
    /// Services that are named and not here.
    away: Vec<(String, String)>,
    started: Instant,
    state: State,
    look: Option<Look>,
    killed: u64,
    all: Vec<Checked>,
}

/// Tries one container.
///
/// # Errors
/// The engine can't be asked, or a signal came. What is wrong with the container is in the result.
pub(super) fn watch(
    smoke: &Smoke<'_>,
    workspace: &Workspace,
    image: &Loaded<'_>,
    (at, trial): (usize, &Trial),
) -> Result<Vec<Checked>> {
    let (cx, engine) = (smoke.cx, smoke.engine);
    let name = format!("{}-{at}", workspace.name());
    let names = (&*workspace.text(""), &*name, &*image.reference);
    prepare::hide(smoke, trial);
    let folder = names.0.trim_end_matches('/');
    let prepared = prepare::prepare(smoke, (at, trial), (folder, names.1, names.2), &mut || {
        prepare::made_up(&cx.system.redactor)
    })?;
    prepared.write(workspace)?;
    let mut stage = cx.report.stage("run");
    let shown = format!("{} {}", group(trial), trial.container);
    stage.update(&shown);
    prepared.notes.iter().for_each(|note| stage.say(&format!("  {shown}: {note}")));
    for (name, host) in &prepared.away {
        stage.say(&format!("  {shown}: {host} ({name}) is not here"));
    }
    let mut watch = Watch {
        smoke,
        trial,
        image: &image.config,
        container: Container { system: &cx.system, engine, name },
        away: prepared.away,
        started: Instant::now(),
        state: State::default(),
        look: None,
        killed: 0,
        all: Vec::new(),
    };
    let output = cx.system.output(&engine.run(&prepared.run))?;
    let words: Vec<&str> = prepared.run.command.iter().chain(&image.config.entrypoint).map(String::as_str).collect();
    let entrypoint = words.first().copied().unwrap_or("a command");
    let verdict = if output.success() {
        Verdict::Fine("it started".to_owned())
    } else {
        container::judge_start(output.code, &engine::parse_error(&output.stderr))
    };
    watch.push("entrypoint", &format!("{entrypoint} is there and can be run"), verdict);
    if output.success() {
        watch.follow()?;
        watch.conclude(workspace, at)?;
    }
    if watch.all.iter().any(Checked::fails) {
        stage.failed(&shown);
    } else {
        stage.done(&shown);
    }
    Ok(std::mem::take(&mut watch.all))
}

impl Watch<'_> {
    fn push(&mut self, name: &str, expected: &str, verdict: Verdict) {
        let args = &self.smoke.args;
        let workload = match &*self.trial.workload {
            "" => String::new(),
            workload => format!(" --workload {workload}"),
        };
        let check = Check {
            name: format!("{} {name}", self.trial.container),
            group: group(self.trial),
            tags: BTreeSet::new(),
            question: Question::Container,
            expected: expected.to_owned(),
            see: format!("cargo xtask smoke {}{workload} --dry-run", args.name),
            timeout: None,
            waived: None,
        };
        self.all.push(Checked { check, verdict, took: self.started.elapsed() });
    }

    /// Looks again; does it run?
    fn refresh(&mut self) -> Result<bool> {
        let system = &self.smoke.cx.system;
        let json =
            system.stdout(&self.smoke.engine.inspect(&self.container.name), "the container can't be inspected")?;
        self.state = engine::parse_state(&json).map_err(Failure::environment)?;
        if self.state.running
            && let Ok(mut look) = process::look(self.state.pid)
        {
            self.killed = self.killed.max(look.killed);
            // With the machine's own network its other programs are seen as well.
            if self.smoke.args.network.as_deref() == Some("host") {
                let wanted = container::ports(self.trial, self.image);
                look.tcp.retain(|address| wanted.contains(&(address.port(), false)));
            }
            self.look = Some(look);
        }
        Ok(self.state.running)
    }

    /// Until it listens, then until its probes have answered, or until it has ended.
    fn follow(&mut self) -> Result<()> {
        let end = self.started + self.smoke.args.wait;
        let wanted = container::ports(self.trial, self.image);
        while self.refresh()? && Instant::now() < end {
            let listens = self.look.as_ref().is_some_and(|look| container::missing(&wanted, look).is_empty());
            if listens && !self.trial.ends {
                break;
            }
            signal::sleep(PAUSE)?;
        }
        let mut probes = self.trial.probes.clone();
        probes.sort_by_key(|probe| probe.kind);
        for probe in probes.iter().filter(|_| !self.trial.ends) {
            if !self.refresh()? {
                break;
            }
            self.probe(probe)?;
        }
        while !self.trial.ends && self.started.elapsed() < SETTLED && self.refresh()? {
            signal::sleep(PAUSE)?;
        }
        self.refresh().map(drop)
    }

    /// Asks as often as the kubelet would, in the time there is.
    fn probe(&mut self, probe: &Probe) -> Result<()> {
        let (delay, period, count) = probe.schedule(self.smoke.args.wait);
        signal::sleep(delay.saturating_sub(self.started.elapsed()))?;
        let limit = Duration::from_secs(probe.timeout.into());
        let mut waived = None;
        let mut verdict = Verdict::bad("it was not asked");
        for last in (1..=count).map(|number| number == count) {
            let (answer, waits) = self.ask(&probe.ask, limit)?;
            verdict = answer;
            if waits && !self.away.is_empty() {
                let hosts: BTreeSet<&str> = self.away.iter().map(|(_, host)| host.as_str()).collect();
                let hosts: Vec<&str> = hosts.into_iter().collect();
                waived = Some(format!("not here: {}; --env or --network leads to them", hosts.join(", ")));
            }
            if verdict.is_fine() || last || waived.is_some() || !self.refresh()? {
                break;
            }
            signal::sleep(period)?;
        }
        let expected = match &probe.ask {
            Ask::Http { path, .. } => format!("2xx or 3xx from {path}"),
            Ask::Tcp { .. } => "a connection".to_owned(),
            Ask::Exec(words) => format!("0 from {}", words.join(" ")),
        };
        self.push(&format!("{} probe", probe.kind.word()), &expected, verdict);
        if let Some(checked) = self.all.last_mut().filter(|checked| !checked.verdict.is_fine()) {
            checked.check.waived = waived;
        }
        Ok(())
    }

    /// One answer, and whether it may be other services that it waits for.
    fn ask(&self, ask: &Ask, limit: Duration) -> Result<(Verdict, bool)> {
        let (port, tcp) = match ask {
            Ask::Exec(words) => return self.execute(words, limit),
            Ask::Tcp { port } => (*port, true),
            Ask::Http { port, .. } => (*port, false),
        };
        let Some(port) = port else { return Ok((Verdict::bad("its port has a name that is not declared"), false)) };
        let (host, port) = self.address(port);
        if tcp {
            let verdict = match tls::connect(&host, port, limit) {
                Ok(_) => Verdict::Fine("takes connections".to_owned()),
                Err(why) => Verdict::bad(web::explain(&why)),
            };
            return Ok((verdict, false));
        }
        let Ask::Http { path, secure, headers, .. } = ask else { return Ok((Verdict::bad("it was not asked"), false)) };
        let scheme = if *secure { "https" } else { "http" };
        let url = format!("{scheme}://{host}:{port}/{}", path.trim_start_matches('/'));
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        Ok(match Client::of_kubelet().ask(&http::Ask { url: &url, limit, headers: &headers, json: None }) {
            Ok(http::Answer { status, location, body, .. }) => {
                let response = web::Response { status, location, body };
                let mut verdict = web::judge(&Answer::default(), None, &response);
                if let Verdict::Bad(bad) = &mut verdict {
                    bad.log = tail(&response.body);
                }
                (verdict, web::is_busy(status))
            }
            Err(why) => (Verdict::bad(web::explain(&why)), false),
        })
    }

    /// Where a port of it is reached from here.
    fn address(&self, port: u16) -> (String, u16) {
        let forward = self.state.forwards.iter().find(|(inside, _)| *inside == port);
        match forward {
            _ if !self.state.address.is_empty() => (self.state.address.clone(), port),
            Some((_, outside)) => ("127.0.0.1".to_owned(), *outside),
            None => ("127.0.0.1".to_owned(), port),
        }
    }

    fn execute(&self, words: &[String], limit: Duration) -> Result<(Verdict, bool)> {
        // The engine itself takes a moment, which is not the program's.
        let invocation = self.smoke.engine.exec(&self.container.name, words, limit + Duration::from_secs(2));
        match self.smoke.cx.system.output(&invocation) {
            Ok(output) if output.success() => Ok((Verdict::Fine("0".to_owned()), false)),
            Ok(output) => {
                let code = output.code.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
                let said = tail(&(output.stdout + &output.stderr)).pop().unwrap_or_default();
                Ok((Verdict::bad(format!("{code}: {said}").trim_end_matches([':', ' ']).to_owned()), true))
            }
            Err(error) => match error.downcast::<Failure>()? {
                failure if failure.kind == Kind::Interrupted => Err(failure.into()),
                failure => Ok((Verdict::bad(failure.summary), true)),
            },
        }
    }

    /// Judges what has been seen of it.
    fn conclude(&mut self, workspace: &Workspace, at: usize) -> Result<()> {
        let log = self.smoke.cx.system.output(&self.smoke.engine.logs(&self.container.name))?;
        let log = tail(&(log.stdout + &log.stderr));
        let (trial, image) = (self.trial, self.image);
        let end = container::judge_end(trial, &self.state, self.killed, log);
        self.push("end", if trial.ends { "it ends with 0" } else { "it runs on" }, end);
        let (user, group) = container::user(trial, image);
        let who = (user.unwrap_or_default(), group.or_else(|| Some(self.look.as_ref()?.processes.first()?.group)));
        for (place, folder) in prepare::writable(trial, at) {
            // A container without root of its own has our user for it.
            let owner = process::owner(&workspace.path(&folder)).map(|(of, group, mode)| {
                let own = rustix::process::geteuid().as_raw();
                (if of == own { 0 } else { of }, if of == own { 0 } else { group }, mode)
            });
            let verdict = container::judge_folder((who.0, who.1.unwrap_or_default()), &trial.groups, owner);
            self.push(&format!("writes {place}"), "its user can write it", verdict);
        }
        let Some(look) = self.look.take() else {
            let why = process::look(self.state.pid).err().filter(|_| self.state.running);
            if let Some(why) = why {
                let bad = Bad { seen: why, outlook: Outlook::Hopeless, culprit: None, log: Vec::new() };
                self.push("processes", "they can be seen", Verdict::Bad(bad));
            }
            return Ok(());
        };
        if !look.processes.is_empty() {
            self.push("user", &container::expected_user(trial, image), container::judge_user(trial, image, &look));
        }
        if trial.read_only || !self.smoke.args.writable {
            self.push("root", "its own files are read-only", container::judge_root(&look));
        }
        if !trial.ends {
            let wanted = container::ports(trial, image);
            let expected = format!("it listens on {}, and on nothing else", container::list(&wanted));
            self.push("ports", &expected, container::judge_ports(trial, image, &look));
        }
        Ok(())
    }
}
