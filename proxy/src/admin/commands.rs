//! The endpoints: one table that dispatch, help, home page and the answer to an unknown path share.

use std::fmt::Write as _;

use http::header::{HOST, HeaderMap, ORIGIN};
use http::{Method, StatusCode, Uri};
use regex::Regex;
use serde_json::json;
use tracing::level_filters::LevelFilter;

use super::answer::{Answer, Params};
use super::source::{DrainListeners, ServerState, Source};
use super::{clusters, dump, memory, metrics};

struct Command {
    path: &'static str,
    /// Whether it changes anything: needs POST.
    mutates: bool,
    help: &'static str,
    run: fn(&dyn Source, &Params) -> Answer,
}

const COMMANDS: &[Command] = &[
    get("/", "this page", |_, _| home()),
    post("/allocprofiler", "not supported: the allocator keeps no profile", without),
    get("/certs", "certificates in use, without keys", |s, _| Answer::json(&s.certs())),
    get("/clusters", "clusters and their endpoints (format=json, filter=REGEX)", clusters_),
    get("/config_dump", "configuration (resource, mask, name_regex, include_eds)", |s, p| {
        dump::answer(s.config_dump(), p)
    }),
    get("/contention", "not supported: locks are not traced", without),
    post("/cpuprofiler", "not supported: use perf on the process", without),
    post("/deregister", "leave the mesh's endpoints and go on serving", |s, _| {
        s.deregister();
        Answer::ok()
    }),
    post("/drain_listeners", "drain listeners (graceful, inboundonly, skip_exit)", drain),
    post("/healthcheck/fail", "fail health checks from now on", |s, _| {
        s.fail_health_check(true);
        Answer::ok()
    }),
    post("/healthcheck/ok", "pass health checks again", |s, _| {
        s.fail_health_check(false);
        Answer::ok()
    }),
    get("/hot_restart_version", "version of Envoy's hot restart protocol: disabled", |_, _| {
        Answer::text("disabled")
    }),
    get("/heap_dump", "not supported: the allocator keeps no profile", without),
    post("/heapprofiler", "not supported: the allocator keeps no profile", without),
    get("/help", "this list", |_, _| Answer::text(help())),
    get("/init_dump", "what the proxy waits for before it is ready", init_dump),
    get("/listeners", "listeners and their addresses (format=json)", listeners),
    post(
        "/logging",
        "log levels by Envoy's names of loggers; set by level=LEVEL, LOGGER=LEVEL or paths=LOGGER:LEVEL,…",
        logging,
    ),
    get("/memory", "memory of the process", |_, _| memory::answer()),
    get("/memory/tcmalloc", "not supported: the allocator is another one", without),
    get("/peak_heap_dump", "not supported: the allocator keeps no profile", without),
    post("/quitquitquit", "exit", |s, _| {
        s.quit();
        Answer::ok()
    }),
    get("/ready", "200 LIVE when it takes traffic, 503 and what it waits for when not", ready),
    post("/reopen_logs", "open the files of access logs anew", |s, _| {
        s.reopen_logs();
        Answer::ok()
    }),
    post("/reset_counters", "set all counters to zero", metrics::reset),
    get("/runtime", "runtime values: there are none, defaults hold", |_, _| {
        Answer::json(&json!({"layers": [], "entries": {}}))
    }),
    post("/runtime_modify", "change runtime values: there are none", runtime_modify),
    get("/server_info", "version, state, uptime, node and options", server_info),
    get(
        "/stats",
        "metrics (format=text|json|prometheus, filter=REGEX, invert_filter, usedonly, type, histogram_buckets, hidden)",
        metrics::stats,
    ),
    get(
        "/stats/prometheus",
        "metrics for Prometheus (filter=REGEX, invert_filter, usedonly, type, histogram_buckets, text_readouts)",
        metrics::prometheus,
    ),
    get("/stats/recentlookups", "lookups of metrics by name: there are none", |_, _| {
        Answer::text(
            "Lookup tracking is not enabled: names are looked up when configuration is read, \
             never for a request.\n\ntotal: 0\n",
        )
    }),
    post("/stats/recentlookups/clear", "not supported", without),
    post("/stats/recentlookups/disable", "not supported", without),
    post("/stats/recentlookups/enable", "not supported", without),
];

