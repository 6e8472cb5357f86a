//! What two instances say to each other.
//!
//! A message is its version, its kind and its fields, little-endian. Of Hello and Welcome the version, the kind and the
//! number never change, so that instances of any two versions know of each other. The end of the channel says the rest:
//! whoever retires or dies ends it.

use std::time::Duration;

use bytes::{Buf, BufMut};
use rustix::time::{ClockId, clock_gettime};

/// Of what a Connection and its answers mean.
pub(crate) const VERSION: u8 = 1;
/// A head and what was read with it, twice over.
pub(crate) const MOST_BYTES: usize = 160 * 1024;
/// The longest message.
pub(crate) const LONGEST: usize = MOST_BYTES + 64;

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message {
    /// From who retires: the number of its instance.
    Hello { n: u64 },
    /// From who serves, to a Hello.
    Welcome { n: u64 },
    /// From who retires, with its descriptor.
    Connection(Travelling),
    /// From who serves, in the order of the connections: it owns the one that is next.
    Took,
    /// From who serves, in that order too: it has dropped its descriptor of the one that is next.
    Refused(Reason),
}

/// A connection on its way.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Travelling {
    /// Its protocol is not known yet.
    pub fresh: bool,
    /// How long it has been idle.
    pub idle: Duration,
    /// How long ago the first byte of a head arrived that is not whole.
    pub head: Option<Duration>,
    /// Until then its sender does not take it back.
    pub valid_until: Monotonic,
    /// Read from the socket, and of the next message.
    pub ahead: Vec<u8>,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reason {
    /// As many connections are open as may be.
    Full,
    /// No descriptor is free.
    Descriptors,
    /// What was sent is no client's connection.
    Unfit,
}

/// A moment that two processes of one host agree on (clock_gettime(2), CLOCK_MONOTONIC), in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) struct Monotonic(pub u64);

impl Monotonic {
    pub(crate) fn now() -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        Self(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
    }

    pub(crate) fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time.as_nanos() as u64))
    }
}

/// What is no message of ours.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("it is of version {0}, and this instance speaks {VERSION}")]
    Version(u8),
    #[error("it is no message")]
    Other,
}

const NONE: u32 = u32::MAX;

impl Message {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, self.kind()];
        match self {
            Self::Hello { n } | Self::Welcome { n } => bytes.put_u64_le(*n),
            Self::Connection(Travelling { fresh, idle, head, valid_until, ahead }) => {
                bytes.put_u8((*fresh).into());
                bytes.put_u32_le(milliseconds(*idle));
                bytes.put_u32_le(head.map_or(NONE, milliseconds));
                bytes.put_u64_le(valid_until.0);
                bytes.put_slice(ahead);
            }
            Self::Refused(reason) => bytes.put_u8(*reason as u8),
            Self::Took => {}
        }
        bytes
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Hello { .. } => 0,
            Self::Welcome { .. } => 1,
            Self::Connection(_) => 2,
            Self::Took => 3,
            Self::Refused(_) => 4,
        }
    }

    /// The version is the second of what is returned, for the messages that every version has.
    pub(crate) fn decode(mut bytes: &[u8]) -> Result<(Self, u8), Malformed> {
        let other = |_| Malformed::Other;
        let (version, kind) = (bytes.try_get_u8().map_err(other)?, bytes.try_get_u8().map_err(other)?);
        let message = match kind {
            0 => Self::Hello { n: bytes.try_get_u64_le().map_err(other)? },
            1 => Self::Welcome { n: bytes.try_get_u64_le().map_err(other)? },
            _ if version != VERSION => return Err(Malformed::Version(version)),
            2 => {
                let fresh = bytes.try_get_u8().map_err(other)? == 1;
                let idle = Duration::from_millis(bytes.try_get_u32_le().map_err(other)?.into());
                let head = Some(bytes.try_get_u32_le().map_err(other)?).filter(|head| *head != NONE);
                let valid_until = Monotonic(bytes.try_get_u64_le().map_err(other)?);
                let head = head.map(|head| Duration::from_millis(head.into()));
                return Ok((
                    Self::Connection(Travelling { fresh, idle, head, valid_until, ahead: bytes.to_vec() }),
                    version,
                ));
            }
            3 => Self::Took,
            4 => Self::Refused(Reason::decode(bytes.try_get_u8().map_err(other)?)),
            _ => return Err(Malformed::Other),
        };
        if version == VERSION && bytes.has_remaining() { Err(Malformed::Other) } else { Ok((message, version)) }
    }
}

impl Reason {
    /// What a later release may say is a refusal all the same.
    fn decode(byte: u8) -> Self {
        match byte {
            0 => Self::Full,
            1 => Self::Descriptors,
            _ => Self::Unfit,
        }
    }
}

fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(NONE - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message() -> impl Strategy<Value = Message> {
        let time = || (0..=NONE - 1).prop_map(|ms| Duration::from_millis(ms.into()));
        let reason = prop_oneof![Just(Reason::Full), Just(Reason::Descriptors), Just(Reason::Unfit)];
        let connection = (any::<bool>(), time(), proptest::option::of(time()), any::<u64>(), any::<Vec<u8>>());
        prop_oneof![
            any::<u64>().prop_map(|n| Message::Hello { n }),
            any::<u64>().prop_map(|n| Message::Welcome { n }),
            connection.prop_map(|(fresh, idle, head, valid_until, ahead)| {
                Message::Connection(Travelling { fresh, idle, head, valid_until: Monotonic(valid_until), ahead })
            }),
            Just(Message::Took),
            reason.prop_map(Message::Refused),
        ]
    }

    proptest! {
        #[test]
        fn what_is_said_is_what_is_heard(message in message()) {
            prop_assert_eq!(Message::decode(&message.encode()), Ok((message, VERSION)));
        }

        #[test]
        fn no_bytes_are_too_odd_to_read(bytes: Vec<u8>) {
            let _ = Message::decode(&bytes);
        }
    }

    #[test]
    fn another_version_is_known_by_its_greeting_and_understood_no_further() {
        assert_eq!(Message::decode(&[9, 0, 7, 0, 0, 0, 0, 0, 0, 0, 42]), Ok((Message::Hello { n: 7 }, 9)));
        assert_eq!(Message::decode(&[9, 3]), Err(Malformed::Version(9)));
    }
}
