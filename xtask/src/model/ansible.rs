//! What provisions which host: playbooks, the hosts that they name, the roles that they apply.

use std::fmt;
use std::str::FromStr;

use super::repo::Repo;
use super::world::is_yaml;
use super::yaml::{self, Node};

/// Where playbooks, roles and the inventory are.
pub(crate) const FOLDER: &str = "ansible";

/// A host or a tag: a word that can stand in a command line and is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Word(String);

impl Word {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Word {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if text.is_empty() || text.starts_with(['-', '.']) || !text.chars().all(allowed) {
            return Err("expected one name made of letters, digits, '-', '_' and '.'".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

/// One file of plays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Playbook {
    /// Relative to [`FOLDER`].
    pub(crate) path: String,
    /// Hosts and groups, as its plays name them.
    pub(crate) hosts: Vec<String>,
    pub(crate) roles: Vec<String>,
}

/// Every playbook, by path.
pub(crate) fn playbooks(repo: &Repo) -> Vec<Playbook> {
    let folder = format!("{FOLDER}/playbooks");
    let files = repo.files.iter().filter(|file| file.folder() == folder && is_yaml(&file.path));
    let read = |file| {
        let documents = yaml::parse(file).unwrap_or_default();
        let plays: Vec<&Node> = documents.iter().flat_map(Node::items).collect();
        let hosts: Vec<String> = plays.iter().filter_map(|play| play.get("hosts")).flat_map(words).collect();
        let role = |node: &Node| node.get("role").or(node.get("name")).unwrap_or(node).text().map(str::to_owned);
        let roles = plays.iter().filter_map(|play| play.get("roles")).flat_map(Node::items).filter_map(role);
        Playbook { path: file.path[FOLDER.len() + 1..].to_owned(), roles: roles.collect(), hosts }
    };
    files.map(read).filter(|playbook| !playbook.hosts.is_empty()).collect()
}

/// A list, or a text with the same in it.
fn words(node: &Node) -> Vec<String> {
    let items = node.items().iter().filter_map(Node::text).chain(node.text());
    items.flat_map(|text| text.split([',', ':'])).map(|word| word.trim().to_owned()).collect()
}

/// The playbooks that are for `host`: those that name it, else those that name one of its `groups`.
pub(crate) fn of_host<'a>(playbooks: &'a [Playbook], host: &Word, groups: &[String]) -> Vec<&'a Playbook> {
    let naming = |names: &[&str]| -> Vec<&Playbook> {
        let names_one = |playbook: &&Playbook| playbook.hosts.iter().any(|own| names.contains(&own.as_str()));
        playbooks.iter().filter(names_one).collect()
    };
    let own = naming(&[host.as_str()]);
    if own.is_empty() { naming(&groups.iter().map(String::as_str).collect::<Vec<_>>()) } else { own }
}

/// Does a role build from what is pushed to `repository`, whatever is checked out?
pub(crate) fn builds_from(repo: &Repo, playbook: &Playbook, repository: &str) -> bool {
    let address = format!("{repository}.git");
    let folders: Vec<String> = playbook.roles.iter().map(|role| format!("{FOLDER}/roles/{role}/")).collect();
    let of_role = |path: &str| folders.iter().any(|folder| path.starts_with(folder));
    !repository.is_empty() && repo.files.iter().any(|file| of_role(&file.path) && file.text.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::repo::tests::repo;

    const PLAYBOOKS: &str = "
//- ansible/playbooks/a.yml
- hosts: a
  roles: [one, {role: two}]
//- ansible/playbooks/web.yml
- hosts: [web, c]
//- ansible/playbooks/broken.yml
- [
//- ansible/roles/two/defaults/main.yml
flake: git+ssh://forge/me/mine.git
";

    #[test]
    fn the_playbook_of_a_host_is_the_one_that_names_it_or_its_group() {
        let repo = repo(PLAYBOOKS);
        let all = playbooks(&repo);
        let paths = |host: &str, groups: &[&str]| -> Vec<String> {
            let groups: Vec<String> = groups.iter().map(|&group| group.to_owned()).collect();
            of_host(&all, &host.parse().unwrap(), &groups).iter().map(|playbook| playbook.path.clone()).collect()
        };
        assert_eq!(paths("a", &["web"]), ["playbooks/a.yml"]);
        assert_eq!(paths("b", &["web", "all"]), ["playbooks/web.yml"]);
        assert!(paths("b", &[]).is_empty());
        assert!(builds_from(&repo, &all[0], "me/mine") && !builds_from(&repo, &all[1], "me/mine"));
        assert!(!builds_from(&repo, &all[0], ""));
    }

    #[test]
    fn a_pattern_is_no_host() {
        for text in ["", "all:!a", "a,b", "*", "-l", "a b", "@x"] {
            assert!(text.parse::<Word>().is_err(), "{text}");
        }
    }
}
