//! How a request can end. Every request has exactly one outcome.

use std::{fmt, io};

/// The outcome of a request that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// A whole response with status 200 and the body that was expected.
    Answered,
    /// A whole response with another status.
    WrongStatus,
    /// A whole response with another body.
    WrongBody,
    /// No connection: the connect was refused, or failed.
    Refused,
    /// HTTP/2: the stream was refused, or the connection went away before it was taken (GOAWAY, RST_STREAM).
    GoneAway,
    /// The connection ended (EOF) before the first byte of a response.
    Closed,
    /// The connection was reset before the first byte of a response.
    Reset,
    /// The response began and did not end.
    Truncated,
    /// Nothing came for too long.
    TimedOut,
}

impl Outcome {
    /// Whether the client got what it asked for.
    pub fn is_answered(self) -> bool {
        self == Self::Answered
    }

    /// What an I/O error means, before or after the response's first byte.
    pub(crate) fn of_error(error: &io::Error, response_began: bool) -> Self {
        match error.kind() {
            _ if response_began => Self::Truncated,
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Reset,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answered => "answered",
            Self::WrongStatus => "wrong status",
            Self::WrongBody => "wrong body",
            Self::Refused => "refused",
            Self::GoneAway => "gone away",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Truncated => "truncated",
            Self::TimedOut => "timed out",
        })
    }
}
