//! Bodies that go from socket to socket past this program's memory.

use std::task::{Context, Poll};

use super::body::BodyError;
use crate::net::splice::Pipe;

/// A body that may come out of a socket as it is.
pub trait Straight {
    /// Bytes that come that way, all that is left of it. 0: it is read in pieces.
    fn straight(&self) -> u64;

    /// The next of them, into an empty pipe. 0: what is left has to be read in pieces.
    ///
    /// # Errors
    /// It broke off.
    fn poll_straight(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<Result<usize, BodyError>>;
}
