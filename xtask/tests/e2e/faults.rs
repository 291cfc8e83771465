//! Everything that a command does goes wrong in every way once, and the same command then finishes it: nothing is
//! lost and nothing is done twice.

mod grounds;
mod subjects;
mod table;

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use grounds::{Grounds, Spot, Trial};
use subjects::{Effect, SUBJECTS, Subject, Times};
use table::Table;

use crate::stage::Done;
use crate::wrong::{Fault, When, locked};

/// Most cases wait: for a process to start, for patience to end.
const AT_ONCE: usize = 6;

struct Case {
    subject: &'static Subject,
    spot: Spot,
    fault: Fault,
    /// Decides whether it has its turn in a short run.
    turn: usize,
}

/// What came of a case. All three are empty where all is well.
#[derive(Default)]
struct Verdict {
    lost: Vec<String>,
    doubled: Vec<String>,
    wrong: Vec<String>,
}

#[test]
fn nothing_is_lost_and_nothing_is_done_twice() {
    let grounds = Grounds::new();
    let all: Vec<Case> = SUBJECTS.iter().flat_map(|subject| cases(&grounds, subject)).collect();
    let possible = all.len();
    let is_whole = std::env::var("BLUMEOPS_FAULTS").is_ok_and(|which| which == "all");
    // Each spot has some of the faults in every run, and those next to it others; `BLUMEOPS_FAULTS=all` has all happen.
    let is_its_turn = |case: &Case| is_whole || case.turn.is_multiple_of(case.subject.share);
    let mut cases: Vec<Case> = all.into_iter().filter(is_its_turn).collect();
    // Who waits leaves the processor to others.
    cases.sort_by_key(|case| !matches!(case.fault, Fault::Hangs(_)));
    println!("{} of {possible} cases are made to happen", cases.len());
    let (next, table, faulty) = (AtomicUsize::new(0), Mutex::new(Table::default()), Mutex::new(Vec::new()));
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
            let (what, verdict) = tried(&grounds, case);
            let Verdict { lost, doubled, wrong } = verdict;
            locked(&table).add(case.subject.name, case.fault, &case.spot, (lost.len(), doubled.len()));
            for (kind, all) in [("lost", lost), ("doubled", doubled), ("wrong", wrong)] {
                let line = |one| {
                    format!("{}, {}, {:?} {what}: {kind}: {one}", case.subject.name, case.fault.word(), case.spot)
                };
                locked(&faulty).extend(all.into_iter().map(line));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    let table = table.into_inner().unwrap();
    println!("{table}");
    let faulty = faulty.into_inner().unwrap();
    assert!(faulty.is_empty(), "{} of {} cases\n{}", faulty.len(), cases.len(), faulty.join("\n"));
    if !is_whole {
        table.assert_documented();
    }
}

/// Every fault at every spot where there can be one.
fn cases(grounds: &Grounds, subject: &'static Subject) -> Vec<Case> {
    let spots = grounds.trial(subject).spots();
    let mut cases = Vec::new();
    for (place, (spot, answers)) in spots.into_iter().enumerate() {
        let faults = Fault::ALL.into_iter().filter(|fault| is_possible(*fault, &spot, answers)).enumerate();
        cases.extend(faults.map(|(at, fault)| {
            let turn = if is_always(subject, &spot, fault) { 0 } else { place + at };
            Case { subject, spot: spot.clone(), fault, turn }
        }));
    }
    cases
}

/// A release that is killed or interrupted at any of its commands.
fn is_always(subject: &Subject, spot: &Spot, fault: Fault) -> bool {
    let is_end = matches!(fault, Fault::Killed(_) | Fault::Interrupted(_));
    subject.name == SUBJECTS[0].name && is_end && matches!(spot, Spot::Command(_))
}

fn is_possible(fault: Fault, spot: &Spot, answers: bool) -> bool {
    match (fault, spot) {
        (Fault::Cut, _) => answers,
        (_, Spot::Command(_) | Spot::Request(_)) => true,
        (fault, Spot::Write(_)) => matches!(
            fault,
            Fault::Killed(When::Before) | Fault::Interrupted(When::Before) | Fault::Refuses(When::Before) | Fault::Gone
        ),
    }
}

/// One fault, and the same command once more.
fn tried(grounds: &Grounds, case: &Case) -> (String, Verdict) {
    let trial = grounds.trial(case.subject);
    let mut verdict = Verdict::default();
    let first = trial.run(Some((&case.spot, case.fault)));
    let Some(what) = trial.came_to(&case.spot) else {
        verdict.wrong.push("it never came".to_owned());
        return (String::new(), verdict);
    };
    let done = times(grounds, &trial, case.subject);
    verdict.wrong.extend(ended_badly(case, &first));
    verdict.wrong.extend(untrue(&first, &done, &trial));
    // What it has called ends with it, a moment later.
    trial.stage.assert_nothing_runs();
    let again = trial.run(None);
    if again.code != Some(0) {
        verdict
            .wrong
            .push(format!("then {:?}: {}; at first {:?}: {}", again.code, again.stderr, first.code, first.stderr));
    }
    if case.subject.calls_itself {
        verdict.wrong.extend(shown_again(&done, &again));
    } else {
        verdict.wrong.extend(said_again(&done, &again));
    }
    for (effect, Times { count, odd }) in times(grounds, &trial, case.subject) {
        let said = || format!("{effect:?} {count} times, {odd:?}: {} THEN {}", first.stderr, again.stderr);
        if count == 0 || odd.is_some() {
            verdict.lost.push(said());
        }
        if count > 1 {
            verdict.doubled.push(said());
        }
    }
    verdict.wrong.extend(left_over(&trial, case.subject));
    trial.stage.assert_nothing_runs();
    (what.trim().to_owned(), verdict)
}

fn times(grounds: &Grounds, trial: &Trial<'_>, subject: &Subject) -> Vec<(Effect, Times)> {
    subject.effects.iter().map(|effect| (*effect, effect.times(grounds, &trial.stage))).collect()
}

/// Who was not killed says how it ended, and what was left.
fn ended_badly(case: &Case, first: &Done) -> Option<String> {
    let said = format!("{}{}", first.stdout, first.stderr);
    let says_what_is_left = || ["  left: ", "nothing was ", "done: "].iter().any(|words| said.contains(words));
    let fine = match (case.fault, first.code) {
        // It may be the program that it has called that is killed or interrupted.
        (Fault::Killed(_) | Fault::Interrupted(_), Some(1)) if case.subject.calls_itself => says_what_is_left(),
        (Fault::Killed(_), code) => code.is_none(),
        (Fault::Interrupted(_), Some(0 | 130)) | (_, Some(0)) => true,
        (Fault::Interrupted(_), _) => false,
        (_, Some(1 | 2)) => says_what_is_left(),
        _ => false,
    };
    let fine = fine && !first.stderr.contains("panicked");
    (!fine).then(|| format!("ended with {:?}: {}", first.code, first.stderr))
}

/// What it says of what was left, against what was.
fn untrue(first: &Done, done: &[(Effect, Times)], trial: &Trial<'_>) -> Vec<String> {
    let count =
        |wanted: fn(&Effect) -> bool| done.iter().filter(|(effect, times)| wanted(effect) && times.count > 0).count();
    let pinned = count(|effect| matches!(effect, Effect::Pin(_)));
    let all = count(|_| true);
    let tagged = count(|effect| *effect == Effect::Tag);
    let is_tagged_here = done.iter().any(|(effect, _)| *effect == Effect::Tag)
        && trial.stage.path("clone/.git/refs/tags/tiny-v1.0.0").exists();
    let claims = [
        ("nothing was done", all == 0),
        ("nothing was tagged, pushed or changed", all == 0 && !is_tagged_here),
        ("nothing else was changed", all == 0),
        ("nothing was changed", all == 0),
        ("nothing was published", all == 0),
        ("nothing was pinned", pinned == 0),
        ("nothing is pinned", pinned == 0),
        ("the local tag was removed", !is_tagged_here),
        ("tiny-v1.0.0 is pushed", tagged == 1),
    ];
    let untrue = claims.into_iter().filter(|(claim, holds)| first.stderr.contains(claim) && !holds);
    untrue.map(|(claim, _)| format!("«{claim}» is not true: {done:?} {}", first.stderr)).collect()
}

/// What was done before is said to be, and not done again.
fn said_again(done: &[(Effect, Times)], again: &Done) -> Vec<String> {
    let pins = done.iter().filter(|(effect, _)| matches!(effect, Effect::Pin(_)));
    let half = pins.clone().any(|(_, times)| times.count == 0);
    let before = done.iter().filter(|(effect, times)| times.count > 0 && !(half && matches!(effect, Effect::Pin(_))));
    let said = format!("{}{}", again.stdout, again.stderr);
    let silent = before.filter(|(effect, _)| !said.contains(effect.done_already()));
    silent.map(|(effect, _)| format!("{effect:?} was done before, which is not said: {said}")).collect()
}

/// A step that was done before is not shown as one to do.
fn shown_again(done: &[(Effect, Times)], again: &Done) -> Vec<String> {
    let steps = [(Effect::Tag, "→ tag-tiny:"), (Effect::Image, "→ image-tiny:")];
    let is_done = |effect: &Effect| done.iter().any(|(other, times)| other == effect && times.count > 0);
    let shown = steps.into_iter().filter(|(effect, step)| is_done(effect) && again.stderr.contains(step));
    shown.map(|(effect, _)| format!("{effect:?} was done before and is done again: {}", again.stderr)).collect()
}

/// Files that nobody knows, locks, changes that are in no commit.
fn left_over(trial: &Trial<'_>, subject: &Subject) -> Vec<String> {
    let mut odd = Vec::new();
    let known = ["home", "cache", "clone", "forge.git", "runner", "faults"];
    let names =
        fs::read_dir(trial.stage.path("")).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    odd.extend(names.filter(|name| !known.contains(&name.as_str())).map(|name| format!("{name} was left")));
    for folder in ["clone/.git", "forge.git", "runner/.git", "cache"] {
        find(&trial.stage.path(folder), &mut odd);
    }
    let clean = subject.effects.contains(&Effect::Commit) || !subject.effects.contains(&Effect::Pin("one"));
    let changes = trial.stage.git(&["status", "--porcelain=v1", "--ignored"]);
    let pins = " M argocd/manifests/one/kustomization.yaml\n M argocd/manifests/two/kustomization.yaml\n";
    let is_either = subject.effects.contains(&Effect::Kept) && changes.is_empty();
    if !is_either && changes != if clean { "" } else { pins } {
        odd.push(format!("the work tree has {changes}"));
    }
    odd
}

/// Locks and what is half written; the lock of releases is a file that stays, and free.
fn find(folder: &Path, odd: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            find(&entry.path(), odd);
        } else if folder.ends_with("render") {
            // A cache is named after what its files were made of: half of one is never read.
        } else if name.starts_with('.')
            || (entry.path().extension().is_some_and(|end| end == "lock") && !name.starts_with("xtask-release-"))
        {
            odd.push(format!("{} was left", entry.path().display()));
        }
    }
}
