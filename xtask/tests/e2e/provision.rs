//! A host is provisioned by the real Ansible: this machine, under the name that the repository has for another.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::stage::{Done, SECRET, Stage, kill};

const HOST: &str = r#"
//- ansible/ansible.cfg
[defaults]
inventory = inventory/hosts.yml
roles_path = roles
interpreter_python = auto_silent
//- ansible/inventory/hosts.yml
all: {hosts: {indri: {ansible_host: 127.0.0.1, ansible_port: 1}, bare: {}}}
//- ansible/playbooks/indri.yml
- name: Configure indri
  hosts: indri
  gather_facts: false
  pre_tasks:
    - name: Read the token
      ansible.builtin.command: op read "op://vault/item/token"
      delegate_to: localhost
      register: token
      changed_when: false
      check_mode: false
      no_log: true
      tags: [web]
  roles:
    - {role: web, tags: [web]}
    - {role: slow, tags: [slow, never]}
//- ansible/roles/web/tasks/main.yml
- name: Write the configuration
  ansible.builtin.copy: {dest: "{{ folder }}/web.conf", content: "token {{ token.stdout }}\nport {{ port | default(80) }}\n", mode: "0600"}
  notify: Restart web
- name: Count
  ansible.builtin.shell: echo again >> "{{ folder }}/count"
  when: count | default(false)
- name: Complain
  ansible.builtin.command: sh -c 'echo "no good, {{ token.stdout }}" >&2; exit 3'
  when: complain | default(false)
//- ansible/roles/web/handlers/main.yml
- name: Restart web
  ansible.builtin.command: {argv: [touch, "{{ folder }}/restarted"]}
//- ansible/roles/slow/tasks/main.yml
- name: Touch
  ansible.builtin.file: {path: "{{ folder }}/touched", state: touch}
- name: Sleep
  ansible.builtin.command: sleep 60
"#;

struct Host {
    stage: Stage,
}

impl Host {
    fn new() -> Self {
        let stage = Stage::new();
        stage.write_files(HOST);
        stage.commit_and_push("a host");
        stage.vault(&[]);
        let folder = stage.path("host");
        std::fs::create_dir(&folder).unwrap();
        let inventory =
            format!("all: {{hosts: {{indri: {{ansible_connection: local, folder: {}}}}}}}", folder.display());
        std::fs::write(stage.path("local.yml"), inventory).unwrap();
        Self { stage }
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut words = vec!["provision"];
        words.extend(args);
        let mut command = self.stage.xtask(&words);
        command.env("PATH", self.stage.shadowed_path());
        command
    }

    /// On this machine.
    fn here<'a>(&self, args: &[&'a str], more: &[&'a str]) -> Vec<String> {
        let inventory = self.stage.path("local.yml").display().to_string();
        let words = args.iter().chain(&["--", "--inventory"]).map(|word| (*word).to_owned());
        words.chain([inventory]).chain(more.iter().map(|word| (*word).to_owned())).collect()
    }

    fn run(&self, args: &[&str], more: &[&str]) -> Done {
        let words = self.here(args, more);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let done = Done::from(self.command(&words).output().unwrap());
        assert!(!(done.stdout.clone() + &done.stderr).contains(SECRET), "{}\n{}", done.stdout, done.stderr);
        done
    }
}

#[test]
fn it_looks_applies_and_finds_nothing_more_to_do() {
    let host = Host::new();
    let looked = host.run(&["indri", "--check", "--diff"], &[]).expect(0, &["+port 80", "would change"]);
    let restart = format!(
        "would then run on indri: web : Restart web (touch {}/host/restarted)",
        host.stage.path("").display().to_string().trim_end_matches('/')
    );
    assert!(looked.stdout.contains(&restart), "{}", looked.stdout);
    assert!(!host.stage.path("host/web.conf").exists());
    let applied = host.run(&["indri", "--yes", "--diff", "--format", "json"], &[]).expect(0, &["[secret]"]);
    let value: Value = serde_json::from_str(&applied.stdout).unwrap();
    assert_eq!(value["result"]["runs"][0]["hosts"]["indri"]["changed"], 2);
    let text = std::fs::read_to_string(host.stage.path("host/web.conf")).unwrap();
    assert!(text.contains(SECRET) && host.stage.path("host/restarted").exists());
    let again = host.run(&["indri", "--yes"], &[]).expect(0, &[]);
    assert!(again.stdout.contains("nothing changed"), "{}", again.stdout);
    host.stage.assert_nothing_runs();
}

#[test]
fn what_changes_again_is_reported() {
    let host = Host::new();
    let count = ["--extra-vars", "{count: true}"];
    let twice = host.run(&["indri", "--yes", "--twice"], &count).expect(1, &[]);
    assert!(
        twice.stdout.contains("changed again on indri, with nothing new to apply: web : Count"),
        "{}",
        twice.stdout
    );
    let third = host.run(&["indri", "--yes"], &count).expect(0, &[]);
    assert!(third.stdout.contains("changed again on indri"), "{}", third.stdout);
    let port = host.run(&["indri", "--yes", "--twice"], &["-e", "{port: 81}"]).expect(0, &[]);
    assert!(!port.stdout.contains("changed again"), "{}", port.stdout);
}

#[test]
fn a_task_that_fails_is_shown_without_its_secret() {
    let host = Host::new();
    let done = host.run(&["indri", "--yes"], &["-e", "{complain: true}"]);
    done.expect(
        1,
        &[
            "«web : Complain» failed on indri",
            "no good, [secret]",
            "changed before it: web : Write",
            "roles/web/tasks/main.yml:",
        ],
    );
    host.stage.op(&format!("echo {SECRET} >&2; exit 1"));
    host.run(&["indri", "--yes"], &[])
        .expect(1, &["«Read the token» failed", "its output is hidden", "op://vault/item/token"]);
}

