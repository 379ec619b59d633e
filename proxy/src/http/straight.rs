//! Bodies that go from socket to socket past this program's memory.

use std::task::{Context, Poll};

use super::body::{BodyError, BoxBody};
use crate::net::splice::Pipe;

/// A body that may come out of a socket as it is. By default: one that does not.
pub trait Straight {
    /// Bytes that come that way, all that is left of it. 0: it is read in pieces.
    fn straight(&self) -> u64 {
        0
    }

    /// The next of them, into an empty pipe. 0: what is left has to be read in pieces.
    ///
    /// # Errors
    /// It broke off.
    fn poll_straight(
        &mut self,
        _: &mut Context<'_>,
        _: &mut Pipe,
    ) -> Poll<Result<usize, BodyError>> {
        Poll::Ready(Ok(0))
    }
}

impl Straight for BoxBody {}
