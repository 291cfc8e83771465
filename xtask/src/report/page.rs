//! One HTML page that needs nothing else: no network, no script, readable on a phone at night.

use std::collections::BTreeMap;

use askama::Template;

use super::drawing::Drawing;
use crate::exec::redact::Redactor;

/// How a thing stands, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    Failed,
    /// Nobody knows: it could not be asked.
    Open,
    Waived,
    Fine,
}

impl State {
    pub(crate) const ALL: [Self; 4] = [Self::Failed, Self::Open, Self::Waived, Self::Fine];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Open => "not known",
            Self::Waived => "waived",
            Self::Fine => "fine",
        }
    }

    /// For style sheets.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Open => "open",
            Self::Waived => "waived",
            Self::Fine => "fine",
        }
    }

    fn mark(self) -> &'static str {
        match self {
            Self::Failed => "✗",
            Self::Open => "?",
            Self::Waived => "~",
            Self::Fine => "✓",
        }
    }
}

/// What a thing is about, for the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Spot {
    Line {
        path: String,
        line: usize,
    },
    /// A check's name: `cluster/namespace/kind/name`, or what Caddy or the tailnet serves.
    Named(String),
    /// A point of a verification, and what was seen.
    Point {
        service: String,
        number: u64,
        seen: String,
    },
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) state: State,
    pub(crate) layer: String,
    pub(crate) title: String,
    /// Where it is or what was seen, in a few words.
    pub(crate) place: String,
    /// Names and values, in their order.
    pub(crate) facts: Vec<(&'static str, String)>,
    /// A line of the repository, or the last lines of a log.
    pub(crate) lines: String,
    /// A command to paste.
    pub(crate) see: String,
    pub(crate) spots: Vec<Spot>,
}

/// What one document told.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) title: String,
    /// Where it came from, and when.
    pub(crate) source: String,
    /// What was examined.
    pub(crate) about: String,
    pub(crate) items: Vec<Item>,
    /// Did what it tells of fail?
    pub(crate) fails: bool,
}

impl Section {
    /// What the failures in it are about.
    pub(crate) fn red(&self) -> impl Iterator<Item = &Spot> {
        self.items.iter().filter(|item| item.state == State::Failed).flat_map(|item| &item.spots)
    }

    fn count(&self, state: State) -> usize {
        self.items.iter().filter(|item| item.state == state).count()
    }
}

/// The whole page.
pub(crate) struct Page {
    pub(crate) made: String,
    pub(crate) commit: String,
    pub(crate) sections: Vec<Section>,
    pub(crate) drawings: Vec<Drawing>,
}

/// Longer texts are cut: a page is for reading.
const LONGEST: usize = 4000;

/// So many failures are shown open.
const OPEN: usize = 3;

/// What the template is filled with.
#[derive(Template)]
#[template(path = "report.html")]
struct Html<'a> {
    page: &'a Page,
    /// Each with how many there are, and whether it is shown first.
    states: Vec<(State, usize, bool)>,
    layers: Vec<(&'a str, usize)>,
    /// Pairs of a state and the number of a layer that nothing is in.
    empty: Vec<(State, usize)>,
    worst: State,
    verdict: String,
    shows_all: bool,
    are_open: bool,
}

impl Html<'_> {
    /// The number of an item's layer.
    fn layer(&self, item: &Item) -> usize {
        self.layers.iter().position(|(layer, _)| *layer == item.layer).unwrap_or_default()
    }
}

impl Page {
    /// As HTML. Secrets are taken out, and no text can leave its place.
    ///
    /// # Errors
    /// The template can't be filled.
    pub(crate) fn html(mut self, redactor: &Redactor) -> Result<String, askama::Error> {
        for section in &mut self.sections {
            section.clean(redactor);
        }
        self.drawings.iter_mut().for_each(|drawing| drawing.clean(|text| visible(text, redactor)));
        self.commit = visible(&self.commit, redactor);
        let items = || self.sections.iter().flat_map(|section| &section.items);
        let count = |state: State| items().filter(|item| item.state == state).count();
        let mut layers = BTreeMap::<&str, usize>::new();
        items().for_each(|item| *layers.entry(&item.layer).or_default() += 1);
        let layers: Vec<(&str, usize)> = layers.into_iter().collect();
        let is_empty = |state: State, layer: &str| !items().any(|item| item.state == state && item.layer == layer);
        let pairs = State::ALL.into_iter().flat_map(|state| (0..layers.len()).map(move |layer| (state, layer)));
        let worst = self.worst();
        let first = (count(State::Failed) > 0).then_some(State::Failed);
        let html = Html {
            states: State::ALL.map(|state| (state, count(state), first == Some(state))).to_vec(),
            empty: pairs.filter(|(state, layer)| is_empty(*state, layers[*layer].0)).collect(),
            verdict: self.verdict(),
            shows_all: first.is_none(),
            are_open: count(State::Failed) <= OPEN,
            worst,
            layers,
            page: &self,
        };
        html.render()
    }

    /// Fine, or what is worst; a document that failed without an item counts.
    pub(crate) fn worst(&self) -> State {
        let fails = self.sections.iter().any(|section| section.fails);
        let failed = self.sections.iter().any(|section| section.count(State::Failed) > 0);
        match (failed, fails) {
            (true, _) => State::Failed,
            (false, true) => State::Open,
            (false, false) => State::Fine,
        }
    }

