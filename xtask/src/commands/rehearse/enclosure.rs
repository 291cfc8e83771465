//! The stage's own processes, mounts and network: production's names and ports, none of its machines, nothing left.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Args;
use super::borrowed::{API, Looked};
use crate::commands::Context;
use crate::exec::cgroup;
use crate::exec::service::Service;
use crate::exec::workspace::Workspace;
use crate::model::failure::{Failure, Kind};
use crate::report::{Outcome, Reporter, Stage};
use crate::tools::{Invocation, kubernetes, line, linux, own};

/// Where indri answers.
pub(super) const INDRI: &str = "100.99.0.1";
/// Where ringtail's node is.
pub(super) const RINGTAIL: &str = "100.99.0.2";
/// Where the tailnet's names lead.
pub(super) const TAILNET: &str = "100.99.0.3";
/// Where the rest of the world is, as far as there is any.
pub(super) const OUTSIDE: &str = "100.99.0.4";
/// 443 of it leads to this one: Caddy of indri has 443 itself.
pub(super) const OUTSIDE_PORT: u16 = 8444;

/// What the kubelet would set for the whole machine shows here as set already.
const SYSCTLS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Runs this rehearsal once more inside, and passes on what it says.
pub(super) fn enter(cx: &Context, args: &Args, workspace: &Workspace) -> Result<Outcome> {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).context("no free port")?;
    let port = port.port();
    let door = open_door(cx, workspace, port)?;
    let made = cgroup::make(&workspace.name(), door.process());
    let made = made.map_err(|error| Failure::environment(format!("no control group: {error}")).into());
    let result = made.and_then(|()| inside(cx, args, workspace, &["--door", &port.to_string()]));
    drop(door);
    cgroup::end(&workspace.name());
    result
}

/// The same with a cluster that somebody has.
pub(super) fn enter_with(cx: &Context, args: &Args, workspace: &Workspace, looked: Looked) -> Result<Outcome> {
    let shown = cx.report.stage("borrowed");
    let context = looked.context().to_string();
    let (_borrowed, images) = looked.open(cx, workspace)?;
    shown.done(&format!("{context}; its nodes fetch images at {images}"));
    inside(cx, args, workspace, &["--cluster", &context, "--images", &images])
}

fn inside(cx: &Context, args: &Args, workspace: &Workspace, more: &[&str]) -> Result<Outcome> {
    let folder = workspace.text("");
    let mut words: Vec<String> = ["rehearse", args.name.as_str(), "--enclosed", &folder].map(str::to_owned).to_vec();
    words.extend(more.iter().map(|word| (*word).to_owned()));
    words.extend(args.only.iter().flat_map(|name| ["--only".to_owned(), name.clone()]));
    for (is_wanted, word) in [(args.keep, "--keep"), (args.hold, "--hold"), (args.empty, "--empty")] {
        words.extend(is_wanted.then(|| word.to_owned()));
    }
    let root = cx.system.root.to_string_lossy().into_owned();
    let inside = linux::enclosed(own::call(&words, &["--format", "json", "--root", &root])?);
    let hours = if args.hold { 24 * 7 } else { 1 };
    pass_on(cx, &inside.limit(Duration::from_secs(3600 * hours)))
}

/// The API server inside is reached by a socket, which no network namespace hides.
fn open_door(cx: &Context, workspace: &Workspace, port: u16) -> Result<Service> {
    let listen = format!("TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr");
    let connect = format!("UNIX-CONNECT:{}", workspace.text("door"));
    Service::start(&cx.system, &own::tether(line!("socat {listen} {connect}")), &workspace.path("door.log"))
}

