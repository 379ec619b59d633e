//! The picture of who calls whom: a tree, from left to right, with a dot that moves where traffic flows.

use std::ops::RangeInclusive;

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::monitor::ServiceView;

/// The shaft of an arrow, as long as the width allows.
const SHAFTS: RangeInclusive<usize> = 3..=12;

/// Draws the calls that start at `root`, `width` columns wide if that can be; `frame` moves the dots.
pub(crate) fn draw(
    root: &str,
    calls: &[(&str, &str)],
    services: &[ServiceView],
    frame: usize,
    width: u16,
) -> Vec<Line<'static>> {
    let draw = |shaft| -> Vec<Line<'static>> {
        let picture = Picture { calls, services, frame, shaft };
        picture.block(root, 0).rows.into_iter().map(Line::from).collect()
    };
    let fits = |lines: &Vec<Line<'_>>| lines.iter().all(|line| line.width() <= width.into());
    SHAFTS.rev().map(draw).find(fits).unwrap_or_else(|| draw(*SHAFTS.start()))
}

struct Picture<'a> {
    calls: &'a [(&'a str, &'a str)],
    services: &'a [ServiceView],
    frame: usize,
    shaft: usize,
}

/// A node with everything to its right.
struct Block {
    rows: Vec<Vec<Span<'static>>>,
    /// The row where the node itself stands, and where the arrow to it ends.
    anchor: usize,
}

impl Picture<'_> {
    /// `depth` bounds the drawing, should the calls go in a circle.
    fn block(&self, name: &str, depth: usize) -> Block {
        let label = self.label(name);
        let children: Vec<&str> =
            self.calls.iter().filter(|(from, _)| *from == name).map(|(_, to)| *to).collect();
        if children.is_empty() || depth > 8 {
            return Block { rows: vec![label], anchor: 0 };
        }
        let (mut right, mut anchors) = (Vec::new(), Vec::new());
        let shared = children.iter().any(|child| self.share(child).is_some());
        for child in &children {
            let block = self.block(child, depth + 1);
            anchors.push(right.len() + block.anchor);
            let arrow = self.arrow(child, shared);
            for (index, row) in block.rows.into_iter().enumerate() {
                let mut spans = if index == block.anchor { arrow.clone() } else { blank(&arrow) };
                spans.extend(row);
                right.push(spans);
            }
        }
        let anchor = usize::midpoint(anchors[0], anchors[anchors.len() - 1]);
        let rows = right.into_iter().enumerate().map(|(index, spans)| {
            let mut row = if index == anchor { label.clone() } else { blank(&label) };
            row.push(Span::raw(joint(index, anchor, &anchors)));
            row.extend(spans);
            row
        });
        Block { rows: rows.collect(), anchor }
    }

    fn label(&self, name: &str) -> Vec<Span<'static>> {
        let service = self.service(name);
        let healthy = service.is_none_or(|service| service.ready == service.instances);
        let color = if healthy { Color::Cyan } else { Color::Yellow };
        let chip = Style::new().fg(Color::Black).bg(color).add_modifier(Modifier::BOLD);
        let mut label = vec![Span::raw(" "), Span::styled(format!(" {name} "), chip)];
        if let Some(service) = service.filter(|service| service.has_app) {
            label.push(Span::raw(format!(" {:.0}/s ", service.per_second)));
        } else {
            label.push(Span::raw(" "));
        }
        label
    }

    /// The arrow to a node, with its share where its service's traffic is split; `shared` when one of its siblings
    /// has such a share.
    fn arrow(&self, name: &str, shared: bool) -> Vec<Span<'static>> {
        let flows = self.service(name).is_some_and(|service| service.per_second > 0.0);
        let dot = flows.then_some(self.frame % self.shaft);
        let shaft = |at: usize| if Some(at) == dot { '●' } else { '─' };
        let shaft: String = (0..self.shaft).map(shaft).collect();
        let style = Style::new().fg(if flows { Color::Green } else { Color::DarkGray });
        let share = match self.share(name) {
            Some(share) => format!("{share:>3.0}% "),
            None if shared => "─────".to_owned(),
            None => String::new(),
        };
        vec![
            Span::styled("─", style),
            Span::styled(share, style.add_modifier(Modifier::BOLD)),
            Span::styled(format!("{shaft}▶"), style),
        ]
    }

    fn share(&self, name: &str) -> Option<f64> {
        let service = self.service(name)?;
        let siblings = self.services.iter().filter(|other| other.service == service.service);
        let (count, all) =
            siblings.fold((0, 0.0), |(count, all), other| (count + 1, all + other.per_second));
        (count > 1 && all > 0.0).then_some(service.per_second * 100.0 / all)
    }

    fn service(&self, name: &str) -> Option<&ServiceView> {
        self.services.iter().find(|service| service.name == name)
    }
}

/// What stands between a node and the arrows to its children, in row `index`.
fn joint(index: usize, anchor: usize, children: &[usize]) -> &'static str {
    let (first, last) = (children[0], children[children.len() - 1]);
    let here = index == anchor;
    match (here, children.contains(&index)) {
        (true, true) if first == last => "─",
        (true, true) if index == first => "┬",
        (true, true) if index == last => "┴",
        (true, true) => "┼",
        (true, false) => "┤",
        (false, true) if index == first => "┌",
        (false, true) if index == last => "└",
        (false, true) => "├",
        (false, false) if first < index && index < last => "│",
        (false, false) => " ",
    }
}

fn blank(spans: &[Span<'_>]) -> Vec<Span<'static>> {
    let width = spans.iter().map(Span::width).sum();
    vec![Span::raw(" ".repeat(width))]
}
