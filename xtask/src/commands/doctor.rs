//! Every external program: there or not, which version, who needs it, how to get it.

use anyhow::Result;
use serde_json::{Value, json};

use super::Context;
use crate::exec::{env, parallel, run};
use crate::model::failure::Failure;
use crate::report::{Outcome, table};
use crate::tools::catalog::{self, Tool};

/// Check every external program and say how to install what is missing
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  cargo xtask doctor\n  cargo xtask doctor --for release")]
pub(crate) struct Args {
    /// Only what this command needs
    #[arg(long = "for", value_name = "COMMAND")]
    pub(crate) purpose: Option<String>,
}

/// How a program stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Fine(String),
    TooOld(String),
    /// It is there but does not say its version.
    Silent,
    Missing,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    let tools = wanted(args.purpose.as_deref())?;
    let standings = parallel::map(&tools, 8, |tool| standing(cx, tool));
    let mut rows = Vec::new();
    let mut values = Vec::new();
    let mut bad = 0;
    for (tool, standing) in tools.iter().zip(standings) {
        let (word, version) = match &standing {
            Standing::Fine(version) => ("ok", version.as_str()),
            Standing::TooOld(version) => ("too old", version.as_str()),
            Standing::Silent => ("no version", "?"),
            Standing::Missing => ("missing", "-"),
        };
        bad += u32::from(!matches!(standing, Standing::Fine(_)));
        let minimum = dotted(tool.minimum);
        rows.push(vec![
            tool.program.to_owned(),
            word.to_owned(),
            version.to_owned(),
            minimum.clone(),
            tool.needed_by.join(", "),
            tool.debian.to_string(),
            tool.nixos.to_owned(),
            tool.macos.to_owned(),
            tool.mise.to_owned(),
        ]);
        values.push(value(tool, word, version, &minimum));
    }
    let human =
        table(&["PROGRAM", "STATE", "VERSION", "NEEDS", "NEEDED BY", "DEBIAN", "NIXOS", "MACOS", "MISE"], &rows);
    let end = if bad == 0 {
        "everything is there\n".to_owned()
    } else {
        format!("{bad} of {} need attention; `cargo xtask setup` shows how\n", tools.len())
    };
    Ok(Outcome { human: human + &end, json: json!({"tools": values}), code: u8::from(bad > 0), other: None })
}

/// The tools that a command needs, or all.
pub(super) fn wanted(purpose: Option<&str>) -> Result<Vec<&'static Tool>> {
    let tools = catalog::needed_by(purpose);
    if tools.is_empty() {
        let failure = Failure::environment("--for names no command that needs a program");
        return Err(failure.next(format!("it can be: {}", catalog::purposes().join(", "))).into());
    }
    Ok(tools)
}

/// Looks for a program and asks it for its version.
pub(crate) fn standing(cx: &Context, tool: &Tool) -> Standing {
    let own = env::tools_folder().join("bin").join(tool.program);
    let found = run::find(tool.program);
    // What `setup` has brought counts where the system's own is too old.
    let both =
        found.clone().into_iter().chain((own.is_file() && found.is_some_and(|found| found != own)).then_some(own));
    let mut last = Standing::Missing;
    for program in both {
        last = standing_of(cx, tool, &program.to_string_lossy());
        if matches!(last, Standing::Fine(_)) {
            break;
        }
    }
    last
}

fn standing_of(cx: &Context, tool: &Tool, program: &str) -> Standing {
    let Ok(output) = cx.system.output(&catalog::version_of(tool, program)) else { return Standing::Silent };
    match catalog::parse_version(&(output.stdout + &output.stderr)) {
        Some(version) if version.as_slice() >= tool.minimum => Standing::Fine(dotted(&version)),
        Some(version) => Standing::TooOld(dotted(&version)),
        None if tool.minimum.is_empty() => Standing::Fine("?".to_owned()),
        None => Standing::Silent,
    }
}

fn dotted(version: &[u32]) -> String {
    version.iter().map(ToString::to_string).collect::<Vec<_>>().join(".")
}

fn value(tool: &Tool, state: &str, version: &str, minimum: &str) -> Value {
    json!({
        "program": tool.program, "state": state, "version": version, "minimum": minimum, "reason": tool.reason, "needed_by": tool.needed_by,
        "install": {"debian": tool.debian.to_string(), "nixos": tool.nixos, "macos": tool.macos, "mise": tool.mise},
    })
}
