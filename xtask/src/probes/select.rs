//! Which checks somebody means.

use std::collections::BTreeSet;

use super::Check;
use crate::model::suggest::nearest;

/// The checks that `names` select; all where there are none.
///
/// # Errors
/// A name that selects nothing.
pub(crate) fn select(checks: Vec<Check>, names: &[String]) -> Result<Vec<Check>, String> {
    let is_meant = |check: &Check, name: &String| check.name == *name || check.tags.contains(name);
    for name in names {
        if !checks.iter().any(|check| is_meant(check, name)) {
            let known: BTreeSet<&str> = checks.iter().flat_map(|check| &check.tags).map(String::as_str).collect();
            let near = nearest(name, known);
            let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            return Err(format!("no check is about {name}{hint}"));
        }
    }
    let wanted = |check: &Check| names.is_empty() || names.iter().any(|name| is_meant(check, name));
    Ok(checks.into_iter().filter(wanted).collect())
}
