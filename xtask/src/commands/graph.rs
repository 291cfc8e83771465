//! A service as a picture: Mermaid, SVG or JSON.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Context, check};
use crate::model::failure::Failure;
use crate::model::graph::{Graph, Layer};
use crate::model::world::App;
use crate::report::Outcome;

/// Draw what an Application is made of, from images to names
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  cargo xtask graph authentik\n  cargo xtask graph authentik --svg > authentik.svg\n  cargo xtask graph --format json"
)]
pub(crate) struct Args {
    /// Which Application; default: all
    pub(crate) service: Option<String>,
    /// SVG instead of Mermaid
    #[arg(long)]
    pub(crate) svg: bool,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    let world = check::world(cx)?;
    let wanted = |app: &&App| args.service.as_ref().is_none_or(|service| app.name == *service);
    let apps: Vec<&App> = world.apps.iter().filter(wanted).collect();
    if apps.is_empty() {
        let names: Vec<&str> = world.apps.iter().map(|app| app.name.as_str()).collect();
        let next =
            if names.is_empty() { "argocd/ holds none".to_owned() } else { format!("there are: {}", names.join(", ")) };
        return Err(Failure::refused("there is no such Application").next(next).into());
    }
    let graph = Graph::of(&world, &apps);
    let text = if args.svg { svg(&graph) } else { mermaid(&graph) };
    let nodes: Vec<Value> =
        graph.nodes.iter().map(|(layer, label)| json!({"layer": layer.title(), "label": label})).collect();
    let edges: Vec<Value> = graph.edges.keys().map(|(from, to)| json!({"from": from, "to": to})).collect();
    Ok(Outcome::ok(text, json!({"nodes": nodes, "edges": edges})))
}

fn mermaid(graph: &Graph) -> String {
    let ids: BTreeMap<&str, usize> =
        graph.nodes.iter().enumerate().map(|(id, (_, label))| (label.as_str(), id)).collect();
    let mut text = "graph LR\n".to_owned();
    for (_, label) in &graph.nodes {
        text += &format!("  n{}[\"{}\"]\n", ids[label.as_str()], label.replace('"', "'"));
    }
    for (from, to) in graph.edges.keys() {
        if let (Some(from), Some(to)) = (ids.get(from.as_str()), ids.get(to.as_str())) {
            text += &format!("  n{from} --> n{to}\n");
        }
    }
    text
}

const WIDTH: usize = 270;
const ROW: usize = 44;

/// Columns from left to right, one to a layer; both colour schemes.
fn svg(graph: &Graph) -> String {
    let mut places = BTreeMap::new();
    let mut most = 0;
    for (column, layer) in Layer::ALL.into_iter().enumerate() {
        let nodes = graph.nodes.iter().filter(|(own, _)| *own == layer);
        for (row, (_, label)) in nodes.enumerate() {
            places.insert(label.as_str(), (10 + column * (WIDTH + 50), 40 + row * ROW));
            most = most.max(row + 1);
        }
    }
    let (width, height) = (Layer::ALL.len() * (WIDTH + 50), 50 + most * ROW);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n<style>text {{ fill: #222 }} rect {{ fill: #eef3fb; stroke: #4a6fa5 }} path {{ fill: none; stroke: #888 }} @media (prefers-color-scheme: dark) {{ text {{ fill: #eee }} rect {{ fill: #22304a }} }}</style>\n"
    );
    for (column, layer) in Layer::ALL.into_iter().enumerate() {
        text += &format!(
            "<text x=\"{}\" y=\"20\" font-weight=\"bold\">{}</text>\n",
            10 + column * (WIDTH + 50),
            layer.title()
        );
    }
    for (from, to) in graph.edges.keys() {
        if let (Some((x, y)), Some((u, v))) = (places.get(from.as_str()), places.get(to.as_str())) {
            let (x, y, v) = (x + WIDTH, y + 15, v + 15);
            text += &format!("<path d=\"M{x} {y} C{} {y} {} {v} {u} {v}\"/>\n", x + 25, u.saturating_sub(25));
        }
    }
    for (label, (x, y)) in &places {
        let shown = label.replace('&', "&amp;").replace('<', "&lt;");
        text += &format!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"30\" rx=\"4\"/><text x=\"{}\" y=\"{}\">{shown}</text>\n",
            x + 8,
            y + 19
        );
    }
    text + "</svg>\n"
}
