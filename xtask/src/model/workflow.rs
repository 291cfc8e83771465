//! Forgejo workflows, as far as they call this tool.

use super::finding::Finding;
use super::source::Source;
use super::yaml;

/// Where they are, relative to the root.
pub(crate) const FOLDER: &str = ".forgejo/workflows";

/// How a line that calls this tool starts.
const CALL: &str = "cargo xtask ";

/// One workflow file.
#[derive(Clone, Debug)]
pub(crate) struct Workflow {
    /// The file's name without its folder.
    pub(crate) name: String,
    /// Every line of a `run:` that calls this tool, without `cargo xtask`.
    pub(crate) calls: Vec<String>,
}

impl Workflow {
    /// Reads a workflow.
    ///
    /// # Errors
    /// A finding where it is no YAML.
    pub(crate) fn parse(source: &Source) -> Result<Self, Box<Finding>> {
        let mut calls = Vec::new();
        for document in yaml::parse(source)? {
            document.walk(&mut |key, value| {
                if let (Some("run"), Some(script)) = (key.text(), value.text()) {
                    calls.extend(script.lines().filter_map(|line| line.trim().strip_prefix(CALL)).map(str::to_owned));
                }
            });
        }
        let name = source.path.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Self { name, calls })
    }
}

/// The words of a call, with the ref that the workflow runs for in place of the forge's names for it.
///
/// # Errors
/// What is not a plain command line.
pub(crate) fn words(call: &str, ref_name: &str) -> Result<Vec<String>, String> {
    let names = ["${{ github.ref_name }}", "${GITHUB_REF_NAME}", "$GITHUB_REF_NAME"];
    let call = names.iter().fold(call.to_owned(), |call, name| call.replace(name, ref_name));
    if let Some(special) = call.chars().find(|c| "$`;&|<>".contains(*c)) {
        return Err(format!("`cargo xtask {call}` needs a shell ({special})"));
    }
    shell_words::split(&call).map_err(|error| format!("`cargo xtask {call}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_off_the_steps() {
        let text = "jobs:\n  a:\n    steps:\n      - uses: x\n      - run: |\n          echo\n          cargo xtask publish \"$GITHUB_REF_NAME\"\n";
        let workflow = Workflow::parse(&Source::new(".forgejo/workflows/w.yaml", text)).unwrap();
        assert_eq!((workflow.name.as_str(), workflow.calls.len()), ("w.yaml", 1));
        assert_eq!(words(&workflow.calls[0], "redis-v1.0.0").unwrap(), ["publish", "redis-v1.0.0"]);
        assert!(words("publish $(id)", "x").is_err() && words("publish 'x", "x").is_err());
    }
}
