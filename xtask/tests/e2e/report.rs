//! The page of a report, in a real browser.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::checks::with_kustomize;
use crate::health::Health;
use crate::stage::{Done, Stage};

/// Pictures of the pages are left here, to be looked at.
fn pictures() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("report")
}

/// Slips on edges of Authentik's graph: a port, a name, a key.
fn broken() -> Stage {
    let stage = Stage::of_this_repository();
    for (file, before, after) in [
        ("service-redis.yaml", "targetPort: redis", "targetPort: reddis"),
        ("ingress-tailscale.yaml", "name: authentik\n      port:", "name: authentic\n      port:"),
    ] {
        let path = format!("argocd/manifests/authentik/{file}");
        let text = stage.read(&path);
        assert!(text.contains(before), "{path} has no {before}:\n{text}");
        stage.write(&path, &text.replacen(before, after, 1));
    }
    stage.write("docs/how-to/a page.md", "no frontmatter, and [[nowhere]]\n");
    stage
}

fn services() -> Value {
    let check = |name: &str, place: &str, state: &str, seen: &str, log: &[&str]| {
        json!({"name": name, "where": place, "state": state, "expected": "all replicas ready", "seen": seen,
            "see": format!("kubectl --context=k3s-ringtail --namespace=authentik describe {name}"), "seconds": 0.21,
            "waived": (state == "waived").then_some("moves next week"), "log": log, "about": ["authentik"]})
    };
    let log = ["oom-kill: constraint=CONSTRAINT_MEMCG", "\u{1b}[31mworker exited with 137\u{1b}[0m"];
    let mut checks = vec![
        check("ringtail/authentik/deployment/authentik-worker", "ringtail", "failed", "0 of 1 ready", &log),
        check("caddy/forge", "web", "failed", "502 Bad Gateway", &[]),
        check("indri/databases/cluster/blumeops-pg", "indri", "waived", "degraded", &[]),
    ];
    checks.extend((0..40).map(|at| check(&format!("indri/apps/deployment/app-{at}"), "indri", "fine", "1 of 1", &[])));
    let count = checks.len();
    json!({"ok": false, "exit": 1, "result": {"checks": checks, "count": count, "failed": 2, "seconds": 3.4}})
}

fn page(stage: &Stage, code: i32, args: &[&str], name: &str) -> PathBuf {
    let path = stage.path(name);
    let all = [&["report", "--output", path.to_str().unwrap()], args].concat();
    let done = Done::from(with_kustomize(stage, &all).output().unwrap()).expect(code, &[]);
    assert!(done.stdout.contains(name), "{}", done.stdout);
    path
}

fn full(stage: &Stage) -> PathBuf {
    std::fs::write(stage.path("services.json"), services().to_string()).unwrap();
    let check = Done::from(with_kustomize(stage, &["check", "--format", "json"]).output().unwrap()).expect(1, &[]);
    std::fs::write(stage.path("check.json"), check.stdout).unwrap();
    let files = ["check.json", "services.json"].map(|name| stage.path(name).display().to_string());
    page(stage, 1, &[&files[0], &files[1]], "page.html")
}

/// How much lighter text is than what is behind it, by WCAG; the least of the page, and where.
const CONTRAST: &str = r"(() => {
  const channel = c => { c /= 255; return c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4 };
  const colour = text => text.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
  let least = [99, ''];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.tagName === 'title') continue;
    const style = getComputedStyle(element);
    let behind = null;
    if (element.closest('svg')) {
      const rect = element.parentElement.querySelector(':scope > rect');
      if (rect) behind = getComputedStyle(rect).fill;
    }
    for (let at = element; at && !behind; at = at.parentElement) {
      const own = getComputedStyle(at).backgroundColor;
      if (!/, 0\)$/.test(own)) behind = own;
    }
    const [a, b] = [light(colour(element.closest('svg') ? style.fill : style.color)), light(colour(behind))];
    const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (contrast < least[0]) least = [contrast, element.outerHTML.slice(0, 200)];
  }
  return least;
})()";

/// Everything that sticks out to the right, but in what scrolls by itself.
const OUTSIDE: &str = "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + .5 && !e.closest('.chips, pre')).map(e => e.outerHTML.slice(0, 200))";

const OPEN_ALL: &str = "document.querySelectorAll('details').forEach(d => d.open = true)";

const SHOWN: &str = "[...document.querySelectorAll('.item')].filter(e => e.checkVisibility()).map(e => e.className)";

