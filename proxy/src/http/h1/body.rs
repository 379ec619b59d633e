//! Bodies: bytes that come in turned into data and trailers, and the way back (RFC 9112 sections 6 and 7).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;

use super::wire::Output;
use super::{Framing, Malformed, head};

/// Reads one body.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// Bytes of chunk extensions and trailers so far: both could go on for ever.
    overhead: usize,
    /// So many of them are allowed.
    most: usize,
    trailers: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    UntilClose,
    Chunk(Chunk),
    Done,
}

/// Within a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    /// In a line with a size; so far. None: not a digit yet.
    Size(Option<u64>),
    /// Behind that size.
    Extension(u64),
    /// That line has ended but for its LF.
    SizeEnd(u64),
    Data(u64),
    DataEnd,
    DataEndLf,
    /// At the beginning of a trailer line.
    Trailer,
    Line,
    LineEnd,
    LastEnd,
}

/// What was read of a body.
#[derive(Debug)]
pub enum Decoded {
    /// A piece.
    Data(Bytes),
    /// What follows the pieces; nothing comes after that.
    Trailers(HeaderMap),
    /// Nothing comes any more.
    End,
    /// Nothing yet: more has to be read.
    More,
}

impl Decoder {
    /// Of a body that ends as `framing` says. `most`: bytes of trailers, and of chunk extensions, that are put up with.
    pub fn new(framing: Framing, most: usize) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunk(Chunk::Size(None)),
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, overhead: 0, most, trailers: Vec::new() }
    }

    /// All of it has been read.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes that are still to come, where that is known.
    pub fn left(&self) -> Option<u64> {
        match self.state {
            State::Done => Some(0),
            State::Length(left) => Some(left),
            State::UntilClose | State::Chunk(_) => None,
        }
    }

    /// So many bytes of what is left went another way.
    pub fn pass(&mut self, bytes: u64) {
        if let State::Length(left) = self.state {
            let left = left.saturating_sub(bytes);
            self.state = if left == 0 { State::Done } else { State::Length(left) };
        }
    }

    /// The peer will send no more.
    ///
    /// # Errors
    /// It had promised more.
    pub fn end_of_input(&mut self) -> Result<(), Malformed> {
        match self.state {
            State::Done | State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            State::Length(_) => Err(Malformed("the body ended before its length")),
            State::Chunk(_) => Err(Malformed("the body ended before its last chunk")),
        }
    }

    /// Take the next piece out of what was read.
    ///
    /// # Errors
    /// It is no chunk, or too much beside the data.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Decoded, Malformed> {
        loop {
            match self.state {
                State::Done => return Ok(Decoded::End),
                _ if input.is_empty() => return Ok(Decoded::More),
                State::UntilClose => return Ok(Decoded::Data(input.split().freeze())),
                State::Length(left) => {
                    let (data, left) = take(input, left);
                    self.state = if left == 0 { State::Done } else { State::Length(left) };
                    return Ok(Decoded::Data(data));
                }
                State::Chunk(Chunk::Data(left)) => {
                    let (data, left) = take(input, left);
                    let next = if left == 0 { Chunk::DataEnd } else { Chunk::Data(left) };
                    self.state = State::Chunk(next);
                    return Ok(Decoded::Data(data));
                }
                State::Chunk(chunk) => {
                    let byte = input.get_u8();
                    match self.step(chunk, byte)? {
                        Some(next) => self.state = State::Chunk(next),
                        None => return self.ended(),
                    }
                }
            }
        }
    }

    fn ended(&mut self) -> Result<Decoded, Malformed> {
        self.state = State::Done;
        if self.trailers.is_empty() {
            return Ok(Decoded::End);
        }
        self.trailers.extend_from_slice(b"\r\n");
        let trailers = head::trailers(Bytes::from(std::mem::take(&mut self.trailers)))?;
        Ok(Decoded::Trailers(trailers))
    }

    /// One byte of what is not data. None: the body has ended.
    fn step(&mut self, chunk: Chunk, byte: u8) -> Result<Option<Chunk>, Malformed> {
        const SIZE: Malformed = Malformed("the size of a chunk is no hexadecimal number");
        const END: Malformed =
            Malformed("a line of a chunked body ends with something else than CR LF");
        Ok(Some(match (chunk, byte) {
            (Chunk::Size(Some(size)) | Chunk::Extension(size), b'\r') => Chunk::SizeEnd(size),
            (Chunk::Size(Some(size)), b';' | b' ' | b'\t') => Chunk::Extension(size),
            (Chunk::Size(size), digit) => {
                let digit = u64::from((digit as char).to_digit(16).ok_or(SIZE)?);
                let size =
                    size.unwrap_or(0).checked_mul(16).and_then(|size| size.checked_add(digit));
                Chunk::Size(Some(size.ok_or(Malformed("a chunk is larger than anything can be"))?))
            }
            (Chunk::Extension(_), b'\n') => return Err(END),
            (Chunk::Extension(size), _) => {
                self.count()?;
                Chunk::Extension(size)
            }
            (Chunk::SizeEnd(0), b'\n') => Chunk::Trailer,
            (Chunk::SizeEnd(size), b'\n') => Chunk::Data(size),
            (Chunk::DataEnd, b'\r') => Chunk::DataEndLf,
            (Chunk::DataEndLf, b'\n') => Chunk::Size(None),
            (Chunk::DataEnd, _) => return Err(Malformed("a chunk is longer than its size")),
            (Chunk::Trailer, b'\r') => Chunk::LastEnd,
            (Chunk::LastEnd, b'\n') => return Ok(None),
            (Chunk::Line, b'\r') => {
                self.trailers.push(byte);
                Chunk::LineEnd
            }
            (Chunk::LineEnd, b'\n') => {
                self.trailers.push(byte);
                Chunk::Trailer
            }
            (Chunk::SizeEnd(_) | Chunk::DataEndLf | Chunk::LastEnd | Chunk::LineEnd, _) => {
                return Err(END);
            }
            (Chunk::Trailer | Chunk::Line, _) => {
                self.count()?;
                self.trailers.push(byte);
                Chunk::Line
            }
            (Chunk::Data(left), _) => Chunk::Data(left),
        }))
    }

    /// A byte that brings nothing on.
    fn count(&mut self) -> Result<(), Malformed> {
        self.overhead += 1;
        if self.overhead > self.most {
            return Err(Malformed("there is too much beside the data of a chunked body"));
        }
        Ok(())
    }
}

