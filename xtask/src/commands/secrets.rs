//! Secrets: every field that the repository needs is in the vault, every ExternalSecret has fetched it. Names only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Context, check, deploy, services_check};
use crate::exec::{parallel, signal};
use crate::model::failure::Failure;
use crate::model::needs::{self, Need};
use crate::model::world::{App, Object};
use crate::probes::{Verdict, Want, kube};
use crate::report::{Outcome, table};
use crate::tools::op::{self, Item, Trouble};

/// The API server's limit.
const LIST: Duration = Duration::from_secs(10);

/// Check the secrets that the repository needs
#[derive(clap::Args, Debug)]
#[command(arg_required_else_help = true, subcommand_required = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Ask 1Password for every field by name, and the clusters for every `ExternalSecret`
    #[command(after_help = "Examples:\n  cargo xtask secrets check\n  cargo xtask secrets check authentik")]
    Check {
        /// Only what this Application needs
        service: Option<String>,
    },
}

/// How one thing stands.
struct Row {
    what: String,
    /// Nothing where it is as it should be.
    wrong: Option<String>,
    needed_at: String,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    let Command::Check { service } = &args.command;
    Context::preflight(&["op", "kubectl"])?;
    let world = check::world(cx)?;
    let only = service.as_deref().map(|name| deploy::app(&world, name)).transpose()?;
    let mut needs = needs::of(&world);
    needs.retain(|need| only.is_none_or(|app| need.app.as_ref() == Some(&app.name)));
    let is_wanted = |app: &&App| only.is_none_or(|only| only.name == app.name);
    let apps: Vec<&App> = world.apps.iter().filter(is_wanted).filter(|app| has_secrets(app)).collect();
    if needs.is_empty() && apps.is_empty() {
        return Err(Failure::refused("nothing was checked: nothing here needs a secret").into());
    }
    for place in apps.iter().flat_map(|app| &app.objects).filter(|it| is_secret(it)).flat_map(needs::unnamed) {
        cx.report.say(&format!("not asked for: what is taken by a pattern has no name ({place})"));
    }
    let mut stage = cx.report.stage("secrets");
    stage.update(&format!("{} fields in 1Password, {} Applications in their clusters", needs.len(), apps.len()));
    let (fields, synced) = std::thread::scope(|scope| {
        let clusters = scope.spawn(|| parallel::map(&apps, 8, |app| synced(cx, app)));
        let fields = vault(cx, &needs);
        (fields, clusters.join())
    });
    let mut rows = fields?;
    for result in synced.map_err(|_| Failure::environment("asking the clusters failed"))? {
        rows.extend(result?);
    }
    let bad = rows.iter().filter(|row| row.wrong.is_some()).count();
    stage.done(&format!("{} asked for, {bad} not as they should be", rows.len()));
    Ok(outcome(&rows, bad))
}

fn is_secret(object: &Object) -> bool {
    object.kind == "ExternalSecret"
}

fn has_secrets(app: &App) -> bool {
    app.objects.iter().any(is_secret)
}

/// One call to `op` for each item, several at once; after the first that is not signed in no more.
fn vault(cx: &Context, needs: &[Need]) -> Result<Vec<Row>> {
    let items: Vec<(&str, &str)> = needs
        .iter()
        .map(|need| (need.vault.as_str(), need.item.as_str()))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    // The first call may ask for a fingerprint; the others then need not.
    let (first, rest) = items.split_at(items.len().min(1));
    let mut answers = parallel::map(first, 1, |(vault, item)| ask(cx, vault, item));
    let signed_out = matches!(answers.first(), Some(Err(why)) if *why == said(Trouble::NotSignedIn));
    if signed_out {
        answers.extend(rest.iter().map(|_| Err(said(Trouble::NotSignedIn))));
    } else {
        answers.extend(parallel::map(rest, 4, |(vault, item)| ask(cx, vault, item)));
    }
    signal::check()?;
    let known: BTreeMap<_, _> = items.into_iter().zip(answers).collect();
    let row = |need: &Need| {
        let wrong = match known.get(&(need.vault.as_str(), need.item.as_str())) {
            Some(Ok(item)) => match &need.field {
                Some(label) => field(item, label),
                None => whole(item),
            },
            Some(Err(why)) => Some(why.clone()),
            None => Some("not asked for".to_owned()),
        };
        Row { what: need.to_string(), wrong, needed_at: need.place.to_string() }
    };
    Ok(needs.iter().map(row).collect())
}

