//! The live picture in the terminal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Paragraph, Row, Sparkline, Table};
use ratatui::{DefaultTerminal, Frame};
use tokio::sync::mpsc;

use super::monitor::{ServiceView, View};
use super::summary::{millis, share};
use super::{shop, topology};

const KEY_POLL: Duration = Duration::from_millis(100);

/// What a person at the terminal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Quit,
    /// Kill an instance, to see that nobody notices.
    Kill,
    /// Go to the next split between the catalog's versions.
    Weights,
}

/// The terminal while it is ours; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Screen {
    terminal: DefaultTerminal,
    keys: mpsc::UnboundedReceiver<Key>,
    closed: Arc<AtomicBool>,
    frame: usize,
}

impl Screen {
    /// Takes the terminal, and gives it back on a panic too.
    ///
    /// # Errors
    /// When stdout is no terminal that can be drawn on.
    pub(crate) fn open() -> std::io::Result<Self> {
        let terminal = ratatui::try_init()?;
        let (found, keys) = mpsc::unbounded_channel();
        let closed = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&closed);
        let watch = move || watch_keys(&found, &until);
        // Dropped on an error, it gives the terminal back.
        let screen = Self { terminal, keys, closed, frame: 0 };
        std::thread::Builder::new().name("keys".to_owned()).spawn(watch)?;
        Ok(screen)
    }

    /// The next key that means something; never, when the terminal is gone.
    pub(crate) async fn key(&mut self) -> Key {
        match self.keys.recv().await {
            Some(key) => key,
            None => std::future::pending().await,
        }
    }

    /// Draws `view`.
    ///
    /// # Errors
    /// When the terminal does not take it.
    pub(crate) fn draw(&mut self, view: &View) -> std::io::Result<()> {
        self.frame += 1;
        let frame = self.frame;
        self.terminal.draw(|canvas| render(canvas, view, frame))?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        ratatui::restore();
    }
}

/// Draws everything; `count` moves what moves.
fn render(frame: &mut Frame<'_>, view: &View, count: usize) {
    let table = u16::try_from(view.services.len()).unwrap_or(u16::MAX).saturating_add(2);
    let width = frame.area().width.saturating_sub(2);
    let picture = topology::draw(shop::CLIENT, shop::CALLS, &view.services, count, width);
    let height = u16::try_from(picture.len()).unwrap_or(u16::MAX);
    let [head, front, calls, services, places, events, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(4),
        Constraint::Length(height.saturating_add(2)),
        Constraint::Length(table),
        Constraint::Length(2),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(headline(view), head);
    render_front(frame, view, front);
    frame.render_widget(Paragraph::new(picture).block(panel(" who calls whom ")), calls);
    render_services(frame, view, services);
    frame.render_widget(places_of(view), places);
    let newest = view.events.len().saturating_sub(usize::from(events.height));
    let lines = view.events[newest..].iter().map(|event| Line::raw(format!(" {event}")));
    let dim = Style::new().fg(Color::Yellow);
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()).style(dim), events);
    frame.render_widget(keys_line(), foot);
}

fn headline(view: &View) -> Line<'static> {
    let seconds = view.elapsed.as_secs();
    let sidecars: usize = view.services.iter().map(|service| service.instances).sum();
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let progress = match view.goal {
        Some(goal) => format!("{} of {goal} requests", view.done),
        None => format!("{} requests", view.done),
    };
    Line::from(vec![
        Span::styled(" Pillion demo", bold.fg(Color::Cyan)),
        Span::raw(format!("  {sidecars} sidecars  {progress}  ")),
        Span::raw(format!("{:02}:{:02}", seconds / 60, seconds % 60)),
    ])
}

