//! Access logs: JSON, Envoy's access log service, OTLP.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use pillion_tests::collector::Message;
use pillion_tests::wait;
use pillion_xds::envoy::data::accesslog::v3::HttpAccessLogEntry;
use pillion_xds::envoy::service::accesslog::v3::StreamAccessLogsMessage;
use pillion_xds::envoy::service::accesslog::v3::stream_access_logs_message::LogEntries;
use prost::Message as _;
use serde_json::{Value, json};

use super::{World, kinds, same};

/// Lines of a log, one a request, as JSON.
async fn lines(world: &World, count: usize) -> anyhow::Result<Vec<Value>> {
    let path = world.proxy.dir().join("access.log");
    let read = || async {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<Value> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (lines.len() >= count).then_some(lines)
    };
    wait::until("every request is in the access log", read).await
}

fn file(format: &str) -> String {
    format!(
        "access_log: [{{name: f, typed_config: {{
            '@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog,
            path: '@DIR@/access.log', log_format: {format}}}}}]"
    )
}

#[tokio::test]
async fn json_lines_are_typed_as_envoys() -> anyhow::Result<()> {
    let format = file(
        "{json_format: {
            code: '%RESPONSE_CODE%', sent: '%BYTES_SENT%', flags: '%RESPONSE_FLAGS%',
            long: '%RESPONSE_FLAGS_LONG%', route: '%ROUTE_NAME%', none: '%REQ(X-NO)%',
            text: 'code %RESPONSE_CODE% of %REQ(X-NO)%', literal: plain, whole: 3, yes: true,
            nothing: null, list: [1, '%PROTOCOL%', {deep: '%REQ(:METHOD)%'}],
            nested: {grpc: '%GRPC_STATUS(NUMBER)%', cut: '%REQ(USER-AGENT):3%', gone: '%REQ(X-NO):3%'},
            empty: '%REQ(X-EMPTY)%', attempts: '%UPSTREAM_REQUEST_ATTEMPT_COUNT%', status: '%RESP(:STATUS)%',
            environment: '%ENVIRONMENT(NO_SUCH_VARIABLE)%', termination: '%CONNECTION_TERMINATION_DETAILS%',
            quoted: '%REQ(X-QUOTED)%'}}",
    );
    let mut said = Vec::new();
    for kind in kinds()? {
        let world = World::start(kind, &format).await?;
        world
            .get("/x", &[("user-agent", "tester"), ("x-quoted", "a\"b\\c"), ("x-empty", "")])
            .await?;
        world.get("/teapot", &[]).await?;
        said.push(Value::Array(lines(&world, 2).await?));
    }
    same(&said)
}

#[tokio::test]
async fn empty_values_are_left_out_as_envoy_does() -> anyhow::Result<()> {
    let format = file(
        "{omit_empty_values: true, json_format: {
            a: '%REQ(X-NO)%', b: '%RESPONSE_CODE%', c: 'x%REQ(X-NO)%y', d: '%RESPONSE_FLAGS%',
            e: {f: '%REQ(X-NO)%'}, g: ['%REQ(X-NO)%', 1], h: '%ROUTE_NAME%', i: null}}",
    );
    let mut said = Vec::new();
    for kind in kinds()? {
        let world = World::start(kind, &format).await?;
        world.get("/x", &[]).await?;
        said.push(Value::Array(lines(&world, 1).await?));
    }
    same(&said)
}

#[tokio::test]
async fn text_without_empty_values() -> anyhow::Result<()> {
    let text = r#""{\"line\": \"%RESPONSE_CODE%|%REQ(X-NO)%|%RESPONSE_FLAGS%|%REQ(X-NO):2%\"}\n""#;
    let format = file(&format!(
        "{{omit_empty_values: true, text_format_source: {{inline_string: {text}}}}}"
    ));
    let mut said = Vec::new();
    for kind in kinds()? {
        let world = World::start(kind, &format).await?;
        world.get("/x", &[]).await?;
        said.push(Value::Array(lines(&world, 1).await?));
    }
    same(&said)
}

