//! The hosts that Ansible's inventory names: no command reaches any other.

use std::collections::BTreeMap;

use super::source::Source;
use super::yaml::{self, Node, Value};

/// Where inventories are, seen from the root.
pub(crate) const FOLDER: &str = "ansible/inventory/";

/// One host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) user: Option<String>,
    pub(crate) port: Option<u16>,
    /// It is this machine: commands run here and not over ssh.
    pub(crate) local: bool,
}

/// The hosts of every YAML inventory among `files`, in the order of their names.
pub(crate) fn hosts(files: &[Source]) -> Vec<Host> {
    let mut hosts = BTreeMap::new();
    for file in files.iter().filter(|file| file.path.starts_with(FOLDER)) {
        for document in yaml::parse(file).unwrap_or_default() {
            document.walk(&mut |key, value| {
                if let (Some("hosts"), Value::Mapping(entries)) = (key.text(), &value.value) {
                    let named = entries.iter().filter_map(|(name, vars)| host(name.text()?, vars));
                    hosts.extend(named.map(|host| (host.name.clone(), host)));
                }
            });
        }
    }
    hosts.into_values().collect()
}

/// Nothing for a name that would be something else in a command line, as a pattern or an option.
fn host(name: &str, vars: &Node) -> Option<Host> {
    let var = |key: &str| vars.get(key).and_then(Node::text).filter(|text| is_plain(text)).map(str::to_owned);
    is_plain(name).then(|| Host {
        name: name.to_owned(),
        address: var("ansible_host").unwrap_or_else(|| name.to_owned()),
        user: var("ansible_user"),
        port: var("ansible_port").and_then(|port| port.parse().ok()),
        local: var("ansible_connection").as_deref() == Some("local"),
    })
}

fn is_plain(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    !text.is_empty() && !text.starts_with('-') && text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_nested_groups_and_nothing_that_is_an_option() {
        let text = "all:\n  children:\n    mac:\n      hosts:\n        indri: {ansible_host: indri.example, ansible_user: me}\n  hosts:\n    here: {ansible_connection: local}\n    '-oProxyCommand=x': {}\n    'web[1:3]': {}\n    bare:\n";
        let hosts = hosts(&[Source::new("ansible/inventory/hosts.yml", text)]);
        let names: Vec<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
        assert_eq!(names, ["bare", "here", "indri"]);
        assert_eq!((hosts[2].address.as_str(), hosts[2].user.as_deref()), ("indri.example", Some("me")));
        assert!(hosts[1].local && hosts[0].address == "bare");
    }
}
