//! A deployment as phases and steps: what each promises, how it stands, what it waits for, and who does it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The phases, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Analysis,
    Prerequisites,
    Containers,
    Manifests,
    Networking,
    Monitoring,
    Documentation,
    /// What the service replaces goes: a decision of its own, which no other phase waits for.
    Afterwards,
}

impl Phase {
    pub(crate) const ALL: [Self; 8] = [
        Self::Analysis,
        Self::Prerequisites,
        Self::Containers,
        Self::Manifests,
        Self::Networking,
        Self::Monitoring,
        Self::Documentation,
        Self::Afterwards,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Analysis => "Chart analysis",
            Self::Prerequisites => "Prerequisites",
            Self::Containers => "Containers",
            Self::Manifests => "Manifests",
            Self::Networking => "Networking",
            Self::Monitoring => "Monitoring",
            Self::Documentation => "Documentation",
            Self::Afterwards => "Afterwards",
        }
    }

    pub(crate) fn number(self) -> usize {
        Self::ALL.iter().position(|phase| *phase == self).unwrap_or_default()
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number(), self.title())
    }
}

impl FromStr for Phase {
    type Err = String;

    /// Its number, or its title in any case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_meant = |phase: &Self| phase.number().to_string() == text || phase.title().eq_ignore_ascii_case(text);
        let names = || Self::ALL.map(|phase| phase.to_string().to_lowercase()).join(", ");
        Self::ALL.into_iter().find(is_meant).ok_or_else(|| format!("expected a phase: {}", names()))
    }
}

/// How a step stands, as reality says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// What it promises is true; the evidence.
    Done(String),
    /// It is not; what was seen instead.
    ToDo(String),
    /// It is not, and these steps come first.
    Blocked(String, Vec<String>),
    /// Nobody could say; why.
    Unknown(String),
}

impl State {
    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }

    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::ToDo(_) => "to do",
            Self::Blocked(..) => "blocked",
            Self::Unknown(_) => "cannot tell",
        }
    }

    /// The evidence, or why not.
    pub(crate) fn seen(&self) -> &str {
        match self {
            Self::Done(seen) | Self::ToDo(seen) | Self::Blocked(seen, _) | Self::Unknown(seen) => seen,
        }
    }

    /// All of several things: one that is not so outweighs one that is not known.
    pub(crate) fn all(states: &[Self]) -> Self {
        let join = |pick: &dyn Fn(&Self) -> bool| {
            let seen: Vec<&str> = states.iter().filter(|state| pick(state)).map(Self::seen).collect();
            (!seen.is_empty()).then(|| seen.join("; "))
        };
        if let Some(seen) = join(&|state| matches!(state, Self::ToDo(_) | Self::Blocked(..))) {
            return Self::ToDo(seen);
        }
        if let Some(seen) = join(&|state| matches!(state, Self::Unknown(_))) {
            return Self::Unknown(seen);
        }
        join(&|_| true).map_or_else(|| Self::ToDo("there is nothing yet that could be asked".to_owned()), Self::Done)
    }
}

/// One file before and after; one that is not there yet is empty before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) path: String,
    pub(crate) before: String,
    pub(crate) after: String,
}

/// What would do a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// A command of ours that changes nothing that runs: the checkout, a tag, an image.
    Run(Vec<String>),
    /// A command of ours that changes what runs: somebody has to accept that.
    Accept(Vec<String>),
    /// A change to a file that needs no judgement.
    Change(Change),
    /// What only a person does.
    Person(String),
}

impl How {
    pub(crate) fn who(&self) -> &'static str {
        match self {
            Self::Run(_) | Self::Change(_) => "apply",
            Self::Accept(_) => "apply, once accepted",
            Self::Person(_) => "you",
        }
    }
}

/// A step with what reality says of it.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Unique in its plan, and the same from run to run.
    pub(crate) id: String,
    pub(crate) phase: Phase,
    /// What is true once it is done.
    pub(crate) promise: String,
    /// The steps that come first.
    pub(crate) needs: Vec<String>,
    pub(crate) how: How,
    pub(crate) state: State,
}

/// What is to do and waits for another that is not done is blocked by that.
pub(crate) fn block(steps: &mut [Step]) {
    let open = |state: &State| matches!(state, State::ToDo(_) | State::Blocked(..));
    let known: BTreeMap<String, bool> = steps.iter().map(|step| (step.id.clone(), open(&step.state))).collect();
    for step in steps {
        let by: Vec<String> = step.needs.iter().filter(|need| known.get(*need) == Some(&true)).cloned().collect();
        if let (State::ToDo(seen), false) = (&step.state, by.is_empty()) {
            step.state = State::Blocked(seen.clone(), by);
        }
    }
}

/// A phase is done when every step of it is; else the worst that is known of it.
pub(crate) fn of_phase<'a>(steps: impl Iterator<Item = &'a Step>) -> &'static str {
    let words: Vec<&'static str> = steps.map(|step| step.state.word()).collect();
    let has = |word: &str| words.contains(&word);
    match () {
        () if has("to do") => "to do",
        () if has("blocked") => "blocked",
        () if has("cannot tell") => "cannot tell",
        () => "done",
    }
}

/// Is everything done that the plan promises? What comes afterwards is not part of that.
pub(crate) fn is_done(steps: &[Step]) -> bool {
    let mut own = steps.iter().filter(|step| step.phase != Phase::Afterwards).peekable();
    own.peek().is_some() && own.all(|step| step.state.is_done())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(id: &str, needs: &[&str], state: State) -> Step {
        let needs = needs.iter().map(|need| (*need).to_owned()).collect();
        let how = How::Person(String::new());
        Step { id: id.to_owned(), phase: Phase::Containers, promise: String::new(), needs, how, state }
    }

    #[test]
    fn what_waits_is_blocked_and_what_is_done_stays_done() {
        let to_do = || State::ToDo("no".to_owned());
        let done = || State::Done("yes".to_owned());
        let mut steps = [
            step("a", &[], to_do()),
            step("b", &["a"], to_do()),
            step("c", &["b"], to_do()),
            step("d", &["a"], done()),
            step("e", &["d", "f"], to_do()),
            step("f", &[], State::Unknown("why".to_owned())),
        ];
        block(&mut steps);
        let words: Vec<&str> = steps.iter().map(|step| step.state.word()).collect();
        assert_eq!(words, ["to do", "blocked", "blocked", "done", "to do", "cannot tell"]);
        assert_eq!(steps[2].state, State::Blocked("no".to_owned(), vec!["b".to_owned()]));
        assert_eq!(of_phase(steps.iter()), "to do");
        assert!(!is_done(&steps) && is_done(&steps[3..4]) && !is_done(&[]));
    }

    #[test]
    fn one_that_is_not_so_outweighs_one_that_is_not_known() {
        let [done, to_do, unknown] = [State::Done("a".into()), State::ToDo("b".into()), State::Unknown("c".into())];
        assert_eq!(State::all(&[done.clone(), unknown.clone(), to_do]), State::ToDo("b".into()));
        assert_eq!(State::all(&[done.clone(), unknown]), State::Unknown("c".into()));
        assert_eq!(State::all(&[done.clone(), done]), State::Done("a; a".into()));
        assert!(matches!(State::all(&[]), State::ToDo(_)));
    }

    #[test]
    fn a_phase_is_named_by_number_or_title() {
        assert_eq!("3".parse(), Ok(Phase::Manifests));
        assert_eq!("networking".parse(), Ok(Phase::Networking));
        assert!("9".parse::<Phase>().unwrap_err().contains("0 chart analysis"));
    }
}
