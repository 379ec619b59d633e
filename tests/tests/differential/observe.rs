//! What happened to a request: on the wire to the client, at the backend, and in the access log.

use std::collections::BTreeSet;
use std::io::Read as _;

use pillion_tests::client::{self, Answer};
use pillion_tests::raw;
use serde_json::Value;

use super::case::Request;
use super::world::World;

/// Everything that is compared.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    pub(crate) name: String,
    /// `None`: there was no answer at all, for the reason in `failure`.
    pub(crate) answer: Option<Answer>,
    /// Differs in words between the sides.
    #[expect(dead_code, reason = "read through Debug, when a comparison fails")]
    pub(crate) failure: String,
    /// The line of the access log that names this case.
    pub(crate) log: Option<LogLine>,
}

/// `%RESPONSE_CODE% %RESPONSE_FLAGS% %ROUTE_NAME% %UPSTREAM_CLUSTER% %RESPONSE_CODE_DETAILS%`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogLine {
    pub(crate) code: String,
    /// In the order of the alphabet.
    pub(crate) flags: BTreeSet<String>,
    pub(crate) rest: String,
    /// `%RESPONSE_CODE_DETAILS%` up to what is in braces, where words differ.
    pub(crate) details: String,
    /// `%RESPONSE_FLAGS_LONG%`
    pub(crate) long_flags: BTreeSet<String>,
    /// `%ACCESS_LOG_TYPE%`
    pub(crate) kind: String,
    /// What the part's own operators say.
    pub(crate) more: String,
}

impl LogLine {
    /// Reads a line after its first word; that is the name of the case.
    pub(crate) fn parse(line: &str) -> Option<(String, Self)> {
        let mut words = line.split(' ');
        let name = words.next()?.to_owned();
        let code = words.next()?.to_owned();
        let flags = words.next()?.split(',').map(str::to_owned).collect();
        let rest = format!("{} {}", words.next()?, words.next()?);
        let details = words.next()?.split('{').next()?.to_owned();
        let long_flags = words.next()?.split(',').map(str::to_owned).collect();
        let kind = words.next()?.to_owned();
        let more = words.collect::<Vec<_>>().join(" ");
        Some((name, Self { code, flags, rest, details, long_flags, kind, more }))
    }
}

impl Observed {
    /// As the table has it.
    pub(crate) fn line(&self) -> String {
        match (&self.log, &self.answer) {
            (Some(log), _) => {
                let flags: Vec<_> = log.flags.iter().map(String::as_str).collect();
                format!("{} {} {}", log.code, flags.join(","), log.rest)
            }
            (None, Some(answer)) => format!("{} unlogged", answer.status),
            (None, None) => "no answer".to_owned(),
        }
    }

    /// The flags in words, and the kind of line.
    pub(crate) fn words(&self) -> String {
        self.log
            .as_ref()
            .map_or_else(String::new, |log| format!("{:?} {}", log.long_flags, log.kind))
    }

    /// What the part's own operators say.
    pub(crate) fn more(&self) -> String {
        self.log.as_ref().map_or_else(String::new, |log| log.more.clone())
    }

    /// What the backend saw of the request, if it was asked to echo.
    pub(crate) fn echo(&self) -> Option<Value> {
        let answer = self.answer.as_ref()?;
        (answer.header("content-type") == Some("application/json"))
            .then(|| serde_json::from_slice(&answer.body).ok())?
    }
}

/// Sends a request into the world.
pub(crate) async fn observe(world: &World, name: &str, request: &Request) -> Observed {
    let (answer, failure) = match send(world, name, request).await {
        Ok(answer) => (Some(answer), String::new()),
        Err(error) => (None, format!("{error:#}")),
    };
    Observed { name: name.to_owned(), answer, failure, log: None }
}

async fn send(world: &World, name: &str, request: &Request) -> anyhow::Result<Answer> {
    let address = world.listener(request.listener)?;
    if let Some(text) = request.raw {
        if request.listener.starts_with("tcp") {
            let _beside = if request.beside { Some(raw::hold(address).await?) } else { None };
            let body =
                raw::talk(address, text.as_bytes(), request.until.map(str::as_bytes)).await?;
            return Ok(Answer { body, ..Answer::default() });
        }
        let text = text.replace("{case}", name).replace("{host}", &request.ask.host);
        let bytes = raw::exchange(address, text.as_bytes()).await?;
        return raw::parse(&bytes, text.starts_with("HEAD "));
    }
    let mut ask = request.ask.clone();
    ask.headers.push(("x-case".to_owned(), name.to_owned()));
    if let Some(client) = request.tls {
        ask.tls = Some(world.trust.client(client, ask.http2)?);
    }
    client::send(address, &ask).await.map(unpacked)
}

/// Two compressors make different bytes of the same content; what can be unpacked is compared
/// unpacked.
fn unpacked(answer: Answer) -> Answer {
    let packed = answer.body.as_slice();
    let mut body = Vec::new();
    let read = match answer.header("content-encoding") {
        Some("gzip") => flate2::read::MultiGzDecoder::new(packed).read_to_end(&mut body),
        Some("br") => brotli::Decompressor::new(packed, 4096).read_to_end(&mut body),
        Some("zstd") => zstd::stream::read::Decoder::new(packed)
            .and_then(|mut decoder| decoder.read_to_end(&mut body)),
        _ => return answer,
    };
    if read.is_ok() { Answer { body, ..answer } } else { answer }
}
