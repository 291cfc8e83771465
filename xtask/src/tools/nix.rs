//! Nix: evaluating what an expression declares, and building it.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::{Invocation, line};
use crate::model::image::Architecture;

/// An evaluation of a big package set on a slow machine.
const EVALUATION: Duration = Duration::from_secs(600);

/// The runner gives up after three hours; so do we.
const BUILD: Duration = Duration::from_secs(3 * 3600);

/// Builds see the host's programs and nothing of the network: the stand-in package set is made from them.
pub(crate) const SEALED: &str = "sandbox = true
extra-sandbox-paths = /bin /usr /lib /lib64 /etc/ld.so.cache
build-users-group =
substituters =";

/// Succeeds where a sandbox can be made.
pub(crate) fn namespaces() -> Invocation {
    line!("unshare --user --map-root-user --mount --pid --fork true")
}

/// The store that lives below `folder`.
pub(crate) fn store_below(folder: &str) -> String {
    format!("local?root={folder}")
}

/// Reads what an image expression declares without building anything: the three image builders are
/// replaced by functions that hand back their argument.
const DECLARED: &str = "{ file, system ? builtins.currentSystem }:
let
  pkgs = import <nixpkgs> { inherit system; };
  declared = args: {
    inherit (args) name;
    config = args.config or { };
    nixpkgs = pkgs.lib.version;
  };
  builders = { buildImage = declared; buildLayeredImage = declared; streamLayeredImage = declared; };
