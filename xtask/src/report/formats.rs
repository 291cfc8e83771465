//! Findings for other programs: SARIF, JUnit, and the annotations of a workflow run.

use serde_json::{Value, json};

use crate::model::finding::Finding;

/// SARIF 2.1.0.
pub(crate) fn sarif(findings: &[Finding]) -> String {
    let mut codes: Vec<&str> = findings.iter().map(|finding| finding.code).collect();
    codes.sort_unstable();
    codes.dedup();
    let rules: Vec<Value> = codes.iter().map(|code| json!({"id": code})).collect();
    let results: Vec<Value> = findings.iter().map(result).collect();
    let run = json!({
        "tool": {"driver": {"name": "cargo xtask check", "version": env!("CARGO_PKG_VERSION"), "rules": rules}},
        "results": results,
    });
    json!({"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}).to_string()
}

fn result(finding: &Finding) -> Value {
    let location = |place: &crate::model::source::Place| {
        let (line, column) = place.line_column();
        json!({"physicalLocation": {
            "artifactLocation": {"uri": &*place.source.path},
            "region": {"startLine": line, "startColumn": column},
        }})
    };
    let mut value = json!({"ruleId": finding.code, "level": "error", "message": {"text": text(finding)}});
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

fn text(finding: &Finding) -> String {
    match &finding.help {
        Some(help) => format!("{}; {help}", finding.message),
        None => finding.message.clone(),
    }
}

/// JUnit: a test case to a finding, or one that passed.
pub(crate) fn junit(findings: &[Finding], rules: usize) -> String {
    let mut cases = String::new();
    for finding in findings {
        let place = finding.place.as_ref().map_or_else(String::new, ToString::to_string);
        let body = xml(&text(finding));
        cases += &format!(
            "    <testcase classname=\"{}\" name=\"{}\"><failure message=\"{body}\">{}</failure></testcase>\n",
            xml(finding.code),
            xml(&place),
            xml(&place)
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

fn xml(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    text.chars().filter(|c| !c.is_control() || *c == '\n').collect()
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
        let value: Value = serde_json::from_str(&sarif(&all)).unwrap();
        assert_eq!(value["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["region"]["startColumn"], 4);
        assert!(junit(&[], 3).contains("failures=\"0\""));
    }
}
