//! The graph of one Application as a list with arcs: as narrow as a phone, and red where something is broken.

use std::collections::{BTreeMap, BTreeSet};

use super::page::Spot;
use crate::model::graph::{Graph, Layer};

/// The margin that the arcs are in.
const MARGIN: usize = 58;
/// From one line to the next.
const ROW: usize = 34;
/// So many characters fit.
const WIDEST: usize = 40;

/// One Application as lines, from what is built to the name that people type, and arcs between them.
#[derive(Clone, Debug)]
pub(crate) struct Drawing {
    pub(crate) name: String,
    pub(crate) height: usize,
    pub(crate) heads: Vec<(usize, &'static str)>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) edges: Vec<Edge>,
}

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) y: usize,
    pub(crate) label: String,
    pub(crate) is_bad: bool,
    /// Something names it, and it is not there.
    pub(crate) is_missing: bool,
}

/// One arc.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) path: String,
    pub(crate) is_bad: bool,
}

/// What is broken of a graph.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Broken {
    nodes: BTreeSet<String>,
    edges: BTreeSet<(String, String)>,
}

impl Drawing {
    /// Draws `graph`, of which `spots` have failed.
    pub(crate) fn new<'a>(name: &str, graph: &Graph, spots: impl Iterator<Item = &'a Spot>) -> Self {
        let broken = Broken::of(name, graph, spots);
        let (mut heads, mut nodes, mut y) = (Vec::new(), Vec::<Node>::new(), 0);
        for layer in Layer::ALL {
            let known = graph.nodes.iter().filter(|(own, _)| *own == layer).map(|(_, label)| (label, false));
            let missing = missing(graph).into_iter().filter(|(own, _)| *own == layer).map(|(_, label)| (label, true));
            for (at, (label, is_missing)) in known.chain(missing).enumerate() {
                if at == 0 {
                    heads.push((y + 22, layer.title()));
                    y += ROW;
                }
                let is_bad = is_missing || broken.nodes.contains(label);
                nodes.push(Node { y, label: label.clone(), is_bad, is_missing });
                y += ROW;
            }
        }
        let rows: BTreeMap<&str, usize> = nodes.iter().map(|node| (node.label.as_str(), node.y)).collect();
        let edge = |edge: &(String, String)| {
            let (from, to) = (rows.get(edge.0.as_str())?, rows.get(edge.1.as_str())?);
            let is_bad = broken.edges.contains(edge);
            Some(Edge { from: edge.0.clone(), to: edge.1.clone(), path: arc(*from + 14, *to + 14, y), is_bad })
        };
        let mut edges: Vec<Edge> = graph.edges.keys().filter_map(edge).collect();
        // What is broken is drawn last, above the others.
        edges.sort_by_key(|edge| edge.is_bad);
        Self { name: name.to_owned(), height: y + 4, heads, nodes, edges }
    }

    pub(crate) fn is_bad(&self) -> bool {
        self.nodes.iter().any(|node| node.is_bad) || self.bad_edges().next().is_some()
    }

    pub(crate) fn bad_edges(&self) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(|edge| edge.is_bad)
    }

    /// Every text through `clean`.
    pub(crate) fn clean(&mut self, clean: impl Fn(&str) -> String) {
        let edges = self.edges.iter_mut().flat_map(|edge| [&mut edge.from, &mut edge.to]);
        let nodes = self.nodes.iter_mut().map(|node| &mut node.label);
        for text in edges.chain(nodes).chain([&mut self.name]) {
            *text = clean(text);
        }
    }
}

impl Node {
    /// The label as far as it fits; the end of a name tells more than its middle.
    pub(crate) fn short(&self) -> String {
        let count = self.label.chars().count();
        if count <= WIDEST {
            return self.label.clone();
        }
        let (start, end) = (WIDEST / 3, WIDEST - WIDEST / 3 - 1);
        let head: String = self.label.chars().take(start).collect();
        let tail: String = self.label.chars().skip(count - end).collect();
        format!("{head}…{tail}")
    }
}