fn pass_on(cx: &Context, inside: &Invocation) -> Result<Outcome> {
    let mut working: Option<Stage<'_>> = None;
    let output = cx.system.stream(inside, &mut |line| {
        let update = line.trim_start().strip_prefix("… ").and_then(|rest| rest.split_once(' '));
        match update {
            Some((name, text)) if Reporter::is_live() => {
                working.get_or_insert_with(|| cx.report.stage(name)).update(text.trim());
            }
            _ => {
                working = None;
                cx.report.say(line);
            }
        }
    })?;
    drop(working);
    let value: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
    let result = value.get("result").cloned().unwrap_or_default();
    let human = result.get("human").and_then(Value::as_str).unwrap_or_default().to_owned();
    match output.code {
        Some(code @ (0 | 1)) if value.get("result").is_some() => {
            Ok(Outcome { human, json: result, code: u8::try_from(code).unwrap_or(1), other: None })
        }
        Some(code) => {
            let kind = if code == 1 { Kind::Refused } else { Kind::Environment };
            let summary = value.pointer("/error/summary").and_then(Value::as_str);
            Err(Failure::new(kind, summary.unwrap_or("the rehearsal ended without a result")).into())
        }
        None => Err(Failure::environment("the rehearsal was killed").into()),
    }
}

/// The addresses of the stage.
pub(super) fn network() -> Vec<Invocation> {
    let bridge = linux::bridge("node0", &[INDRI, RINGTAIL, TAILNET, OUTSIDE]);
    let redirects = [linux::redirect(TAILNET, 443, 8443), linux::redirect(OUTSIDE, 443, OUTSIDE_PORT)];
    bridge.into_iter().chain(redirects.into_iter().flatten()).collect()
}

/// Inside: network, names, and what must not be seen of the machine.
pub(super) fn set_up(cx: &Context, workspace: &Workspace, authority: &str, hosts: &str) -> Result<()> {
    for line in network() {
        cx.system.stdout(&line, "the stage's network")?;
    }
    let resolver = std::fs::canonicalize("/etc/resolv.conf").unwrap_or_else(|_| "/etc/resolv.conf".into());
    cx.system.stdout(&linux::empty("/run"), "a /run of its own")?;
    workspace.write("hosts", hosts)?;
    workspace.write("resolv.conf", &format!("nameserver {RINGTAIL}\noptions timeout:1 attempts:2\n"))?;
    if resolver.starts_with("/run") {
        let folder = resolver.parent().unwrap_or(Path::new("/run"));
        std::fs::create_dir_all(folder).context("/run can't be written")?;
        crate::exec::fs::write(&resolver, &format!("nameserver {RINGTAIL}\n"))?;
    } else {
        mount(cx, &workspace.text("resolv.conf"), &resolver)?;
    }
    mount(cx, &workspace.text("hosts"), Path::new("/etc/hosts"))?;
    trust(cx, workspace, authority)?;
    for (name, value) in SYSCTLS {
        let path = Path::new("/proc/sys").join(name);
        if path.exists() {
            let file = format!("sysctl/{}", name.replace('/', "."));
            workspace.write(&file, &format!("{value}\n"))?;
            mount(cx, &workspace.text(&file), &path)?;
        }
    }
    Ok(())
}

/// Every program on the stage trusts its authority beside those that it trusts anyway.
fn trust(cx: &Context, workspace: &Workspace, authority: &str) -> Result<()> {
    let bundle = Path::new("/etc/ssl/certs/ca-certificates.crt");
    let known = std::fs::read_to_string(bundle).map_err(|_| {
        Failure::environment(format!("{} is missing", bundle.display())).next("install ca-certificates")
    })?;
    workspace.write("bundle.crt", &format!("{known}\n{authority}"))?;
    mount(cx, &workspace.text("bundle.crt"), bundle)
}

fn mount(cx: &Context, file: &str, path: &Path) -> Result<()> {
    cx.system.stdout(&linux::bind(file, path), "a mount of the stage's")?;
    Ok(())
}

/// Inside: the other end of the door.
pub(super) fn door(cx: &Context, workspace: &Workspace) -> Result<Service> {
    let listen = format!("UNIX-LISTEN:{},fork,mode=600", workspace.text("door"));
    let connect = format!("TCP:127.0.0.1:{}", kubernetes::API_PORT);
    Service::start(&cx.system, &line!("socat {listen} {connect}"), &workspace.path("door-inside.log"))
}

/// Inside: where the API server of somebody's cluster is.
pub(super) fn door_to(workspace: &Workspace) -> Invocation {
    let listen = format!("TCP-LISTEN:{},bind=127.0.0.1,fork,reuseaddr", kubernetes::API_PORT);
    let connect = format!("UNIX-CONNECT:{}", workspace.text(API));
    line!("socat {listen} {connect}")
}