#[test]
fn a_phone_at_night_shows_it_all() {
    let stage = broken();
    let file = full(&stage);
    let mut browser = Browser::new();
    for (width, is_dark) in [(360, true), (360, false), (320, true), (1280, true), (1280, false)] {
        browser.screen(width, is_dark);
        browser.open(&file);
        browser.picture(&pictures().join(format!("{width}-{}.png", if is_dark { "dark" } else { "light" })));
        browser.value("document.getElementById('s-all').click()");
        browser.value(OPEN_ALL);
        assert_eq!(browser.value("innerWidth"), width);
        assert_eq!(browser.value("document.documentElement.scrollWidth"), width);
        assert_eq!(browser.value(OUTSIDE), json!([]), "{width}");
        let least = browser.value(CONTRAST);
        assert!(least[0].as_f64().unwrap() >= 4.5, "{width} {is_dark}: {least}");
        let ground = browser.value("getComputedStyle(document.body).backgroundColor");
        let ground: Vec<u32> =
            ground.as_str().unwrap().split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
        assert!(ground.iter().all(|channel| if is_dark { *channel < 32 } else { *channel > 223 }), "{ground:?}");
        browser.picture(&pictures().join(format!("{width}-{}-all.png", if is_dark { "dark" } else { "light" })));
        assert_eq!(browser.trouble(), [""; 0]);
    }
    // What a thumb has to hit is large enough.
    browser.screen(360, true);
    browser.open(&file);
    let small = "[...document.querySelectorAll('label, summary')].filter(e => e.checkVisibility() && e.getBoundingClientRect().height < 40).length";
    assert_eq!(browser.value(small), 0);
}

#[test]
fn the_filters_hide_what_is_not_asked_for() {
    let stage = broken();
    let file = full(&stage);
    let mut browser = Browser::new();
    browser.screen(360, true);
    browser.open(&file);
    let all = browser.value("document.querySelectorAll('.item').length").as_u64().unwrap();
    let shown = |browser: &mut Browser| -> Vec<String> { serde_json::from_value(browser.value(SHOWN)).unwrap() };
    // What has failed comes first.
    let failed = shown(&mut browser);
    assert!(failed.len() > 3 && failed.iter().all(|class| class.contains(" failed ")), "{failed:?}");
    browser.value("document.querySelector('label[for=s-all]').click()");
    assert_eq!(shown(&mut browser).len() as u64, all);
    browser.value("document.querySelector('label[for=s-waived]').click()");
    assert_eq!(shown(&mut browser).len(), 1);
    // The one that is waived is not on ringtail.
    let ringtail = "[...document.querySelectorAll('label')].find(e => e.textContent.startsWith('ringtail'))";
    browser.value(&format!("{ringtail}.click()"));
    assert_eq!(shown(&mut browser), [""; 0]);
    assert_eq!(browser.value("document.querySelector('.nothing').checkVisibility()"), true);
    // By keyboard: the link to the results, the states, the layers.
    browser.open(&file);
    for _ in 0..2 {
        browser.press("Tab", 9);
    }
    assert_eq!(browser.value("document.activeElement.id"), "s-failed");
    let ring = "getComputedStyle(document.querySelector('#s-failed + label')).outlineStyle";
    assert_eq!(browser.value(ring), "solid");
    browser.press("ArrowLeft", 37);
    assert_eq!(shown(&mut browser).len() as u64, all);
    assert_eq!(browser.value("document.querySelector('.nothing').checkVisibility()"), false);
    // The page says who it is to those who hear it.
    let unnamed = "[...document.querySelectorAll('input')].filter(e => !e.labels[0]?.textContent.trim()).length + [...document.querySelectorAll('fieldset')].filter(e => !e.querySelector('legend')).length + [...document.querySelectorAll('svg')].filter(e => !document.getElementById(e.getAttribute('aria-labelledby'))).length";
    assert_eq!(browser.value(unnamed), 0);
    let headings = browser.value("[...document.querySelectorAll('h1, h2, h3')].map(e => +e.tagName[1])");
    let headings: Vec<i64> = serde_json::from_value(headings).unwrap();
    assert_eq!(headings.iter().filter(|level| **level == 1).count(), 1);
    assert!(headings.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{headings:?}");
    // On paper there is no filter bar, and nothing is folded.
    browser.media("print", true);
    assert_eq!(browser.value("document.querySelector('nav').checkVisibility()"), false);
    let folded = "[...document.querySelectorAll('.item .more')].filter(e => e.closest('.item').checkVisibility() && e.getBoundingClientRect().height < 10).length";
    assert_eq!(browser.value(folded), 0);
    assert_eq!(browser.value("getComputedStyle(document.body).backgroundColor"), "rgb(255, 255, 255)");
    assert_eq!(browser.trouble(), [""; 0]);
}

#[test]
fn what_is_broken_is_red_in_the_graph() {
    let stage = broken();
    let file = full(&stage);
    let mut browser = Browser::new();
    browser.screen(360, true);
    browser.open(&file);
    let edges = "[...document.querySelectorAll('.edge.bad')].map(e => [e.querySelector('title').textContent, getComputedStyle(e).stroke, getComputedStyle(e).strokeWidth])";
    let edges: Vec<(String, String, String)> = serde_json::from_value(browser.value(edges)).unwrap();
    let titles: Vec<&str> = edges.iter().map(|(title, ..)| title.as_str()).collect();
    let wanted = [
        "Deployment authentik-worker → Service authentik-worker",
        "Deployment redis → Service redis",
        "Service authentic → Ingress authentik-tailscale",
    ];
    assert_eq!(titles, wanted);
    assert!(edges.iter().all(|(_, stroke, width)| stroke == "rgb(255, 138, 128)" && width == "3px"), "{edges:?}");
    let nodes = "[...document.querySelectorAll('.node.bad title')].map(e => e.textContent)";
    assert_eq!(browser.value(nodes), json!(["Deployment authentik-worker", "Service authentic"]));
    let first =
        browser.value("document.querySelector('.graph').open + document.querySelector('.graph h3').textContent");
    assert_eq!(first, "trueauthentik");
    let others = "[...document.querySelectorAll('.edge:not(.bad)')].some(e => getComputedStyle(e).stroke === 'rgb(255, 138, 128)')";
    assert_eq!(browser.value(others), false);
}

#[test]
fn a_repository_full_of_html_changes_nothing() {
    let stage = broken();
    for (at, evil) in
        ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\" onfocus=alert(1) autofocus x=\""]
            .iter()
            .enumerate()
    {
        stage.write(&format!("docs/how-to/<b onclick=alert({at})>'\"\u{202e}.md"), &format!("[[{evil}]]\n"));
        let app = stage.read("argocd/apps/dex.yaml").replace("name: dex", &format!("name: {}", json!(evil)));
        stage.write(&format!("argocd/apps/evil-{at}.yaml"), &app);
    }
    let file = page(&stage, 1, &[], "evil.html");
    let mut browser = Browser::new();
    browser.screen(360, true);
    browser.open(&file);
    browser.value(OPEN_ALL);
    browser.value("document.getElementById('s-all').click()");
    assert_eq!(browser.value("document.querySelectorAll('script, img, b[onclick], [onfocus], [autofocus]').length"), 0);
    assert_eq!(browser.value("document.documentElement.scrollWidth"), 360);
    assert!(browser.value("document.body.textContent").as_str().unwrap().contains("<img src=x onerror=alert(1)>"));
    assert_eq!(browser.trouble(), [""; 0]);
}