/// From one line to another, the further the wider, with a tip at its end.
fn arc(from: usize, to: usize, height: usize) -> String {
    let reach = 16 + from.abs_diff(to) * (MARGIN - 6) / height.max(1);
    let x = MARGIN.saturating_sub(reach * 4 / 3);
    format!("M{MARGIN} {from}C{x} {from} {x} {to} {} {to}m-5 -4l5 4l-5 4", MARGIN - 1)
}

/// What edges name and no node is, in the layer it would be in.
fn missing(graph: &Graph) -> BTreeSet<(Layer, &String)> {
    let is_known = |label: &String| graph.nodes.iter().any(|(_, node)| node == label);
    let ends = graph.edges.keys().flat_map(|(from, to)| [from, to]).filter(|label| !is_known(label));
    ends.map(|label| (if label.starts_with("Service ") { Layer::Service } else { Layer::Workload }, label)).collect()
}

impl Broken {
    fn of<'a>(app: &str, graph: &Graph, spots: impl Iterator<Item = &'a Spot>) -> Self {
        let mut broken = Self::default();
        for spot in spots {
            match spot {
                Spot::Line { path, line } => {
                    let edges = graph.edges_at(path, *line);
                    if edges.is_empty() {
                        broken.nodes.extend(graph.nodes_at(path, *line).into_iter().map(str::to_owned));
                    }
                    broken.edges.extend(edges.into_iter().cloned());
                }
                Spot::Named(name) => {
                    let nodes = graph.nodes.iter().map(|(_, label)| label).filter(|label| is_about(name, label));
                    nodes.for_each(|label| broken.with_what_follows(graph, label));
                }
                Spot::Point { service, number, seen } if service == app => broken.point(graph, *number, seen),
                Spot::Point { .. } => {}
            }
        }
        // What leads to something that is not there.
        let gone = missing(graph);
        let leads = |edge: &&(String, String)| gone.iter().any(|(_, label)| **label == edge.0 || **label == edge.1);
        broken.edges.extend(graph.edges.keys().filter(leads).cloned());
        broken
    }

    /// A thing that is ill, and its way to what needs it.
    fn with_what_follows(&mut self, graph: &Graph, label: &str) {
        self.nodes.insert(label.to_owned());
        self.edges.extend(graph.edges.keys().filter(|(from, _)| from == label).cloned());
    }

    /// The part of the way that a point of a verification stands for.
    fn point(&mut self, graph: &Graph, number: u64, seen: &str) {
        let layer = |label: &str| graph.nodes.iter().find(|(_, node)| node == label).map(|(layer, _)| *layer);
        let into = |wanted: Layer| graph.edges.keys().filter(move |(_, to)| layer(to) == Some(wanted));
        match number {
            1 => self.edges.extend(into(Layer::Image).filter(|(from, _)| from.starts_with("containers/")).cloned()),
            2 => self.edges.extend(graph.edges.keys().filter(|(from, _)| from.starts_with("Database ")).cloned()),
            3 => {
                let all: Vec<&String> =
                    graph.nodes.iter().filter(|(layer, _)| *layer == Layer::Workload).map(|(_, label)| label).collect();
                let is_named = |label: &&&String| label.rsplit(' ').next().is_some_and(|name| has_word(seen, name));
                let named: Vec<&String> = all.iter().filter(is_named).copied().collect();
                let ill = if named.is_empty() { all } else { named };
                for label in ill {
                    self.with_what_follows(graph, label);
                }
            }
            4 => self.edges.extend(into(Layer::Ingress).cloned()),
            5 | 6 => self.edges.extend(into(Layer::Host).cloned()),
            _ => {}
        }
    }
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !(c.is_alphanumeric() || c == '-' || c == '.')).any(|part| part == word)
}

