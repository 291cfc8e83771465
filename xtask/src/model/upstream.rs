//! The upstreams that service cards name.

use std::collections::BTreeMap;

use super::repo::Repo;
use super::source::Place;

/// What the row of a service card is called, and where they are.
pub(crate) const ROW: &str = "**Upstream**";
pub(crate) const CARDS: &str = "docs/reference/services/";

/// One upstream.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    pub(crate) url: String,
    pub(crate) name: String,
    pub(crate) place: Place,
}

/// Every upstream once, by its address.
pub(crate) fn all(repo: &Repo) -> Vec<Upstream> {
    let mut found = BTreeMap::new();
    for file in repo.files.iter().filter(|file| file.path.starts_with(CARDS)) {
        for (start, _) in file.text.match_indices(ROW) {
            let line = file.text[start..].lines().next().unwrap_or_default();
            let Some(at) = line.find("https://") else { continue };
            let end = line[at..].find([' ', '|', ')', '>']).map_or(line.len(), |length| at + length);
            let url = line[at..end].trim_end_matches('/').trim_end_matches(".git").to_owned();
            // Host, owner, name: nothing else is a repository.
            let ["https:", "", _, _, name] = url.split('/').collect::<Vec<_>>()[..] else { continue };
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if name.chars().all(allowed) && !name.starts_with('.') {
                let (name, place) = (name.to_owned(), file.place(start + at, start + end));
                found.entry(url.clone()).or_insert(Upstream { url, name, place });
            }
        }
    }
    found.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::repo::tests::repo;

    #[test]
    fn cards_name_upstreams() {
        let text = "
//- docs/reference/services/a.md
| **Upstream** | https://github.com/redis/redis |
| **Upstream** | [it](https://github.com/redis/redis.git) |
| **Upstream** | https://example.com/ |
| **Upstream** | none |
//- docs/other.md
| **Upstream** | https://github.com/x/y |
";
        let found = all(&repo(text));
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].name.as_str(), found[0].place.to_string().as_str()),
            ("redis", "docs/reference/services/a.md:1:18")
        );
    }
}