#[tokio::test]
async fn filters_choose_the_lines() -> anyhow::Result<()> {
    let filters = [
        ("status", "status_code_filter: {comparison: {op: GE, value: {default_value: 418, runtime_key: k}}}"),
        ("header", "header_filter: {header: {name: x-log, string_match: {exact: 'yes'}}}"),
        ("duration", "duration_filter: {comparison: {op: GE, value: {default_value: 0, runtime_key: k}}}"),
        ("never", "duration_filter: {comparison: {op: GE, value: {default_value: 900000, runtime_key: k}}}"),
        ("any-flag", "response_flag_filter: {}"),
        ("no-health", "not_health_check_filter: {}"),
        ("grpc", "grpc_status_filter: {statuses: [UNKNOWN]}"),
        ("not-grpc", "grpc_status_filter: {statuses: [UNKNOWN], exclude: true}"),
        ("all", "runtime_filter: {runtime_key: k, percent_sampled: {numerator: 100}}"),
        ("none", "runtime_filter: {runtime_key: k, percent_sampled: {numerator: 0}}"),
        ("end", "log_type_filter: {types: [DownstreamEnd]}"),
        ("start", "log_type_filter: {types: [DownstreamStart]}"),
        ("both", "and_filter: {filters: [
            {status_code_filter: {comparison: {op: EQ, value: {default_value: 200, runtime_key: k}}}},
            {header_filter: {header: {name: x-log, present_match: true}}}]}"),
        ("either", "or_filter: {filters: [
            {status_code_filter: {comparison: {op: LE, value: {default_value: 199, runtime_key: k}}}},
            {header_filter: {header: {name: x-log, present_match: true}}}]}"),
    ];
    let log = |(name, filter): &(&str, &str)| {
        format!(
            "{{name: f, filter: {{{filter}}}, typed_config: {{
                '@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog,
                path: '@DIR@/access.log', log_format: {{json_format: {{
                    log: {name}, path: '%PATH%', kind: '%ACCESS_LOG_TYPE%'}}}}}}}}"
        )
    };
    let last = log(&("last", "header_filter: {header: {name: x-last, present_match: true}}"));
    let logs: Vec<String> = filters.iter().map(log).chain([last]).collect();
    let manager = format!(
        "{{access_log: [{}], access_log_options: {{flush_access_log_on_new_request: true}}}}",
        logs.join(", ")
    );
    let mut said = Vec::new();
    for kind in kinds()? {
        let world = World::start(kind, &manager).await?;
        for (path, headers) in [
            ("/x", &[][..]),
            ("/teapot", &[]),
            ("/logged", &[("x-log", "yes")]),
            ("/maybe", &[("x-log", "no")]),
        ] {
            world.get(path, headers).await?;
        }
        world.get("/end", &[("x-last", "1")]).await?;
        let is_last = |line: &Value| line["log"] == "last" && line["kind"] == "DownstreamEnd";
        let path = world.proxy.dir().join("access.log");
        let complete = || async {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let all: Vec<Value> =
                text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            all.iter().any(is_last).then_some(all)
        };
        let mut all = wait::until("the last request is in the access log", complete).await?;
        all.sort_by_key(ToString::to_string);
        said.push(Value::Array(all));
    }
    same(&said)
}

/// Entries that the service was sent.
fn entries(messages: &[Message]) -> Vec<HttpAccessLogEntry> {
    let logs = messages.iter().filter_map(|message| {
        let message = StreamAccessLogsMessage::decode(message.bytes.clone()).ok()?;
        match message.log_entries? {
            LogEntries::HttpLogs(logs) => Some(logs.log_entry),
            LogEntries::TcpLogs(_) => None,
        }
    });
    logs.flatten().collect()
}

#[tokio::test]
async fn envoys_access_log_service_gets_the_same_entries() -> anyhow::Result<()> {
    let manager = "access_log: [{name: g, typed_config: {
        '@type': type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig,
        common_config: {log_name: requests, transport_api_version: V3, buffer_flush_interval: 0.1s,
            custom_tags: [{tag: t, literal: {value: v}}, {tag: h, request_header: {name: x-a}},
                {tag: gone, request_header: {name: x-no}}, {tag: kept, request_header: {name: x-no, default_value: d}}],
            grpc_service: {envoy_grpc: {cluster_name: collector}}},
        additional_request_headers_to_log: [x-a, x-no], additional_response_headers_to_log: [x-endpoint]}}]";
    let mut said = Vec::new();
    for kind in kinds()? {
        let world = World::start(kind, manager).await?;
        world.get("/x?y", &[("x-a", "1"), ("user-agent", "tester"), ("referer", "r")]).await?;
        world.get("/teapot", &[]).await?;
        let path = "AccessLogService/StreamAccessLogs";
        let all = world.collected(path, |messages| {
            let all = entries(messages);
            (all.len() >= 2).then_some(all)
        });
        said.push(Value::Array(all.await?.iter().map(entry).collect()));
        let first =
            StreamAccessLogsMessage::decode(world.collector.messages(path)[0].bytes.clone())?;
        let identifier = first.identifier.unwrap_or_default();
        assert_eq!(identifier.log_name, "requests");
        assert_eq!(identifier.node.unwrap_or_default().id, "test");
    }
    same(&said)
}

