//! Paths as files write them: from their own folder, or by a page's name.

use super::source::{Place, Source};

/// Where `file` means `path`, which is one from the root, or something below it.
pub(crate) fn mentions(file: &Source, path: &str) -> Vec<Place> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let is_part = |c: char| c.is_alphanumeric() || "/.-_".contains(c);
    let mut places = Vec::new();
    for (at, _) in file.text.match_indices(name) {
        let start = file.text[..at]
            .rfind(|c| !is_part(c))
            .map_or(0, |before| before + file.text[before..].chars().next().map_or(1, char::len_utf8));
        let end = file.text[at..].find(|c| !is_part(c)).map_or(file.text.len(), |after| at + after);
        let written = file.text[start..end].trim_end_matches(['/', '.']);
        let meant = resolve(file.folder(), written);
        if meant
            .is_some_and(|meant| meant == path || meant.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')))
        {
            places.push(file.place(start, start + written.len()));
        }
    }
    if let Some(page) = name.strip_suffix(".md").filter(|_| file.path.ends_with(".md")) {
        let link = format!("[[{page}");
        let found = file.text.match_indices(&link).map(|(at, _)| (at, at + link.len()));
        let is_whole = |(_, end): &(usize, usize)| file.text[*end..].starts_with([']', '|', '#', '\\']);
        places.extend(found.filter(is_whole).map(|(start, end)| file.place(start + 2, end)));
    }
    places
}

/// `written` in `folder`, from the root; nothing where it leaves the repository.
fn resolve(folder: &str, written: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(written.split('/')).filter(|part| !matches!(*part, "" | ".")) {
        if part == ".." {
            parts.pop()?;
        } else {
            parts.push(part);
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str, thing: &str) -> Vec<String> {
        let file = Source::new(path, text);
        mentions(&file, thing).iter().map(|place| file.text[place.start..place.end].to_owned()).collect()
    }

    #[test]
    fn paths_are_meant_from_the_folder_they_are_written_in() {
        let list = "resources: [../base, ./base, ../base/a.yaml, basement, ../../base]\n";
        assert_eq!(found("m/web/kustomization.yaml", list, "m/base"), ["../base", "../base/a.yaml"]);
        assert_eq!(found("m/kustomization.yaml", "- web/service.yaml\n", "m/web/service.yaml"), ["web/service.yaml"]);
        assert_eq!(found("m/web/kustomization.yaml", "- é service.yaml", "m/web/service.yaml"), ["service.yaml"]);
        assert!(found("other/kustomization.yaml", "- service.yaml\n", "m/web/service.yaml").is_empty());
    }

    #[test]
    fn pages_are_meant_by_link_and_by_name() {
        let page = "See [it](../services/redis.md#a), [[redis]], [[redis|that]] and [[redis-old]].";
        assert_eq!(
            found("docs/how-to/a.md", page, "docs/services/redis.md"),
            ["../services/redis.md", "redis", "redis"]
        );
    }
}
