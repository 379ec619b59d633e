//! Sending spans: in batches, in the background, and never for ever.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::sync::mpsc::Receiver;

use super::otlp;
use super::stats::Counter;
use super::trace::FinishedSpan;
use crate::model::collector::Collector;

/// A batch is sent when it is this large …
const BATCH: usize = 512;
/// … or this old.
const INTERVAL: Duration = Duration::from_secs(1);

/// Delivers what was encoded.
pub trait Deliver: Send + Sync {
    /// Send it to this collector.
    fn deliver(
        &self,
        to: &Collector,
        call: Call,
        payload: Bytes,
    ) -> impl Future<Output = Result<(), String>> + Send;
}

/// What a payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `ExportTraceServiceRequest`
    OtlpTraces,
    /// `ExportLogsServiceRequest`
    OtlpLogs,
    /// `ExportMetricsServiceRequest`
    OtlpMetrics,
    /// `StreamAccessLogsMessage`: the first and last of its stream.
    AccessLogs,
}

impl Call {
    /// Path of the gRPC method.
    pub fn grpc_path(self) -> &'static str {
        match self {
            Self::OtlpTraces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::OtlpLogs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            Self::OtlpMetrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Self::AccessLogs => "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs",
        }
    }
}

/// Send what is queued until the queue is closed, and what is left then. `arrived` and `lost` count
/// spans by the outcome of their batch.
pub async fn run(
    mut spans: Receiver<FinishedSpan>,
    sink: impl Deliver,
    (arrived, lost): (Counter, Counter),
) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut failing = false;
    loop {
        let open = fill(&mut spans, &mut batch).await;
        while let Some(first) = batch.first() {
            let config = first.config.clone();
            let (same, rest): (Vec<_>, Vec<_>) =
                std::mem::take(&mut batch).into_iter().partition(|span| belongs(span, &config));
            batch = rest;
            let payload = Bytes::from(otlp::encode(&same).encode_to_vec());
            let sent = sink.deliver(&config.exporter, Call::OtlpTraces, payload).await;
            // Once is enough: a collector that is away would fill the log.
            if let Err(error) = &sent
                && !failing
            {
                tracing::warn!(%error, spans = same.len(), "cannot export spans");
            }
            failing = sent.is_err();
            if failing { &lost } else { &arrived }.add(same.len() as u64);
        }
        if !open {
            return;
        }
    }
}

fn belongs(span: &FinishedSpan, config: &crate::model::tracing::Tracing) -> bool {
    let own = &span.config;
    own.exporter == config.exporter
        && own.service_name == config.service_name
        && own.resource == config.resource
}

/// Collect a batch. False: the queue was closed.
async fn fill(spans: &mut Receiver<FinishedSpan>, batch: &mut Vec<FinishedSpan>) -> bool {
    let Some(first) = spans.recv().await else { return false };
    batch.push(first);
    let until = tokio::time::Instant::now() + INTERVAL;
    while batch.len() < BATCH {
        match tokio::time::timeout_at(until, spans.recv()).await {
            Ok(Some(span)) => batch.push(span),
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
    true
}
