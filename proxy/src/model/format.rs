//! Format strings with command operators, as in Envoy's access logs and header values
//! (`%REQ(:METHOD)%`). Parsed here; `telemetry::format` fills them in.

/// A parsed format string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// In order.
    pub pieces: Vec<Piece>,
}

impl Template {
    /// Text without operators.
    pub fn literal(text: impl Into<String>) -> Self {
        Self { pieces: vec![Piece::Literal(text.into())] }
    }

    /// The text, if there is no operator in it: then nothing need be computed per request.
    pub fn as_literal(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }
}

/// A part of a format string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it stands (`%%` is a percent sign).
    Literal(String),
    /// `%NAME(argument):length%`
    Operator(Operator, Option<usize>),
}

/// A command operator. The parser extends this list; unknown ones are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `%PROTOCOL%`
    Protocol,
}
