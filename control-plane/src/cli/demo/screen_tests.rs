use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;

fn service(name: &str, service: &str, per_second: f64) -> ServiceView {
    let has_app = name != "shopper";
    ServiceView {
        name: name.to_owned(),
        service: service.to_owned(),
        instances: if has_app { 2 } else { 1 },
        ready: if has_app { 2 } else { 1 },
        per_second,
        success_percent: has_app.then_some(100.0),
        mtls_percent: has_app.then_some(100.0),
        p50_ms: has_app.then_some(1.25),
        p99_ms: has_app.then_some(14.5),
        admin_ports: if has_app { vec![40001, 40002] } else { vec![40003] },
        has_app,
    }
}

fn view() -> View {
    View {
        elapsed: Duration::from_secs(83),
        goal: None,
        done: 8312,
        failed: 0,
        per_second: 100.2,
        success_percent: Some(100.0),
        p50_ms: Some(8.1),
        p99_ms: Some(21.4),
        mtls_percent: Some(100.0),
        history: (0..200).map(|second| 100 + second % 7).collect(),
        services: vec![
            service("web", "web", 100.2),
            service("catalog-v1", "catalog", 90.0),
            service("catalog-v2", "catalog", 10.0),
            service("reviews", "reviews", 100.1),
            service("cart", "cart", 100.0),
            service("pricing", "pricing", 100.0),
            service("shopper", "shopper", 0.0),
        ],
        control_plane: "127.0.0.1:15080".parse().unwrap(),
        control_plane_ready: true,
        mesh_dir: "/tmp/pillion-demo-x/mesh".into(),
        log_dir: "/tmp/pillion-demo-x/logs".into(),
        events: vec!["cart-1 ended: signal: 9 (SIGKILL); starting it again".to_owned()],
    }
}

fn drawn(width: u16, height: u16, view: &View, frame: usize) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|canvas| render(canvas, view, frame)).unwrap();
    let buffer = terminal.backend().buffer();
    let rows = buffer.content().chunks(usize::from(width));
    rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned())
        .collect()
}

#[test]
fn everything_that_was_promised_is_on_the_screen() {
    let rows = drawn(100, 32, &view(), 3);
    let text = rows.join("\n");
    for expected in [
        "Pillion demo  13 sidecars  8312 requests  01:23",
        "100.2 requests/s   100 % success   0 failed   p50 8.10 ms   p99 21.4 ms   100 % mTLS",
        " catalog-v1 2/2   90.0    100 %    1.25 ms  14.5 ms  100 %    40001 40002",
        "/tmp/pillion-demo-x/mesh",
        "http://127.0.0.1:15080   logs /tmp/pillion-demo-x/logs",
        "cart-1 ended: signal: 9 (SIGKILL); starting it again",
        "q  quit",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

#[test]
fn the_picture_shows_who_calls_whom_and_how_much() {
    let picture = |width, frame| -> Vec<String> {
        let rows = drawn(width, 32, &view(), frame);
        rows[6..10].iter().map(|row| row.trim_matches(['│', ' ']).to_owned()).collect()
    };
    let lines = [
        "┌─ 90% ──●▶  catalog-v1  90/s",
        "shopper  ────●▶  web  100/s ┼─ 10% ──●▶  catalog-v2  10/s",
        "├────────●▶  reviews  100/s",
        "└────────●▶  cart  100/s ────●▶  pricing  100/s",
    ];
    assert_eq!(picture(80, 2), lines);
    let wide = picture(140, 2);
    assert_eq!(wide[0], "┌─ 90% ──●─────────▶  catalog-v1  90/s");
    let later = picture(140, 3);
    assert_eq!(later[0], "┌─ 90% ───●────────▶  catalog-v1  90/s", "the dots move");
}

#[test]
fn what_does_not_flow_does_not_move() {
    let mut view = view();
    for service in &mut view.services {
        service.per_second = 0.0;
    }
    let text = drawn(100, 32, &view, 3).join("\n");
    assert!(!text.contains('●'), "{text}");
    assert!(!text.contains("90%"), "{text}");
}

#[test]
fn small_terminals_do_not_break_it() {
    for (width, height) in [(80, 24), (40, 10), (1, 1), (200, 5)] {
        let rows = drawn(width, height, &view(), 1);
        assert_eq!(rows.len(), usize::from(height));
    }
    let rows = drawn(80, 24, &view(), 1);
    assert!(rows.iter().any(|row| row.contains("/tmp/pillion-demo-x/mesh")), "{rows:#?}");
    assert!(rows[23].contains("q  quit"), "{rows:#?}");
}

#[test]
fn keys_mean_something() {
    let press = |code, modifiers| meaning(KeyEvent::new(code, modifiers));
    assert_eq!(press(KeyCode::Char('q'), KeyModifiers::NONE), Some(Key::Quit));
    assert_eq!(press(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::Quit));
    assert_eq!(press(KeyCode::Char('c'), KeyModifiers::NONE), None);
    assert_eq!(press(KeyCode::Char('k'), KeyModifiers::NONE), Some(Key::Kill));
    assert_eq!(press(KeyCode::Char('w'), KeyModifiers::NONE), Some(Key::Weights));
}