    /// The page in one line.
    pub(crate) fn verdict(&self) -> String {
        let count = |state: State| self.sections.iter().map(|section| section.count(state)).sum::<usize>();
        match (self.worst(), count(State::Failed)) {
            (State::Failed, failed) => format!("{failed} failed"),
            (State::Fine, _) => "all is well".to_owned(),
            _ => "not all is known".to_owned(),
        }
    }
}

impl Section {
    fn clean(&mut self, redactor: &Redactor) {
        self.items.sort_by_key(|item| item.state);
        for text in [&mut self.title, &mut self.source, &mut self.about] {
            *text = visible(text, redactor);
        }
        for item in &mut self.items {
            for text in [&mut item.layer, &mut item.title, &mut item.place, &mut item.lines, &mut item.see] {
                *text = visible(text, redactor);
            }
            for (_, text) in &mut item.facts {
                *text = visible(text, redactor);
            }
        }
    }
}

/// Text as it can be shown to somebody: without secrets, colours and invisible characters, and not without an end.
fn visible(text: &str, redactor: &Redactor) -> String {
    let text = anstream::adapter::strip_str(&redactor.clean(text)).to_string();
    let mut shown: String = text.chars().take(LONGEST).map(shown).collect();
    let more = text.chars().skip(LONGEST).count();
    if more > 0 {
        shown += &format!("… ({more} more characters)");
    }
    shown
}

/// What reorders or hides text around it is shown as a mark.
fn shown(character: char) -> char {
    match character {
        '\n' | '\t' => character,
        '\u{0}'..='\u{1f}' => char::from_u32(0x2400 + u32::from(character)).unwrap_or('�'),
        '\u{7f}'..='\u{9f}'
        | '\u{61c}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff0}'..='\u{fffb}' => '�',
        _ => character,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: [&str; 9] = [
        "</script><script>alert(1)</script>",
        "\"' onmouseover='alert(1)",
        "<img src=x onerror=alert(1)>",
        "</style><style>*{display:none}",
        "--> <!-- ]]> {{ 7 * 7 }} {% raw %}",
        "&lt;b&gt; &amp;",
        "\u{202e}gpj.exe\u{2066}\u{200b}\0\x1b[31mred",
        "مرحبا שלום",
        "</title></pre></summary></details></section></main>",
    ];

    fn item(text: &str) -> Item {
        Item {
            state: State::Failed,
            layer: text.to_owned(),
            title: text.to_owned(),
            place: text.to_owned(),
            facts: vec![("help", text.to_owned())],
            lines: text.to_owned(),
            see: text.to_owned(),
            spots: Vec::new(),
        }
    }

    fn page(items: Vec<Item>) -> Page {
        let section = Section {
            title: HOSTILE[0].to_owned(),
            source: HOSTILE[1].to_owned(),
            about: HOSTILE[2].to_owned(),
            items,
            fails: true,
        };
        Page { made: "now".into(), commit: HOSTILE[3].into(), sections: vec![section], drawings: Vec::new() }
    }

    /// What is left of a page when the texts are taken out: the same whatever they say.
    fn tags(html: &str) -> Vec<&str> {
        html.split('<').skip(1).map(|part| part.split(['>', ' ', '\n']).next().unwrap()).collect()
    }

    #[test]
    fn no_text_leaves_its_place() {
        let tame = page(vec![item("tame")]).html(&Redactor::default()).unwrap();
        for hostile in HOSTILE {
            let html = page(vec![item(hostile)]).html(&Redactor::default()).unwrap();
            assert_eq!(tags(&html), tags(&tame), "{hostile}");
            for raw in ["<script", "<img", " onmouseover='", "49", "\u{202e}", "\u{200b}", "\0", "\x1b"] {
                assert!(!html.contains(raw), "{hostile}: {raw:?}");
            }
        }
    }

    #[test]
    fn secrets_are_gone_before_they_are_escaped() {
        let redactor = Redactor::new(vec!["hun<&>ter2".into()]);
        let html = page(vec![item("the password hun<&>ter2")]).html(&redactor).unwrap();
        assert!(html.contains("the password [secret]") && !html.contains("ter2"));
    }

    #[test]
    fn a_huge_text_and_very_many_things_have_an_end() {
        let html = page(vec![item(&"x".repeat(1 << 20))]).html(&Redactor::default()).unwrap();
        assert!(html.len() < 60_000 && html.contains("(1044576 more characters)"), "{}", html.len());
        let many = (0..10_000).map(|number| item(&format!("thing {}", number % 20))).collect();
        let html = page(many).html(&Redactor::default()).unwrap();
        assert!(html.len() < 10 << 20, "{}", html.len());
    }

    #[test]
    fn the_verdict_is_the_worst_of_all() {
        let with = |state, fails| {
            let mut page = page(vec![Item { state, ..item("a") }]);
            page.sections[0].fails = fails;
            (page.worst(), page.verdict())
        };
        assert_eq!(with(State::Failed, true), (State::Failed, "1 failed".to_owned()));
        assert_eq!(with(State::Open, true), (State::Open, "not all is known".to_owned()));
        assert_eq!(with(State::Open, false), (State::Fine, "all is well".to_owned()));
    }
}
