//! Findings for other programs: SARIF, JUnit, and the annotations of a workflow run.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::checks;
use crate::model::digest::Digest;
use crate::model::finding::Finding;
use crate::model::source::Place;

/// SARIF 2.1.0 of a command, with what each of its rules is for and a fingerprint that survives moved lines.
pub(crate) fn sarif(command: &str, rules: impl Iterator<Item = &'static str>, findings: &[Finding]) -> String {
    let mut codes: Vec<&str> = findings.iter().map(|finding| finding.code).collect();
    codes.extend(rules);
    codes.sort_unstable();
    codes.dedup();
    let rules: Vec<Value> = codes.iter().map(|code| rule(code)).collect();
    let mut seen = BTreeMap::<String, usize>::new();
    let result = |finding: &Finding| {
        let index = codes.binary_search(&finding.code).unwrap_or_default();
        let path = finding.place.as_ref().map_or("", |place| &place.source.path);
        let same = seen.entry(format!("{}\0{path}\0{}", finding.code, finding.message)).or_default();
        *same += 1;
        let identity = format!("{}\0{path}\0{}\0{same}", finding.code, finding.message);
        result(finding, index, &Digest::of(identity.as_bytes()))
    };
    let results: Vec<Value> = findings.iter().map(result).collect();
    let run = json!({
        "tool": {"driver": {
            "name": command, "semanticVersion": env!("CARGO_PKG_VERSION"), "rules": rules,
        }},
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {"ROOT": {"description": {"text": "the root of the checkout"}}},
        "results": results,
    });
    json!({"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}).to_string()
}

fn rule(code: &str) -> Value {
    let Some((about, why)) = checks::meaning(code) else { return json!({"id": code}) };
    let help = format!("{why} `cargo xtask explain {code}` shows what breaks it and how to waive it.");
    json!({
        "id": code, "shortDescription": {"text": about}, "fullDescription": {"text": why},
        "help": {"text": help.replace('`', ""), "markdown": help}, "defaultConfiguration": {"level": "error"},
    })
}

fn result(finding: &Finding, rule: usize, fingerprint: &Digest) -> Value {
    let location = |place: &Place| {
        let (line, column) = place.line_column();
        let mut region = json!({"startLine": line, "startColumn": column});
        if let Some(width) = place.source.text[place.start..place.end].lines().next().map(|text| text.chars().count()) {
            region["endColumn"] = json!(column + width);
        }
        json!({"physicalLocation": {
            "artifactLocation": {"uri": uri(&place.source.path), "uriBaseId": "ROOT"}, "region": region,
        }})
    };
    let mut value = json!({
        "ruleId": finding.code, "ruleIndex": rule, "level": "error", "message": {"text": text(finding)},
        "partialFingerprints": {"finding/v1": &fingerprint.as_str()["sha256:".len()..]},
    });
    if let Some(place) = &finding.place {
        value["locations"] = json!([location(place)]);
    }
    if let Some((place, what)) = finding.other.as_deref() {
        let mut other = location(place);
        other["message"] = json!({"text": what});
        value["relatedLocations"] = json!([other]);
    }
    value
}

/// A path as a relative URI.
fn uri(path: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/+@".contains(&byte);
    path.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn text(finding: &Finding) -> String {
    match &finding.help {
        Some(help) => format!("{}; {help}", finding.message),
        None => finding.message.clone(),
    }
}

/// JUnit as Jenkins reads it: a test case to a finding, or one that passed.
pub(crate) fn junit(findings: &[Finding], rules: usize) -> String {
    let mut cases = String::new();
    for finding in findings {
        let place = finding.place.as_ref().map_or_else(String::new, ToString::to_string);
        let (code, body, place) = (xml(finding.code), xml(&text(finding)), xml(&place));
        cases += &format!(
            "    <testcase classname=\"{code}\" name=\"{place}\"><failure type=\"{code}\" message=\"{body}\">{place}: {body}</failure></testcase>\n",
        );
    }
    if findings.is_empty() {
        cases = format!("    <testcase classname=\"check\" name=\"{rules} rules\"/>\n");
    }
    let (tests, failures) = (findings.len().max(1), findings.len());
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites tests=\"{tests}\" failures=\"{failures}\">\n  <testsuite name=\"cargo xtask check\" tests=\"{tests}\" failures=\"{failures}\" errors=\"0\">\n{cases}  </testsuite>\n</testsuites>\n"
    )
}

/// Text inside XML.
pub(crate) fn xml(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    // These two are no characters of XML at all.
    text.chars().filter(|c| (!c.is_control() || *c == '\n') && !matches!(c, '\u{fffe}' | '\u{ffff}')).collect()
}

/// How many findings a summary shows; a page of them is read by nobody.
const SHOWN: usize = 50;

/// Markdown of a command, for the summary of a workflow run or a comment.
pub(crate) fn summary(command: &str, findings: &[Finding], (counts, not_checked): (&str, &[String])) -> String {
    let cell = |text: &str| text.replace('|', "\\|").replace(['\r', '\n'], " ");
    let mark = if findings.is_empty() { "✓" } else { "✗" };
    let mut summary = format!("### {mark} {command}\n\n{counts}\n");
    if !findings.is_empty() {
        summary += "\n| rule | place | finding |\n| --- | --- | --- |\n";
    }
    for finding in findings.iter().take(SHOWN) {
        let place = finding.place.as_ref().map_or_else(String::new, |place| format!("`{place}`"));
        summary += &format!("| {} | {} | {} |\n", finding.code, cell(&place), cell(&text(finding)));
    }
    if findings.len() > SHOWN {
        summary += &format!("\n{} more are in the log.\n", findings.len() - SHOWN);
    }
    if !not_checked.is_empty() {
        summary += "\nNot checked:\n\n";
        summary.extend(not_checked.iter().map(|what| format!("- {what}\n")));
    }
    summary + "\n"
}

/// `::error file=…` lines, which GitHub and Forgejo show at the place.
pub(crate) fn github(findings: &[Finding]) -> String {
    let escape = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let line = |finding: &Finding| {
        let place = finding.place.as_ref().map_or_else(String::new, |place| {
            let (line, column) = place.line_column();
            let path = escape(&place.source.path).replace(',', "%2C").replace(':', "%3A");
            format!("file={path},line={line},col={column},")
        });
        format!("::error {place}title={}::{}\n", finding.code, escape(&text(finding)))
    };
    findings.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::source::Source;

    #[test]
    fn every_format_escapes_what_it_must() {
        let source = Source::new("a,b:c.yaml", "x: 1\n");
        let finding =
            Finding::error("rule-a", "100% <\"x\">\nand more").at(source.find("1")).also(source.find("x"), "there");
        let all = [finding];
        assert_eq!(github(&all), "::error file=a%2Cb%3Ac.yaml,line=1,col=4,title=rule-a::100%25 <\"x\">%0Aand more\n");
        assert!(junit(&all, 1).contains("100% &lt;&quot;x&quot;&gt;\nand more"));
        let value: Value = serde_json::from_str(&sarif("cargo xtask check", std::iter::empty(), &all)).unwrap();
        assert_eq!(value["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["region"]["startColumn"], 4);
        assert!(junit(&[], 3).contains("failures=\"0\""));
        assert!(
            summary("cargo xtask check", &all, ("1 files", &["x".to_owned()]))
                .contains("| rule-a | `a,b:c.yaml:1:4` | 100% <\"x\"> and more |")
        );
    }

    fn findings() -> Vec<Finding> {
        let source = Source::new("docs/a page é.md", "é: 1\nb: 2\n");
        vec![
            Finding::error("service-port", "one").at(source.find("1")).also(source.find("b"), "there").help("do"),
            Finding::error("service-port", "one").at(source.find("2")),
            Finding::environment("tool-missing", "no \u{1b}[31m kustomize"),
            Finding::error("doc-link", "at the end").at(source.place(10, 10)),
        ]
    }

    #[test]
    fn a_fingerprint_survives_moved_lines_and_tells_twins_apart() {
        let prints = |findings: &[Finding]| {
            let value: Value = serde_json::from_str(&sarif("cargo xtask check", std::iter::empty(), findings)).unwrap();
            let results = value["runs"][0]["results"].as_array().unwrap().clone();
            results.iter().map(|result| result["partialFingerprints"]["finding/v1"].to_string()).collect::<Vec<_>>()
        };
        let (first, moved) = (findings(), Source::new("docs/a page é.md", "\n\né: 1\nb: 2\n"));
        let mut second = findings();
        second[0].place = Some(moved.find("1"));
        assert_eq!(prints(&first), prints(&second));
        assert_ne!(prints(&first)[0], prints(&first)[1]);
        let value: Value = serde_json::from_str(&sarif("cargo xtask check", std::iter::empty(), &first)).unwrap();
        let run = &value["runs"][0];
        let index = run["results"][0]["ruleIndex"].as_u64().unwrap();
        assert_eq!(run["tool"]["driver"]["rules"][usize::try_from(index).unwrap()]["id"], "service-port");
        let artifact = &run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"];
        assert_eq!(artifact["uri"], "docs/a%20page%20%C3%A9.md");
    }
}