#[test]
fn what_commands_print_is_what_a_page_is_made_of() {
    let health = Health::new();
    health.answer("deployments.apps", "{\"items\": []}");
    let run = |args: &[&str], code| Done::from(health.command(args).output().unwrap()).expect(code, &[]).stdout;
    let services = run(&["services-check", "--format", "json"], 1);
    let verification = run(&["verify", "one", "--format", "json"], 1);
    let check = Done::from(health.command(&["check", "--format", "json"]).output().unwrap()).stdout;
    // A watch prints one after another; the last counts.
    let mut report = health.command(&["report", "-", "--format", "json", "--output", "page.html"]);
    let mut child = report.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let all = [&services, &verification, &check, &services].map(|text| text.trim_end()).join("\n");
    child.stdin.take().unwrap().write_all(all.as_bytes()).unwrap();
    let done = Done::from(child.wait_with_output().unwrap()).expect(1, &[]);
    let value: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(value["result"]["sections"], json!(["Verification of one", "The repository", "Services"]));
    assert!(health.stage.read("page.html").contains("ringtail/one/deployment/web"));
    let now = run(&["report", "--services", "--verify", "one", "--format", "json"], 1);
    let now: Value = serde_json::from_str(&now).unwrap();
    assert_eq!(now["result"]["sections"], json!(["The repository", "Verification of one", "Services"]));

    let stage = Stage::of_this_repository();
    let rehearsal = stage.run(&["rehearse", "redis", "--without-cluster", "--format", "json"]).expect(0, &[]).stdout;
    std::fs::write(stage.path("rehearsal.json"), rehearsal).unwrap();
    let html =
        std::fs::read_to_string(page(&stage, 0, &[stage.path("rehearsal.json").to_str().unwrap()], "rehearsal.html"));
    assert!(html.unwrap().contains("blumeops/redis:v1.0.0-nix"));
}

#[test]
fn what_is_no_document_is_told_and_nothing_is_written() {
    let stage = Stage::of_this_repository();
    for (text, words) in [
        ("", "it is empty"),
        ("{", "it is not JSON"),
        ("{\"ok\": true, \"exit\": 0, \"result\": {\"nodes\": []}}", "a document of none of check"),
        ("{\"ok\": true, \"exit\": 0, \"result\": {\"findings\": [], \"rules\": 1}}", "missing field `files`"),
        ("[1]", "it is not a document of --format json"),
    ] {
        std::fs::write(stage.path("bad.json"), text).unwrap();
        let arguments = ["report", "../bad.json", "--output", "page.html"];
        let done = with_kustomize(&stage, &arguments).output().unwrap();
        Done::from(done).expect(2, &[words, "no page was written"]);
        assert!(!stage.clone_folder().join("page.html").exists());
    }
    with_kustomize(&stage, &["report", "nowhere.json"]).output().map(Done::from).unwrap().expect(2, &["nowhere.json"]);
}
