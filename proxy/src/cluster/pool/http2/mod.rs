//! HTTP/2 connections: many requests at a time. One task reads and writes the connection; each request
//! is sent, and its answer awaited, by whoever wants it, without a task of its own.

mod driver;
mod head;
mod send;
mod streams;

use std::io;

use crate::http::body::BodyError;

pub(super) use driver::{builder, drive};
pub(crate) use head::TakeHead;
pub(super) use send::send;
pub(super) use streams::{ASSUMED, Streams};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The connection takes no more requests.
    #[error("the connection was closed before the request: {0}")]
    Closed(h2::Error),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(io::Error),
    /// A PING was not answered: the network is gone.
    #[error("a PING was not answered in time")]
    TimedOut,
    /// The stream or the connection was ended by a frame, or has to be.
    #[error(transparent)]
    Protocol(h2::Error),
    /// The request's own body broke off, or is not what its head promises.
    #[error("the request's body broke off: {0}")]
    Request(BodyError),
}

impl From<h2::Error> for Error {
    fn from(error: h2::Error) -> Self {
        if !error.is_io() {
            return Self::Protocol(error);
        }
        Self::Io(error.into_io().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()))
    }
}