in
import file { pkgs = pkgs // { dockerTools = pkgs.dockerTools // builders; }; }";

/// Evaluates `file`'s declaration for `architecture`, naming every file it reads on stderr.
pub(crate) fn declared(file: &Path, architecture: Option<Architecture>) -> Invocation {
    let file = file.to_string_lossy().into_owned();
    let system = architecture.map_or_else(Vec::new, |architecture| {
        vec!["--argstr".to_owned(), "system".to_owned(), architecture.nix_system().to_owned()]
    });
    line!("nix-instantiate --eval --strict --json -vv -E {DECLARED} --arg file {file} {system...}").limit(EVALUATION)
}

/// Builds `file`; the store path is on stdout, the progress on stderr.
pub(crate) fn build(file: &str) -> Invocation {
    line!("nix-build --no-out-link {file}").limit(BUILD)
}

/// What there is to push of an image: the list of its layers, where nixpkgs has one, else its archive.
const TO_PUSH: &str = "{ file }: let found = import file; image = if builtins.isFunction found then found { } else found; in image.stream.conf or image";

/// Builds what [`TO_PUSH`] says of `file`. An image with a list of layers is never written as an archive.
pub(crate) fn build_to_push(file: &Path) -> Invocation {
    let file = file.to_string_lossy().into_owned();
    line!("nix-build --no-out-link -E {TO_PUSH} --arg file {file}").limit(BUILD)
}

/// The hash of a store path's contents, known to the store without reading them.
pub(crate) fn content_hash(path: &str) -> Invocation {
    line!("nix-store --query --hash {path}")
}

/// The files below `root` that an evaluation with `-vv` read, relative to it.
pub(crate) fn parse_inputs(stderr: &str, root: &Path) -> Vec<String> {
    let quoted = |line: &str| {
        let from = ["evaluating file '", "copied source '"]
            .iter()
            .find_map(|start| line.find(start).map(|at| at + start.len()))?;
        line[from..].split('\'').next().map(PathBuf::from)
    };
    let inside = |path: PathBuf| path.strip_prefix(root).ok().map(|path| path.to_string_lossy().into_owned());
    let mut inputs: Vec<String> =
        stderr.lines().filter_map(quoted).filter_map(inside).filter(|path| !path.is_empty()).collect();
    inputs.sort();
    inputs.dedup();
    inputs
}

/// The lines of an evaluation's stderr that are not the `-vv` talk.
pub(crate) fn without_talk(stderr: &str) -> Vec<String> {
    let start = stderr.lines().position(|line| line.trim_start().starts_with("error:"));
    stderr.lines().skip(start.unwrap_or(0)).map(str::to_owned).collect()
}

/// Is it the machine that has no package set, and not the expression that is wrong?
pub(crate) fn lacks_nixpkgs(stderr: &str) -> bool {
    stderr.contains("'nixpkgs' was not found in the Nix search path")
}

/// What a line of a build's stderr says is being done, for the progress display.
pub(crate) fn parse_progress(line: &str) -> Option<String> {
    let quoted = |start: &str| line.strip_prefix(start)?.split('\'').next();
    let name = |path: &str| {
        path.rsplit('/')
            .next()
            .and_then(|file| file.split_once('-'))
            .map_or("", |(_, name)| name)
            .trim_end_matches(".drv")
            .to_owned()
    };
    quoted("building '")
        .map(|path| format!("building {}", name(path)))
        .or_else(|| quoted("copying path '").map(|path| format!("fetching {}", name(path))))
}

/// The one path that a build leaves.
pub(crate) fn parse_store_path(stdout: &str) -> Option<&str> {
    let path = stdout.trim();
    (path.starts_with("/nix/store/") && !path.contains(char::is_whitespace)).then_some(path)
}

/// The derivation that a failed build names.
pub(crate) fn parse_failed_derivation(stderr: &str) -> Option<&str> {
    let starts = ["builder for '", "Cannot build '", "build of '"];
    starts.iter().find_map(|start| stderr.split_once(start)?.1.split('\'').next())
}

/// Where a store path really is. A `local?root=` or plain-path store keeps `/nix/store/…` below its root.
pub(crate) fn real_path(store_path: &str, nix_remote: Option<&str>) -> PathBuf {
    let root = nix_remote
        .and_then(|store| store.strip_prefix("local?root=").or_else(|| store.strip_prefix('/').map(|_| store)));
    match root {
        Some(root) => Path::new(root)
            .components()
            .chain(Path::new(store_path).components().filter(|part| !matches!(part, Component::RootDir)))
            .collect(),
        None => PathBuf::from(store_path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_below_a_root_are_found() {
        let path = "/nix/store/abc-x.tar.gz";
        assert_eq!(real_path(path, None), Path::new(path));
        assert_eq!(real_path(path, Some("daemon")), Path::new(path));
        assert_eq!(real_path(path, Some("local?root=/tmp/n")), Path::new("/tmp/n/nix/store/abc-x.tar.gz"));
        assert_eq!(real_path(path, Some("/tmp/n")), Path::new("/tmp/n/nix/store/abc-x.tar.gz"));
    }

    #[test]
    fn inputs_are_those_inside_the_repository() {
        let stderr = "evaluating file '/r/containers/a/default.nix'\nevaluating file '/nixpkgs/default.nix'\ncopied source '/r/lib/x' -> '/nix/store/y'\nevaluating file '/r/containers/a/default.nix'\n";
        assert_eq!(parse_inputs(stderr, Path::new("/r")), ["containers/a/default.nix", "lib/x"]);
    }

    #[test]
    fn a_failed_build_names_its_derivation_in_old_and_new_words() {
        assert_eq!(
            parse_failed_derivation("error: builder for '/nix/store/a-b.drv' failed with exit code 1;"),
            Some("/nix/store/a-b.drv")
        );
        assert_eq!(
            parse_failed_derivation("error: Cannot build '/nix/store/a-b.drv'.\n  Reason: builder failed"),
            Some("/nix/store/a-b.drv")
        );
        assert_eq!(parse_failed_derivation("error: undefined variable"), None);
    }

    #[test]
    fn one_store_path_and_nothing_else() {
        assert_eq!(parse_store_path("/nix/store/a-b.tar.gz\n"), Some("/nix/store/a-b.tar.gz"));
        assert_eq!([parse_store_path(""), parse_store_path("/nix/store/a\n/nix/store/b\n")], [None, None]);
    }

    #[test]
    fn progress_lines() {
        assert_eq!(parse_progress("building '/nix/store/0abc-redis-7.drv'...").as_deref(), Some("building redis-7"));
        assert_eq!(
            parse_progress("copying path '/nix/store/0abc-glibc-2' from 'https://x'...").as_deref(),
            Some("fetching glibc-2")
        );
        assert_eq!(parse_progress("checking for gcc"), None);
    }
}