/// At most `left` bytes, and how many are left after them.
fn take(input: &mut BytesMut, left: u64) -> (Bytes, u64) {
    let count = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
    let data =
        if count == input.len() { input.split().freeze() } else { input.split_to(count).freeze() };
    (data, left - count as u64)
}

/// Writes one body.
#[derive(Debug)]
pub struct Encoder {
    framing: Framing,
    /// Of [`Framing::Length`]: what is still to come.
    left: u64,
    done: bool,
}

impl Encoder {
    /// Of a body that ends as `framing` says, and as its head has told.
    pub fn new(framing: Framing) -> Self {
        let left = if let Framing::Length(length) = framing { length } else { 0 };
        Self { framing, left, done: matches!(framing, Framing::None | Framing::Length(0)) }
    }

    /// All of it is written.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Bytes that are still to come, where that was told.
    pub fn left(&self) -> Option<u64> {
        matches!(self.framing, Framing::Length(_)).then_some(self.left)
    }

    /// So many bytes of what is left went another way.
    pub fn pass(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
        self.done = self.left == 0;
    }

    /// The next piece.
    ///
    /// # Errors
    /// It is more than was promised.
    pub fn data(&mut self, data: Bytes, out: &mut Output) -> Result<(), Malformed> {
        if data.is_empty() {
            return Ok(());
        }
        match self.framing {
            Framing::None => return Err(Malformed("there is a body where there is none")),
            Framing::Length(_) => {
                let more = Malformed("the body is longer than its length");
                self.left = self.left.checked_sub(data.len() as u64).ok_or(more)?;
                self.done = self.left == 0;
                out.push(data);
            }
            Framing::Chunked => {
                let head = out.flat();
                hexadecimal(data.len(), head);
                head.put_slice(b"\r\n");
                out.push(data);
                out.flat().put_slice(b"\r\n");
            }
            Framing::UntilClose => out.push(data),
        }
        Ok(())
    }

    /// Nothing follows but trailers, which only chunked bodies can have.
    ///
    /// # Errors
    /// More was promised.
    pub fn end(&mut self, trailers: Option<&HeaderMap>, out: &mut Output) -> Result<(), Malformed> {
        if self.framing == Framing::Chunked && !self.done {
            let flat = out.flat();
            flat.put_slice(b"0\r\n");
            for (name, value) in trailers.into_iter().flatten() {
                flat.put_slice(name.as_str().as_bytes());
                flat.put_slice(b": ");
                flat.put_slice(value.as_bytes());
                flat.put_slice(b"\r\n");
            }
            flat.put_slice(b"\r\n");
        }
        self.done = true;
        if self.left > 0 {
            return Err(Malformed("the body ended before its length"));
        }
        Ok(())
    }
}

fn hexadecimal(number: usize, out: &mut BytesMut) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 16];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = DIGITS[rest & 15];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
