//! Who retires in favour of this instance, as this instance sees it.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use axum::Router;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    connection,
    drain::Watch,
    io::Io,
    message::{LONGEST, Message, Monotonic, Reason, Travelling},
    packet::{Channel, Listener, Packet},
    parked::{Received, Unfit},
    place::Place,
    successor::PATIENCE,
};

/// Instances that may retire at once in favour of one.
const CHANNELS: usize = 16;
/// After an error that may last, such as a full descriptor table.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Takes in what other instances hand over.
#[derive(Clone)]
pub(crate) struct Intake {
    pub place: Place,
    pub router: Router,
    pub watch: Watch,
    /// The connections that may be open, of those that are accepted and those that are handed in together.
    pub permits: Arc<Semaphore>,
}

/// What ends a channel.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("it is another user's")]
    Stranger,
    #[error("it says nothing")]
    Silent,
    #[error("it is this instance itself")]
    Self_,
    #[error("it says what nobody understands: {0}")]
    Malformed(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Intake {
    /// Runs until it is dropped; its channels end with it. What is still on its way then is taken back by its sender.
    pub(crate) async fn run(self, listener: Listener) -> Infallible {
        let mut channels = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(_) if channels.len() >= CHANNELS => {
                        tracing::warn!("{CHANNELS} instances retire at once; another is refused");
                    }
                    Ok(channel) => drop(channels.spawn(self.clone().serve(channel))),
                    Err(error) => {
                        tracing::warn!(%error, "cannot hear an instance that retires");
                        sleep(ACCEPT_AGAIN).await;
                    }
                },
                Some(_) = channels.join_next() => {}
            }
        }
    }

    async fn serve(self, channel: Channel) {
        if let Err(error) = self.take_all(&channel).await {
            tracing::warn!(%error, "refused an instance that wants to hand over");
        }
    }

    /// Returns when the other end has ended.
    async fn take_all(&self, channel: &Channel) -> Result<(), End> {
        if !channel.is_ours() {
            return Err(End::Stranger);
        }
        let mut buffer = vec![0; LONGEST];
        let hello = timeout(PATIENCE, channel.receive(&mut buffer)).await.map_err(|_| End::Silent)??;
        match Message::decode(&buffer[..hello.length]) {
            Ok((Message::Hello { n }, _)) if n == self.place.n() => return Err(End::Self_),
            Ok((Message::Hello { .. }, _)) => {}
            _ if hello.length == 0 => return Ok(()),
            other => return Err(End::Malformed(format!("{other:?}"))),
        }
        channel.try_send(&Message::Welcome { n: self.place.n() }.encode())?;
        loop {
            match channel.receive(&mut buffer).await {
                Ok(Packet { length: 0, .. }) => return Ok(()),
                // It has died.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                Ok(packet) => self.take(channel, packet, &buffer)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take(&self, channel: &Channel, mut packet: Packet, buffer: &[u8]) -> Result<(), End> {
        let travelling = match Message::decode(&buffer[..packet.length]) {
            Ok((Message::Connection(travelling), _)) => travelling,
            other => return Err(End::Malformed(format!("{other:?}"))),
        };
        let descriptor = match packet.descriptors.pop() {
            _ if packet.length >= LONGEST => Err(Reason::Unfit),
            Some(descriptor) if packet.descriptors.is_empty() && !packet.truncated => Ok(descriptor),
            // The kernel drops a descriptor for which this process has no room.
            None if packet.truncated => Err(Reason::Descriptors),
            _ => Err(Reason::Unfit),
        };
        let answer = descriptor.and_then(|descriptor| {
            // What the connection needs, before it is ours.
            let permit = self.permits.clone().try_acquire_owned().map_err(|_| Reason::Full)?;
            let open = self.watch.open(permit, ago(travelling.idle)).ok_or(Reason::Retiring)?;
            match Received::new(descriptor) {
                Ok(received) => Ok(Some((received, open))),
                Err(Unfit::Gone) => Ok(None),
                Err(error) => {
                    tracing::warn!(%error, "a descriptor that was handed over is refused");
                    Err(Reason::Unfit)
                }
            }
        });
        let said = match &answer {
            Ok(_) => Message::Took,
            Err(reason) => {
                tracing::warn!(?reason, "a connection that was handed over is refused");
                Message::Refused(*reason)
            }
        };
        let is_ours = self.answer(channel, &said, &travelling)?;
        if let Ok(Some((received, open))) = answer
            && is_ours
        {
            let Travelling { fresh, head, ahead, .. } = travelling;
            let io = Io::received(received, fresh, head.map(ago), &ahead, self.watch.clone(), open);
            self.watch.count_taken();
            tokio::spawn(connection::serve(io, self.router.clone(), self.watch.clone()));
        }
        Ok(())
    }

    /// Whether what was acknowledged belongs to this instance. An acknowledgement fails where the sender has taken back, or
    /// has died: the first it does not do before the time that it names, unless this instance retires.
    fn answer(&self, channel: &Channel, said: &Message, travelling: &Travelling) -> Result<bool, End> {
        match channel.try_send(&said.encode()) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                Ok(Monotonic::now() < travelling.valid_until && !self.watch.stage().is_retiring())
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn ago(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_sub(time).unwrap_or(now)
}