/// The answer to a request.
pub(super) fn answer(
    source: &dyn Source,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Answer {
    let Some(command) = COMMANDS.iter().find(|command| command.path == uri.path()) else {
        let body = format!("invalid path. {}", help());
        return Answer::text(body).with_status(StatusCode::NOT_FOUND);
    };
    let allowed = *method == Method::POST
        || (!command.mutates && (*method == Method::GET || *method == Method::HEAD));
    if !allowed {
        let need = if command.mutates { "POST" } else { "GET" };
        let body = format!("Method {method} not allowed, {need} required.");
        return Answer::text(body).with_status(StatusCode::METHOD_NOT_ALLOWED);
    }
    if command.mutates && is_from_another_site(headers) {
        let body = "Forbidden: the request comes from a page of another site\n";
        return Answer::text(body).with_status(StatusCode::FORBIDDEN);
    }
    (command.run)(source, &Params::parse(uri.query()))
}

/// What Envoy has and this proxy does not.
fn without(_: &dyn Source, _: &Params) -> Answer {
    Answer::text("pillion-proxy does not have this; see /help\n")
        .with_status(StatusCode::NOT_IMPLEMENTED)
}

/// `envoy.admin.v3.UnreadyTargetsDumps`
fn init_dump(source: &dyn Source, _: &Params) -> Answer {
    let waiting_for = source.readiness().waiting_for;
    if waiting_for.is_empty() {
        return Answer::json(&json!({}));
    }
    let targets = json!({"name": "server", "target_names": waiting_for});
    Answer::json(&json!({"unready_targets_dumps": [targets]}))
}

fn runtime_modify(_: &dyn Source, params: &Params) -> Answer {
    if params.iter().next().is_none() {
        let usage = "usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN\n       or send the parameters as form values\n\
                     use an empty value to remove a previously added override";
        return Answer::bad_request(usage);
    }
    Answer::text("No admin layer specified").with_status(StatusCode::SERVICE_UNAVAILABLE)
}

const fn get(
    path: &'static str,
    help: &'static str,
    run: fn(&dyn Source, &Params) -> Answer,
) -> Command {
    Command { path, mutates: false, help, run }
}

const fn post(
    path: &'static str,
    help: &'static str,
    run: fn(&dyn Source, &Params) -> Answer,
) -> Command {
    Command { path, mutates: true, help, run }
}

/// A web page may make a browser post to loopback; browsers say so by `Origin`.
fn is_from_another_site(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    authority.map(|(_, authority)| authority) != host || host.is_none()
}

fn help() -> String {
    COMMANDS.iter().fold(String::from("admin commands are:\n"), |mut out, command| {
        // Writing to a String cannot fail.
        let post = if command.mutates { " (POST)" } else { "" };
        let _ = writeln!(out, "  {}{post}: {}", command.path, command.help);
        out
    })
}

fn home() -> Answer {
    let mut rows = String::new();
    for Command { path, mutates, help, .. } in COMMANDS {
        let link = if *mutates {
            format!("<form action=\"{path}\" method=\"post\"><button>{path}</button></form>")
        } else {
            format!("<a href=\"{path}\">{path}</a>")
        };
        let _ = writeln!(rows, "<tr><td>{link}</td><td>{help}</td></tr>");
    }
    let body = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <title>pillion-proxy admin</title></head>\n<body><h1>pillion-proxy admin</h1>\n\
         <table>\n{rows}</table></body></html>\n"
    );
    Answer { content_type: "text/html; charset=UTF-8", ..Answer::text(body) }
}