/// What of an entry does not depend on ports, times and ids.
fn entry(entry: &HttpAccessLogEntry) -> Value {
    let (request, response) =
        (entry.request.clone().unwrap_or_default(), entry.response.clone().unwrap_or_default());
    let common = entry.common_properties.clone().unwrap_or_default();
    let map = |map: &std::collections::HashMap<String, String>| json!(map);
    json!({
        "version": entry.protocol_version,
        "request": [request.request_method, request.scheme, request.path, request.authority,
            request.user_agent, request.referer, request.original_path, request.request_body_bytes],
        "request id": !request.request_id.is_empty(),
        "request headers": map(&request.request_headers),
        "response": [response.response_code, response.response_body_bytes.min(1), response.response_code_details],
        "response headers": map(&response.response_headers),
        "tags": map(&common.custom_tags),
        "cluster": [common.upstream_cluster, common.route_name],
        "attempts": common.upstream_request_attempt_count,
        "kind": common.access_log_type,
        "known": [common.start_time.is_some(), common.duration.is_some(),
            common.time_to_last_rx_byte.is_some(), common.time_to_first_upstream_tx_byte.is_some(),
            common.time_to_first_upstream_rx_byte.is_some(), common.time_to_last_upstream_rx_byte.is_some(),
            common.time_to_first_downstream_tx_byte.is_some(), common.time_to_last_downstream_tx_byte.is_some(),
            common.upstream_remote_address.is_some(), common.upstream_local_address.is_some(),
            common.downstream_remote_address.is_some(), common.downstream_local_address.is_some(),
            !common.stream_id.is_empty()],
        "flags": format!("{:?}", common.response_flags.unwrap_or_default()),
        "tls": common.tls_properties.is_some(),
    })
}

/// Attributes as JSON.
pub(super) fn attributes(pairs: &[KeyValue]) -> Value {
    let value = |pair: &KeyValue| pair.value.as_ref().map_or(Value::Null, any);
    pairs.iter().map(|pair| (pair.key.clone(), value(pair))).collect()
}

fn any(value: &opentelemetry_proto::tonic::common::v1::AnyValue) -> Value {
    use any_value::Value as Any;
    match &value.value {
        None => Value::Null,
        Some(Any::StringValue(text)) => json!(text),
        Some(Any::BoolValue(yes)) => json!(yes),
        Some(Any::IntValue(number)) => json!(number),
        Some(Any::DoubleValue(number)) => json!(number),
        Some(Any::ArrayValue(list)) => list.values.iter().map(any).collect(),
        Some(Any::KvlistValue(list)) => attributes(&list.values),
        Some(other) => json!(format!("{other:?}")),
    }
}

fn records(messages: &[Message]) -> Vec<(Value, LogRecord)> {
    let mut all = Vec::new();
    for message in messages {
        let request = ExportLogsServiceRequest::decode(message.bytes.clone()).unwrap_or_default();
        for logs in request.resource_logs {
            let resource = attributes(&logs.resource.unwrap_or_default().attributes);
            let records = logs.scope_logs.into_iter().flat_map(|scope| scope.log_records);
            all.extend(records.map(|record| (resource.clone(), record)));
        }
    }
    all
}

async fn otlp(service: &str, path: &str) -> anyhow::Result<()> {
    let manager = format!(
        "access_log: [{{name: o, typed_config: {{
        '@type': type.googleapis.com/envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig,
        log_name: requests, buffer_flush_interval: 0.1s, {service},
        resource_attributes: {{values: [{{key: region, value: {{string_value: here}}}}]}},
        body: {{string_value: '%REQ(:METHOD)% %PATH% %REQ(X-NO)%'}},
        attributes: {{values: [
            {{key: code, value: {{string_value: '%RESPONSE_CODE%'}}}},
            {{key: list, value: {{array_value: {{values: [{{string_value: '%PROTOCOL%'}}]}}}}}},
            {{key: tree, value: {{kvlist_value: {{values: [{{key: route, value: {{string_value: '%ROUTE_NAME%'}}}}]}}}}}}]}}}}}}]"
    );
    let mut said = Vec::new();
    for kind in kinds()? {
        let world = World::start(kind, &manager).await?;
        world.get("/x", &[]).await?;
        world.get("/teapot", &[]).await?;
        let all = world.collected(path, |messages| {
            let all = records(messages);
            (all.len() >= 2).then_some(all)
        });
        let told = |(resource, record): &(Value, LogRecord)| {
            json!({
                "resource": resource,
                "body": record.body.as_ref().map(any),
                "attributes": attributes(&record.attributes),
                "time": record.time_unix_nano > 0,
            })
        };
        said.push(Value::Array(all.await?.iter().map(told).collect()));
    }
    same(&said)
}

#[tokio::test]
async fn otlp_over_grpc_gets_the_same_records() -> anyhow::Result<()> {
    otlp("grpc_service: {envoy_grpc: {cluster_name: collector}}", "LogsService/Export").await
}

#[tokio::test]
async fn otlp_over_http_gets_the_same_records() -> anyhow::Result<()> {
    let service = "http_service: {http_uri: {uri: 'http://collector/v1/logs', cluster: collector-http, timeout: 1s}}";
    otlp(service, "/v1/logs").await
}
