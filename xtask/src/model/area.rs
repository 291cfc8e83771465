//! The parts of a checkout, from what is built to what is told.

/// Folders and what they hold; the first that fits counts.
const AREAS: [(&str, &str); 7] = [
    ("containers/", "image"),
    ("argocd/apps/", "application"),
    ("argocd/", "manifest"),
    ("ansible/", "provisioning"),
    (".forgejo/", "workflow"),
    ("xtask/", "configuration"),
    ("docs/", "documentation"),
];

/// Where the area of a file stands among all.
pub(crate) fn of(path: &str) -> usize {
    AREAS.iter().position(|(folder, _)| path.starts_with(folder)).unwrap_or(AREAS.len())
}

/// The name of an area by where it stands.
pub(crate) fn name(area: usize) -> &'static str {
    AREAS.get(area).map_or("other", |(_, name)| name)
}