fn ready(source: &dyn Source, _: &Params) -> Answer {
    let readiness = source.readiness();
    let mut body = format!("{}\n", readiness.state.as_str());
    if readiness.state == ServerState::Live {
        return Answer::text(body);
    }
    for what in &readiness.waiting_for {
        let _ = writeln!(body, "{what}");
    }
    Answer::text(body).with_status(StatusCode::SERVICE_UNAVAILABLE)
}

fn clusters_(source: &dyn Source, params: &Params) -> Answer {
    let mut view = source.clusters();
    if let Some(filter) = params.get("filter") {
        match Regex::new(filter) {
            Ok(filter) => view.retain(|cluster| filter.is_match(&cluster.name)),
            Err(error) => {
                return Answer::bad_request(format!("Invalid regex in filter: {error}\n"));
            }
        }
    }
    formatted(params, || clusters::text(&view), || clusters::json(&view))
}

fn listeners(source: &dyn Source, params: &Params) -> Answer {
    let view = source.listeners();
    formatted(params, || clusters::listeners_text(&view), || clusters::listeners_json(&view))
}

fn formatted(
    params: &Params,
    text: impl FnOnce() -> String,
    json: impl FnOnce() -> serde_json::Value,
) -> Answer {
    match params.get("format").unwrap_or("text") {
        "text" => Answer::text(text()),
        "json" => Answer::json(&json()),
        other => Answer::bad_request(format!("unknown format {other:?}: expected text or json\n")),
    }
}

fn server_info(source: &dyn Source, _: &Params) -> Answer {
    let info = source.server_info();
    let uptime = format!("{}s", info.uptime.as_secs());
    Answer::json(&json!({
        "version": info.version,
        "state": info.state.as_str(),
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "hot_restart_version": "disabled",
        "hot_restart_initializing": false,
        "node": info.node,
        "command_line_options": info.command_line_options,
    }))
}

fn drain(source: &dyn Source, params: &Params) -> Answer {
    let what = DrainListeners {
        graceful: params.has("graceful"),
        inbound_only: params.has("inboundonly"),
        skip_exit: params.has("skip_exit"),
    };
    source.drain_listeners(what);
    Answer::ok()
}

fn logging(source: &dyn Source, params: &Params) -> Answer {
    let wanted = match log_levels(params) {
        Ok(wanted) => wanted,
        Err(why) => return Answer::bad_request(why),
    };
    for (logger, level) in wanted {
        if let Err(why) = source.set_log_level(logger, level) {
            return Answer::bad_request(format!("{why}\n"));
        }
    }
    let mut body = String::from("active loggers:\n");
    for (logger, level) in source.log_levels() {
        let _ = writeln!(body, "  {logger}: {}", level_name(level));
    }
    Answer::text(body)
}

/// Everything is read before anything is set, so that a mistake changes nothing.
fn log_levels(params: &Params) -> Result<Vec<(Option<&str>, LevelFilter)>, String> {
    let mut wanted = Vec::new();
    for (key, value) in params.iter() {
        match key {
            // Asked for nothing: the levels are told.
            "level" if value.is_empty() => {}
            "level" => wanted.push((None, level(value)?)),
            "paths" => {
                for pair in value.split(',').filter(|pair| !pair.is_empty()) {
                    let (logger, name) = pair.rsplit_once(':').ok_or_else(|| {
                        format!("paths: expected LOGGER:LEVEL,… but got {pair:?}\n")
                    })?;
                    wanted.push((Some(logger), level(name)?));
                }
            }
            logger => wanted.push((Some(logger), level(value)?)),
        }
    }
    Ok(wanted)
}

fn level(name: &str) -> Result<LevelFilter, String> {
    Ok(match name {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "info" => LevelFilter::INFO,
        "warning" | "warn" => LevelFilter::WARN,
        // We have no level above error.
        "error" | "critical" => LevelFilter::ERROR,
        "off" => LevelFilter::OFF,
        other => {
            return Err(format!(
                "unknown log level {other:?}: expected trace, debug, info, warning, error, critical or off\n"
            ));
        }
    })
}

fn level_name(level: LevelFilter) -> String {
    if level == LevelFilter::WARN { "warning".into() } else { level.to_string() }
}