fn ask(cx: &Context, vault: &str, item: &str) -> Result<Item, String> {
    let answer = cx.system.output(&op::item(vault, item)).map_err(|error| match error.downcast::<Failure>() {
        Ok(failure) => failure.summary,
        Err(_) => "op could not be asked".to_owned(),
    })?;
    if !answer.success() {
        return Err(said(op::trouble(&answer.stderr)));
    }
    op::parse(&answer.stdout).map_err(|why| format!("what op printed {why}"))
}

/// In our own words: op's are shown to nobody.
pub(super) fn said(trouble: Trouble) -> String {
    match trouble {
        Trouble::NoItem => "there is no such item",
        Trouble::NoVault => "there is no such vault",
        Trouble::NotSignedIn => "op is not signed in: `op signin`",
        Trouble::Unknown => "op failed, and what it printed is not shown",
    }
    .to_owned()
}

/// Exactly one field of that label, with something in it.
pub(super) fn field(item: &Item, label: &str) -> Option<String> {
    let found: Vec<_> = item.fields.iter().filter(|field| field.label == label).collect();
    match found[..] {
        [one] if one.set => None,
        [_] => Some("the field is empty".to_owned()),
        [] => {
            let labels = || item.fields.iter().map(|field| field.label.as_str());
            let near = crate::model::suggest::nearest(label, labels());
            let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            Some(format!("the item has no such field{near}"))
        }
        _ => Some(format!("{} fields have that label, and exactly one may", found.len())),
    }
}

/// Something is in it.
pub(super) fn whole(item: &Item) -> Option<String> {
    let is_empty = !item.fields.iter().any(|field| field.set);
    is_empty.then(|| "all of it is taken, and no field of it is set".to_owned())
}

/// Every `ExternalSecret` of an Application, as its cluster has it.
fn synced(cx: &Context, app: &App) -> Result<Vec<Row>> {
    let wanted = app.objects.iter().filter(|object| is_secret(object));
    let row = |wrong: Option<String>, name: &str, place: String| Row {
        what: format!("{}: ExternalSecret {name}", app.name),
        wrong,
        needed_at: place,
    };
    let context = match deploy::context(cx, app) {
        Ok(context) => context,
        Err(error) => {
            return Ok(wanted
                .map(|object| row(Some(error.to_string()), &object.name, object.place().to_string()))
                .collect());
        }
    };
    let want = Want::ExternalSecret;
    let question = (want.kind().resource(), Some(app.namespace.as_str()));
    let objects = services_check::list(&cx.system, context, LIST, question);
    signal::check()?;
    let judge = |object: &Object| {
        let objects = match &objects {
            Ok(objects) => objects.as_slice(),
            Err(why) => return Some(format!("{} can't be asked: {why}", app.cluster)),
        };
        let seen = kube::Seen { cluster: &app.cluster, objects, pods: &[], now: Timestamp::now() };
        match kube::judge(&want, &object.namespace, &object.name, &seen) {
            Verdict::Fine(_) => None,
            Verdict::Bad(bad) => Some(format!("{}: {}", app.cluster, bad.seen)),
        }
    };
    Ok(wanted.map(|object| row(judge(object), &object.name, object.place().to_string())).collect())
}

fn outcome(rows: &[Row], bad: usize) -> Outcome {
    let cells =
        |row: &Row| vec![row.what.clone(), row.wrong.clone().unwrap_or_else(|| "ok".to_owned()), row.needed_at.clone()];
    let human = table(&["WHAT", "STATE", "NEEDED AT"], &rows.iter().map(cells).collect::<Vec<_>>());
    let values: Vec<Value> = rows
        .iter()
        .map(|row| json!({"what": row.what, "ok": row.wrong.is_none(), "wrong": row.wrong, "needed_at": row.needed_at}))
        .collect();
    Outcome { human, json: json!({"checked": values, "wrong": bad}), code: u8::from(bad > 0), other: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::op::Field;

    #[test]
    fn a_field_is_there_once_and_holds_something() {
        let field_of = |label: &str, set| Field { label: label.to_owned(), set };
        let item = Item {
            fields: vec![field_of("db-password", true), field_of("x", false), field_of("y", true), field_of("y", true)],
        };
        assert_eq!(field(&item, "db-password"), None);
        assert!(field(&item, "x").unwrap().contains("empty"));
        assert!(field(&item, "y").unwrap().contains("2 fields"));
        assert!(field(&item, "db-pasword").unwrap().contains("did you mean `db-password`?"));
        assert_eq!(whole(&item), None);
        assert!(whole(&Item { fields: vec![field_of("x", false)] }).is_some());
    }
}
