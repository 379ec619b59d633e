//! What a client asks a backend to do, in the header `x-do`: words such as `status=503 times=2`.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

/// The behaviour of a backend for one request.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// `status=503`
    pub status: Option<u16>,
    /// `times=2`: only the first two requests of a case are treated so; those after it are echoed.
    pub times: Option<u32>,
    /// `delay=300`: milliseconds before the answer.
    pub delay: Duration,
    /// `header=name:value`, as often as wanted.
    pub headers: Vec<(String, String)>,
    /// `size=100000`: so many bytes instead of the echo.
    pub size: Option<usize>,
    /// `chunked`: no content-length.
    pub chunked: bool,
    /// `trailers`: `x-trailer: end` after the body.
    pub trailers: bool,
    /// `grpc=14`: a gRPC answer of headers only.
    pub grpc: Option<u16>,
    /// `grpc-trailer=14`: the status after the body.
    pub grpc_trailer: Option<u16>,
    /// `reset`, `close`, `hang`, `refuse`, `partial`
    pub end: End,
}

/// How an exchange ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum End {
    /// As it should.
    #[default]
    Whole,
    /// `reset`: the connection (HTTP/1.1) or the stream (HTTP/2), before the answer.
    Reset,
    /// `refuse`: HTTP/2 REFUSED_STREAM.
    Refuse,
    /// `close`: without an answer; HTTP/1.1 only.
    Close,
    /// `hang`: no answer until the other side gives up.
    Hang,
    /// `partial`: reset within the body.
    Partial,
}

impl Script {
    /// Reads the words.
    ///
    /// # Errors
    /// When one is unknown.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut script = Self::default();
        for word in text.split_whitespace() {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            script.set(name, value).with_context(|| format!("x-do: {word}"))?;
        }
        Ok(script)
    }

    fn set(&mut self, name: &str, value: &str) -> anyhow::Result<()> {
        match name {
            "status" => self.status = Some(value.parse()?),
            "times" => self.times = Some(value.parse()?),
            "delay" => self.delay = Duration::from_millis(value.parse()?),
            "header" => {
                let (name, value) = value.split_once(':').context("expected name:value")?;
                self.headers.push((name.to_owned(), value.to_owned()));
            }
            "size" => self.size = Some(value.parse()?),
            "chunked" => self.chunked = true,
            "trailers" => self.trailers = true,
            "grpc" => self.grpc = Some(value.parse()?),
            "grpc-trailer" => self.grpc_trailer = Some(value.parse()?),
            "reset" => self.end = End::Reset,
            "refuse" => self.end = End::Refuse,
            "close" => self.end = End::Close,
            "hang" => self.end = End::Hang,
            "partial" => self.end = End::Partial,
            _ => bail!("unknown word"),
        }
        Ok(())
    }
}

/// A body that is played step by step.
#[derive(Debug, Default)]
pub struct Played {
    steps: VecDeque<Step>,
    pause: Option<Pin<Box<Sleep>>>,
    length: Option<u64>,
}

#[derive(Debug)]
enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    Pause(Duration),
    Fail,
}

/// The end of a body that was asked not to end well.
#[derive(Debug, thiserror::Error)]
#[error("cut, as it was asked for")]
pub struct Cut;

impl Played {
    /// None at all.
    pub fn empty() -> Self {
        Self { length: Some(0), ..Self::default() }
    }

    /// All of it at once, with a content-length.
    pub fn whole(data: impl Into<Bytes>) -> Self {
        let data = data.into();
        let length = Some(data.len() as u64);
        Self { steps: VecDeque::from([Step::Data(data)]), pause: None, length }
    }

    /// In pieces of 16 KiB without a content-length.
    pub fn chunked(data: impl Into<Bytes>) -> Self {
        let mut data = data.into();
        let mut played = Self::default();
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(16 << 10));
            played.steps.push_back(Step::Data(piece));
        }
        played
    }

    /// With trailers at its end, and so without a content-length.
    #[must_use]
    pub fn and_trailers(mut self, trailers: HeaderMap) -> Self {
        self.length = None;
        self.steps.push_back(Step::Trailers(trailers));
        self
    }

    /// Cut after what is there has left.
    #[must_use]
    pub fn and_fail(mut self) -> Self {
        self.length = None;
        // Until it is pending, a server may keep what it has to itself.
        self.steps.push_back(Step::Pause(Duration::from_millis(50)));
        self.steps.push_back(Step::Fail);
        self
    }
}

impl Body for Played {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        loop {
            if let Some(pause) = &mut self.pause {
                if pause.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.pause = None;
            }
            return Poll::Ready(match self.steps.pop_front() {
                Some(Step::Pause(time)) => {
                    self.pause = Some(Box::pin(tokio::time::sleep(time)));
                    continue;
                }
                Some(Step::Data(data)) => Some(Ok(Frame::data(data))),
                Some(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
                Some(Step::Fail) => Some(Err(Cut)),
                None => None,
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty() && self.pause.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