fn render_front(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let block = panel(" front door ");
    let [numbers, chart] =
        Layout::vertical([Constraint::Length(1), Constraint::Length(1)]).areas(block.inner(area));
    frame.render_widget(block, area);
    let good = |good| Style::new().fg(if good { Color::Green } else { Color::Red });
    let encrypted = view.mtls_percent.is_some_and(|percent| percent >= 100.0);
    let line = Line::from(vec![
        Span::styled(
            format!(" {:.1} requests/s", view.per_second),
            Style::new().add_modifier(Modifier::BOLD),
        ),
        Span::styled(
            format!("   {} success   {} failed", share(view.success_percent), view.failed),
            good(view.failed == 0),
        ),
        Span::raw(format!("   p50 {}   p99 {}", millis(view.p50_ms), millis(view.p99_ms))),
        Span::styled(format!("   {} mTLS", share(view.mtls_percent)), good(encrypted)),
    ]);
    frame.render_widget(line, numbers);
    let newest = view.history.len().saturating_sub(usize::from(chart.width));
    let chart_style = Style::new().fg(Color::Green);
    frame.render_widget(
        Sparkline::default().data(&view.history[newest..]).style(chart_style),
        chart,
    );
}

fn render_services(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let names =
        ["service", "ready", "req/s", "success", "p50", "p99", "mTLS", "sidecars' admin ports"];
    let header = Row::new(names).style(Style::new().add_modifier(Modifier::BOLD | Modifier::DIM));
    let widths = [11, 5, 7, 8, 8, 8, 8].map(Constraint::Length);
    let widths = widths.into_iter().chain([Constraint::Min(11)]);
    let rows = view.services.iter().map(service_row);
    frame.render_widget(Table::new(rows, widths).header(header).column_spacing(1), area);
}

fn service_row(service: &ServiceView) -> Row<'static> {
    let ports: Vec<String> = service.admin_ports.iter().map(ToString::to_string).collect();
    let style = if service.ready < service.instances {
        Style::new().fg(Color::Yellow)
    } else {
        Style::new()
    };
    let inbound = |text: String| if service.has_app { text } else { "-".to_owned() };
    Row::new([
        format!(" {}", service.name),
        format!("{}/{}", service.ready, service.instances),
        inbound(format!("{:.1}", service.per_second)),
        share(service.success_percent),
        millis(service.p50_ms),
        millis(service.p99_ms),
        share(service.mtls_percent),
        ports.join(" "),
    ])
    .style(style)
}

fn places_of(view: &View) -> Paragraph<'static> {
    let dim = Style::new().add_modifier(Modifier::DIM);
    let state = if view.control_plane_ready { "" } else { " (being started again)" };
    Paragraph::new(vec![
        Line::from(vec![
            Span::styled(" mesh files     ", dim),
            Span::raw(view.mesh_dir.display().to_string()),
        ]),
        Line::from(vec![
            Span::styled(" control plane  ", dim),
            Span::raw(format!("http://{}{state}", view.control_plane)),
            Span::styled("   logs ", dim),
            Span::raw(view.log_dir.display().to_string()),
        ]),
    ])
}

fn keys_line() -> Line<'static> {
    let key = Style::new().fg(Color::Black).bg(Color::Gray);
    Line::from(vec![
        Span::raw(" "),
        Span::styled(" q ", key),
        Span::raw(" quit   "),
        Span::styled(" k ", key),
        Span::raw(" kill an instance   "),
        Span::styled(" w ", key),
        Span::raw(format!(" shift the weights in {}", shop::ROUTE_FILE)),
    ])
}

fn panel(title: &'static str) -> Block<'static> {
    Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(Style::new().fg(Color::DarkGray))
        .title(title)
}

/// Reads keys until the screen is closed. On a thread of its own: reading a terminal blocks.
fn watch_keys(found: &mpsc::UnboundedSender<Key>, closed: &AtomicBool) {
    while !closed.load(Ordering::Relaxed) {
        let key = match event::poll(KEY_POLL) {
            Ok(false) => continue,
            Ok(true) => event::read(),
            Err(error) => Err(error),
        };
        let key = match key {
            Ok(Event::Key(key)) => meaning(key),
            Ok(_) => None,
            // The terminal is gone; there will be no more keys.
            Err(_) => return,
        };
        if key.is_some_and(|key| found.send(key).is_err()) {
            return;
        }
    }
}

fn meaning(key: KeyEvent) -> Option<Key> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Key::Quit),
        KeyCode::Char('k') => Some(Key::Kill),
        KeyCode::Char('w') => Some(Key::Weights),
        _ => None,
    }
}

#[cfg(test)]
#[path = "screen_tests.rs"]
mod tests;