/// Is the check of this name about this node?
fn is_about(check: &str, label: &str) -> bool {
    let parts: Vec<&str> = check.split('/').collect();
    match (parts.as_slice(), label.split_once(' ')) {
        ([_, _, kind, name], Some((own, rest))) => own.eq_ignore_ascii_case(kind) && rest == *name,
        (["caddy" | "tailnet", host], None) => label.split('.').next() == Some(*host),
        _ => false,
    }
}

/// The drawings of all, those with something broken first.
pub(crate) fn sorted(mut drawings: Vec<Drawing>) -> Vec<Drawing> {
    drawings.retain(|drawing| !drawing.nodes.is_empty());
    drawings.sort_by_key(|drawing| !drawing.is_bad());
    drawings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph() -> Graph {
        let mut graph = Graph::default();
        let nodes = [
            (Layer::Source, "containers/web"),
            (Layer::Image, "r/web"),
            (Layer::Image, "Database web"),
            (Layer::Workload, "Deployment web"),
            (Layer::Workload, "Deployment redis"),
            (Layer::Service, "Service web"),
            (Layer::Ingress, "Ingress web"),
            (Layer::Host, "web.example"),
        ];
        graph.nodes.extend(nodes.map(|(layer, label)| (layer, label.to_owned())));
        let edges = [
            ("containers/web", "r/web"),
            ("r/web", "Deployment web"),
            ("Database web", "Deployment web"),
            ("Deployment web", "Service web"),
            ("Service web", "Ingress web"),
            ("Ingress web", "web.example"),
        ];
        graph.edges.extend(edges.map(|(from, to)| ((from.to_owned(), to.to_owned()), Vec::new())));
        graph
    }

    fn red(spots: &[Spot]) -> Vec<String> {
        let drawing = Drawing::new("web", &graph(), spots.iter());
        drawing.bad_edges().map(|edge| format!("{} > {}", edge.from, edge.to)).collect()
    }

    #[test]
    fn a_point_is_its_part_of_the_way() {
        let point = |number, seen: &str| red(&[Spot::Point { service: "web".into(), number, seen: seen.into() }]);
        assert_eq!(point(1, ""), ["containers/web > r/web"]);
        assert_eq!(point(2, ""), ["Database web > Deployment web"]);
        assert_eq!(point(3, "web: 0 of 1"), ["Deployment web > Service web"]);
        assert_eq!(point(3, "redis: 0 of 1"), [""; 0]);
        assert_eq!(point(4, ""), ["Service web > Ingress web"]);
        assert_eq!(point(5, ""), ["Ingress web > web.example"]);
        assert_eq!(point(8, ""), [""; 0]);
        assert_eq!(red(&[Spot::Point { service: "other".into(), number: 4, seen: String::new() }]), [""; 0]);
    }

    #[test]
    fn a_check_is_about_its_object_and_what_needs_it() {
        assert_eq!(red(&[Spot::Named("ringtail/web/deployment/web".into())]), ["Deployment web > Service web"]);
        assert_eq!(red(&[Spot::Named("ringtail/web/statefulset/web".into())]), [""; 0]);
        let drawing = Drawing::new("web", &graph(), [Spot::Named("caddy/web".into())].iter());
        assert!(drawing.is_bad() && drawing.nodes.last().unwrap().is_bad);
    }

    #[test]
    fn what_is_not_there_is_drawn_and_the_way_to_it_is_red() {
        let mut graph = graph();
        graph.edges.insert(("Service gone".into(), "Ingress web".into()), Vec::new());
        let drawing = Drawing::new("web", &graph, std::iter::empty());
        assert!(drawing.nodes.iter().any(|node| node.is_missing && node.label == "Service gone"));
        assert_eq!(drawing.bad_edges().count(), 1);
    }

    #[test]
    fn a_long_label_keeps_both_ends() {
        let label = "registry.ops.eblu.me/blumeops/a-very-long-name-of-an-image".to_owned();
        let short = Node { y: 0, label, is_bad: false, is_missing: false }.short();
        assert_eq!((short.chars().count(), short.as_str()), (40, "registry.ops.…very-long-name-of-an-image"));
    }
}
