//! `check --fix`: shows what is repaired, and writes only files that are still what was read.

use anyhow::Result;
use serde_json::{Value, json};

use super::Context;
use crate::model::finding::Finding;
use crate::model::fix::Repair;
use crate::report::{Outcome, diff};

/// What would be written.
pub(super) fn shown(findings: &[Finding], repairs: &[Repair]) -> Outcome {
    let text = |repair: &Repair| diff(&repair.source.path, &repair.source.text, &repair.text);
    let values: Vec<Value> = repairs
        .iter()
        .map(|repair| json!({"path": &*repair.source.path, "fixes": repair.fixes, "diff": text(repair)}))
        .collect();
    let human = repairs.iter().map(text).collect();
    let value = json!({"repairs": values, "findings": findings.len()});
    Outcome { human, json: value, code: u8::from(!findings.is_empty()), other: None }
}

/// Makes the repairs; the paths of the files that were written.
pub(super) fn apply(cx: &Context, repairs: &[Repair]) -> Result<Vec<String>> {
    let mut written = Vec::new();
    for repair in repairs {
        let path = &*repair.source.path;
        Context::pause_point(&format!("{} of {} files are repaired", written.len(), repairs.len()))?;
        // A link is somebody's arrangement: replacing it would break it.
        let there = std::fs::read_to_string(cx.path(path)).ok().filter(|_| !cx.path(path).is_symlink());
        if there.as_deref() != Some(&*repair.source.text) {
            cx.report.say(&format!("left alone: {path} has changed since it was read"));
            continue;
        }
        cx.write(path, &repair.text)?;
        cx.report.say(diff(path, &repair.source.text, &repair.text).trim_end());
        written.push(path.to_owned());
    }
    if !written.is_empty() {
        let fixes: usize = repairs.iter().map(|repair| repair.fixes).sum();
        cx.report.say(&format!("{fixes} fixes in {} files; checked again:", written.len()));
    }
    Ok(written)
}
