//! Which Applications in which order, and what each of them needs: pure.

use crate::tools::argocd::State;

/// Where a service is to be deployed from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// From wherever ArgoCD follows it now.
    AsItIs,
    Revision(String),
}

/// Why an Application is part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It brings the Applications themselves.
    Parent,
    /// The service logs in to a database of it.
    Database,
    Service,
}

/// One Application, as it is asked for and as it stands.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) role: Role,
    /// Nothing where ArgoCD has no such Application.
    pub(super) state: Option<State>,
    /// What it is made of differs between the branch and main.
    pub(super) differs: bool,
}

/// What is done to one Application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) set: Option<String>,
    pub(super) sync: bool,
}

/// The steps, in order. `main` is where everything is followed that nobody asked to have elsewhere.
pub(super) fn plan(parts: &[Part], goal: &Goal, main: &str) -> Vec<Step> {
    let is_new = parts.iter().any(|part| part.role == Role::Service && part.state.is_none());
    let mut parent_syncs = false;
    let mut steps = Vec::new();
    for part in parts {
        let current = part.state.as_ref().and_then(|state| state.revision.as_deref());
        let wanted = match (goal, part.role) {
            (Goal::AsItIs, _) => None,
            (Goal::Revision(revision), Role::Service) => Some(revision.as_str()),
            // A branch that does not touch it leaves it where it is.
            (Goal::Revision(revision), _) => (revision == main || part.differs).then_some(revision.as_str()),
        };
        // Syncing the parent puts its children back to what git says.
        let is_reset = parent_syncs && part.role != Role::Parent;
        let set = wanted.filter(|wanted| current != Some(wanted) || (is_reset && *wanted != main)).map(str::to_owned);
        let settled = part.state.as_ref().is_some_and(State::is_settled);
        let step = match part.role {
            // Without need it is not synced: that would take other Applications off their branches.
            Role::Parent => {
                let sync = set.is_some() || is_new || part.differs;
                parent_syncs = sync && (set.is_some() || is_new || !settled);
                Step { name: part.name.clone(), set, sync: parent_syncs }
            }
            _ => Step { name: part.name.clone(), sync: set.is_some() || !settled || is_reset, set },
        };
        if step.sync {
            steps.push(step);
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, role: Role, state: Option<(&str, &str, &str)>) -> Part {
        let state = state.map(|(revision, sync, health)| State {
            name: name.to_owned(),
            revision: Some(revision.to_owned()),
            sync: sync.to_owned(),
            health: health.to_owned(),
            ..State::default()
        });
        Part { name: name.to_owned(), role, state, differs: false }
    }

    fn shown(parts: &[Part], goal: &str) -> String {
        let goal = if goal.is_empty() { Goal::AsItIs } else { Goal::Revision(goal.to_owned()) };
        let steps = plan(parts, &goal, "main");
        let line = |step: &Step| {
            format!("{}{}", step.name, step.set.as_ref().map(|set| format!("@{set}")).unwrap_or_default())
        };
        steps.iter().map(line).collect::<Vec<_>>().join(" ")
    }

    const GOOD: Option<(&str, &str, &str)> = Some(("main", "Synced", "Healthy"));

    #[test]
    fn what_is_settled_is_left_alone() {
        let parts =
            [part("apps", Role::Parent, GOOD), part("pg", Role::Database, GOOD), part("web", Role::Service, GOOD)];
        assert_eq!((shown(&parts, ""), shown(&parts, "main")), (String::new(), String::new()));
        assert_eq!(shown(&parts, "topic"), "web@topic");
    }

    #[test]
    fn a_new_service_comes_after_its_parent_and_its_database() {
        let mut parts =
            [part("apps", Role::Parent, GOOD), part("pg", Role::Database, GOOD), part("web", Role::Service, None)];
        assert_eq!(shown(&parts, ""), "apps pg web");
        (parts[0].differs, parts[1].differs) = (true, true);
        assert_eq!(shown(&parts, "topic"), "apps@topic pg@topic web@topic");
    }

    #[test]
    fn back_to_main_everything_goes() {
        let topic = Some(("topic", "Synced", "Healthy"));
        let parts =
            [part("apps", Role::Parent, topic), part("pg", Role::Database, topic), part("web", Role::Service, topic)];
        assert_eq!(shown(&parts, "main"), "apps@main pg@main web@main");
        let sick =
            [part("apps", Role::Parent, GOOD), part("web", Role::Service, Some(("topic", "OutOfSync", "Degraded")))];
        assert_eq!(shown(&sick, ""), "web");
    }
}