#[test]
fn what_op_prints_is_in_no_file_but_the_one_it_is_for() {
    let host = Host::new();
    let json = ["indri", "--yes", "--diff", "-vv", "--format", "json"];
    host.run(&["indri", "--check", "--diff", "-vv"], &[]).expect(0, &[]);
    host.run(&["indri", "--yes", "--dry-run"], &[]).expect(0, &[]);
    host.run(&json, &[]).expect(0, &[]);
    host.run(&json, &["-e", "{complain: true}"]).expect(1, &["no good, [secret]"]);
    host.stage.op(&format!("echo {SECRET}; echo {SECRET} >&2; exit 1"));
    host.run(&json, &[]).expect(1, &["its output is hidden"]);
    let mut grep = host.stage.command("grep");
    grep.args(["--recursive", "--files-with-matches", "--fixed-strings", "--text", SECRET]);
    let files = Done::from(grep.arg(host.stage.path("")).output().unwrap()).stdout;
    let own = ["host/web.conf", "shadow/op"].map(|file| host.stage.path(file).display().to_string());
    let others: Vec<&str> = files.lines().filter(|file| !own.iter().any(|own| own == file)).collect();
    assert!(others.is_empty() && files.contains("host/web.conf"), "{files}");
}

#[test]
fn what_is_wrong_is_said_before_anything_is_done() {
    let host = Host::new();
    host.run(&["indry", "--check"], &[]).expect(1, &["no host indry", "did you mean `indri`?"]);
    host.run(&["localhost", "--check"], &[]).expect(1, &["no host localhost"]);
    host.run(&["indri", "--check", "--tags", "wep"], &[]).expect(1, &["has no tag wep", "did you mean `web`?"]);
    host.run(&["indri"], &[]).expect(2, &["nobody is there to be asked", "--yes applies"]);
    host.run(&["indri", "--check"], &["--limit", "all"]).expect(2, &["--limit is decided by HOST"]);
    host.run(&["indri", "--check"], &["other.yml"]).expect(2, &["is no option"]);
    let elsewhere = ["-e", "ansible_connection=ssh ansible_host=evil.example"];
    host.run(&["indri", "--check"], &elsewhere).expect(1, &["evil.example in what is handed on"]);
    Done::from(host.command(&["bare", "--check"]).output().unwrap()).expect(1, &["no playbook is for bare"]);
    let done = Done::from(host.command(&["indri", "--check", "--tags", "wep"]).output().unwrap());
    done.expect(2, &["indri does not answer", "Connection refused", "has no tag wep"]);
    host.stage.write("ansible/roles/web/tasks/new.yml", "[]\n");
    host.run(&["indri", "--yes"], &[])
        .expect(1, &["what would be applied is in no commit: ansible/roles/web/tasks/new.yml"]);
    host.run(&["indri", "--check"], &[]).expect(0, &["with changes that are in no commit"]);
    assert!(!host.stage.path("host/web.conf").exists());
    host.run(&["indri", "--yes", "--dirty"], &[]).expect(0, &[]);
}

#[test]
fn a_dry_run_can_be_pasted() {
    let host = Host::new();
    let done = host.run(&["indri", "--tags", "web", "--yes", "--dry-run"], &[]).expect(0, &[]);
    assert!(!host.stage.path("host/web.conf").exists());
    let mut shell = host.stage.command("sh");
    shell.args(["-ec", &done.stdout]).env("PATH", host.stage.shadowed_path()).env("LC_ALL", "C.UTF-8");
    Done::from(shell.output().unwrap()).expect(0, &[]);
    assert!(host.stage.path("host/web.conf").exists());
}

#[test]
fn on_a_terminal_it_asks() {
    let host = Host::new();
    for (answer, applied) in [("n\n", false), ("y\n", true)] {
        let words = host
            .here(&["indri"], &[])
            .into_iter()
            .fold(env!("CARGO_BIN_EXE_xtask").to_owned() + " provision", |line, word| format!("{line} '{word}'"));
        let mut script = host.command(&[]);
        let mut terminal = host.stage.command("script");
        terminal
            .args(["--quiet", "--return", "--command", &words, "/dev/null"])
            .env("PATH", host.stage.shadowed_path());
        drop(std::mem::replace(&mut script, terminal));
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let seen: Vec<String> = lines.by_ref().take_while(|line| !line.contains("apply it?")).collect();
        assert!(seen.iter().any(|line| line.contains("would change on indri")), "{seen:?}");
        input.write_all(answer.as_bytes()).unwrap();
        let rest: Vec<String> = lines.collect();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{rest:?}");
        assert_eq!(host.stage.path("host/web.conf").exists(), applied, "{rest:?}");
    }
}

#[test]
fn ctrl_c_ends_a_play_and_says_what_was_done() {
    let host = Host::new();
    let words = host.here(&["indri", "--tags", "slow", "--yes"], &[]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut child = host.command(&words).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("slow : Sleep")), "it never slept");
    std::thread::sleep(Duration::from_millis(300));
    let started = Instant::now();
    kill("INT", child.id());
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(rest.iter().any(|line| line.contains("changed before it: slow : Touch")), "{rest:?}");
    host.stage.assert_nothing_runs();
}

#[test]
fn an_ssh_that_hangs_is_given_up() {
    let host = Host::new();
    host.stage.program("ssh", "sleep 100");
    let mut child = host.command(&["indri", "--check"]).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let said: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(2), "{said:?}");
    assert!(said.iter().any(|line| line.contains("indri does not answer: ansible did not end within")), "{said:?}");
    host.stage.assert_nothing_runs();
}
