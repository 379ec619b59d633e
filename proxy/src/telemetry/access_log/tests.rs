use super::*;
use crate::model::access_log::{Compare, JsonFormat, LogFilter};
use crate::model::format::Template;
use crate::telemetry::format::LogKind;

fn sinks(registry: &Registry) -> Sinks {
    Sinks::new(registry, Arc::new(remote::testing::Plain)).0
}

#[test]
fn lines_pass_their_filter_and_reach_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let sinks = sinks(&Registry::new());
    let json = JsonFormat::Object(vec![
        ("code".into(), JsonFormat::Text(Template::parse("%RESPONSE_CODE%").unwrap())),
        ("route".into(), JsonFormat::Text(Template::parse("%ROUTE_NAME%").unwrap())),
        ("mixed".into(), JsonFormat::Text(Template::parse("c=%RESPONSE_CODE%").unwrap())),
    ]);
    let logger = Logger::new(
        &[AccessLog {
            filter: Some(LogFilter::Status(Compare::AtLeast, 500)),
            output: LogOutput::Lines(LogSink::File(path.clone()), LogFormat::Json(json)),
        }],
        &sinks,
    );
    for status in [200, 503] {
        logger.log(&Record { status: Some(status), ..Record::default() });
    }
    sinks.flush();
    let written = std::fs::read_to_string(&path).unwrap();
    assert_eq!(written, "{\"code\":503,\"mixed\":\"c=503\",\"route\":null}\n");
    std::fs::rename(&path, dir.path().join("old")).unwrap();
    sinks.reopen();
    logger.log(&Record { status: Some(500), ..Record::default() });
    sinks.flush();
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
}

#[test]
fn what_cannot_be_written_is_lost_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("no-folder").join("access.log");
    let registry = Registry::new();
    let sinks = sinks(&registry);
    let format = LogFormat::Text(Template::parse("%RESPONSE_CODE%\n").unwrap());
    let output = LogOutput::Lines(LogSink::File(path.clone()), format);
    let log = AccessLog { filter: None, output };
    let logger = Logger::new(&[log], &sinks);
    logger.log(&Record { status: Some(200), ..Record::default() });
    sinks.flush();
    assert_eq!((sinks.written.get(), sinks.dropped.get()), (0, 1));
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    sinks.reopen();
    logger.log(&Record { status: Some(200), ..Record::default() });
    sinks.flush();
    assert_eq!((sinks.written.get(), sinks.dropped.get()), (1, 1));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "200\n");
}

fn text(template: &str) -> JsonFormat {
    JsonFormat::Text(Template::parse(template).unwrap().omitting())
}

#[test]
fn what_has_no_value_is_left_out_of_json_if_wanted() {
    let tree = JsonFormat::Object(vec![
        ("gone".into(), text("%ROUTE_NAME%")),
        ("mixed".into(), text("<%ROUTE_NAME%>")),
        ("flags".into(), text("%RESPONSE_FLAGS%")),
        ("count".into(), JsonFormat::Number(3.0)),
        ("share".into(), JsonFormat::Number(0.5)),
        ("inner".into(), JsonFormat::Object(vec![("gone".into(), text("%ROUTE_NAME%"))])),
    ]);
    let want = r#"{"count":3,"flags":"-","mixed":"<>","share":0.5}"#;
    let got = json::json(&tree, &Record::default()).unwrap().to_string();
    assert_eq!(got, want);
}

#[test]
fn filters_by_grpc_status_and_by_moment() {
    let status = |exclude| LogFilter::GrpcStatus { codes: vec![14], exclude };
    let unavailable = Record { status: Some(503), ..Record::default() };
    assert!(filter::passes(&status(false), &unavailable));
    assert!(!filter::passes(&status(true), &unavailable));
    let start = LogFilter::Kind { kinds: vec!["DownstreamStart".into()], exclude: false };
    assert!(!filter::passes(&start, &unavailable));
    let record = Record { kind: LogKind::DownstreamStart, ..unavailable };
    assert!(filter::passes(&start, &record));
}
