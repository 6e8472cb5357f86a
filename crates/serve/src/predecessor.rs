//! Who retires in favour of this instance, as this instance sees it.

use std::{convert::Infallible, io, os::fd::OwnedFd, sync::Arc, time::Duration};

use axum::Router;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    connection,
    drain::{Open, Watch},
    io::Io,
    message::{LONGEST, Malformed, Message, Monotonic, Reason, Travelling},
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
    Itself,
    #[error("it says what nobody understands: {0}")]
    Malformed(#[from] Malformed),
    #[error("it says what it has not been asked for")]
    OutOfTurn,
    #[error("it sends what is no client's connection: one TCP or Unix stream socket that is connected")]
    Unfit,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Intake {
    /// Runs until it is dropped; its channels end with it. What is still on its way then is taken back by its sender.
    pub(crate) async fn run(self, listener: Listener) -> Infallible {
        let (mut channels, mut flooded) = (JoinSet::new(), false);
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(_) if channels.len() >= CHANNELS => {
                        if !flooded {
                            tracing::warn!("{CHANNELS} instances retire at once; others are refused");
                        }
                        flooded = true;
                    }
                    Ok(channel) => {
                        flooded = false;
                        channels.spawn(self.clone().serve(channel));
                    }
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
            tracing::warn!("refused an instance that wants to hand over: {error}");
        }
    }

    /// Returns when the other end has ended.
    async fn take_all(&self, channel: &Channel) -> Result<(), End> {
        if !channel.is_ours() {
            return Err(End::Stranger);
        }
        let mut buffer = vec![0; LONGEST];
        let hello = timeout(PATIENCE, channel.receive(&mut buffer)).await.map_err(|_| End::Silent)??;
        match Message::decode(&buffer[..hello.length])?.0 {
            Message::Hello { n } if n == self.place.n() => return Err(End::Itself),
            Message::Hello { .. } => {}
            _ => return Err(End::OutOfTurn),
        }
        channel.try_send(&Message::Welcome { n: self.place.n() }.encode())?;
        let mut told = false;
        loop {
            let packet = match channel.receive(&mut buffer).await {
                Ok(Packet { length: 0, .. }) => return Ok(()),
                // It has died.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                packet => packet?,
            };
            if let Some(reason) = self.take(channel, packet, &buffer)?
                && !std::mem::replace(&mut told, true)
            {
                tracing::warn!(?reason, "no room for what is handed over (APP_CONNECTIONS, LimitNOFILE=)");
            }
        }
    }

    /// Returns why the connection is not taken, where there is no room for it; the error is what ends the channel.
    fn take(&self, channel: &Channel, packet: Packet, buffer: &[u8]) -> Result<Option<Reason>, End> {
        let Message::Connection(travelling) = Message::decode(&buffer[..packet.length])?.0 else {
            return Err(End::OutOfTurn);
        };
        match self.admit(packet, &travelling) {
            Ok(admitted) => {
                let is_ours = self.answer(channel, &Message::Took, &travelling)?;
                if let Some((received, open)) = admitted.filter(|_| is_ours) {
                    self.serve_taken(received, open, travelling);
                }
                Ok(None)
            }
            Err(reason) => {
                self.answer(channel, &Message::Refused(reason), &travelling)?;
                if reason == Reason::Unfit { Err(End::Unfit) } else { Ok(Some(reason)) }
            }
        }
    }

    /// What the connection needs, before it is acknowledged; `None` where its client has gone.
    fn admit(&self, packet: Packet, travelling: &Travelling) -> Result<Option<(Received, Open)>, Reason> {
        let received = match Received::new(descriptor_of(packet)?) {
            Ok(received) => received,
            Err(Unfit::Gone) => return Ok(None),
            Err(Unfit::Kind) => return Err(Reason::Unfit),
            Err(Unfit::Room) => return Err(Reason::Descriptors),
        };
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| Reason::Full)?;
        let open = self.watch.open(permit, ago(travelling.idle)).ok_or(Reason::Full)?;
        Ok(Some((received, open)))
    }

    fn serve_taken(&self, received: Received, open: Open, travelling: Travelling) {
        let Travelling { fresh, head, ahead, .. } = travelling;
        let io = Io::received(received, fresh, head.map(ago), &ahead, self.watch.clone(), open);
        self.watch.count_taken();
        tokio::spawn(connection::serve(io, self.router.clone(), self.watch.clone()));
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

fn descriptor_of(mut packet: Packet) -> Result<OwnedFd, Reason> {
    match packet.descriptors.pop() {
        Some(descriptor) if packet.descriptors.is_empty() && !packet.truncated => Ok(descriptor),
        // The kernel drops a descriptor for which this process has no room.
        None if packet.truncated && packet.length < LONGEST => Err(Reason::Descriptors),
        _ => Err(Reason::Unfit),
    }
}

fn ago(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_sub(time).unwrap_or(now)
}
