//! Who retires in favour of this instance, as this instance sees it.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout},
};

use crate::{
    connection,
    drain::Watch,
    io::Io,
    listener::ACCEPT_AGAIN,
    message::{LONGEST, Malformed, Message, Monotonic, Reason, Travelling},
    packet::{Channel, Listener, Packet},
    parked::{Parked, Received, Unfit},
    place::Place,
    resting::Resting,
    routes::Routes,
    said::Said,
    successor::PATIENCE,
};

/// Instances that may retire at once in favour of one. Each keeps its channel until its last request has ended, ten minutes
/// maybe, and all of them call the next one at the same moment.
pub(crate) const CHANNELS: usize = 256;
/// The longest greeting, whatever a later version adds to it.
pub(crate) const GREETING: usize = 64;

/// Takes in what other instances hand over.
#[derive(Clone)]
pub(crate) struct Intake {
    pub place: Place,
    pub routes: Routes,
    pub watch: Watch,
    /// The connections that may be open, of those that are accepted and those that are handed in together.
    pub permits: Arc<Semaphore>,
}

/// A connection that was handed in.
enum Guest {
    /// Nothing of a next message has come with it.
    Rests(Resting),
    Speaks(Box<Io>),
}

/// An intake that is open.
pub(crate) struct Door {
    place: Place,
    /// Dropped, it tells the task to end.
    open: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Door {
    /// Returns when nothing will be taken in any more, and what had been sent by then has been.
    ///
    /// Nobody takes that back who has died since.
    pub(crate) async fn close(self) {
        let Self { place, open, task } = self;
        if let Err(error) = place.leave() {
            tracing::warn!("cannot take the handover socket away: {error}");
        }
        drop(open);
        // It never panics, and nobody aborts it.
        let _ = task.await;
    }
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
    /// Lets other instances find this one.
    pub(crate) fn open(self) -> io::Result<Door> {
        let (listener, place) = (self.place.listen()?, self.place.clone());
        let (open, closing) = watch::channel(());
        Ok(Door { place, open, task: tokio::spawn(self.run(listener, closing)) })
    }

    async fn run(self, listener: Listener, mut closing: watch::Receiver<()>) {
        let (mut channels, flooded, deaf) = (JoinSet::new(), Said::default(), Said::default());
        loop {
            tokio::select! {
                // An error is the end of the other half.
                _ = closing.changed() => break,
                accepted = listener.accept() => match accepted {
                    Ok(_) if channels.len() >= CHANNELS => {
                        if flooded.begins() {
                            tracing::warn!("{CHANNELS} instances retire at once; others are refused");
                        }
                    }
                    Ok(channel) => {
                        flooded.ends();
                        deaf.ends();
                        channels.spawn(self.clone().hear(channel, closing.clone()));
                    }
                    Err(error) => {
                        if deaf.begins() {
                            tracing::warn!("cannot hear an instance that retires: {error}");
                        }
                        sleep(ACCEPT_AGAIN).await;
                    }
                },
                Some(_) = channels.join_next() => {}
            }
        }
        // Whoever waits there to be accepted finds another.
        drop(listener);
        while channels.join_next().await.is_some() {}
    }

    async fn hear(self, channel: Channel, closing: watch::Receiver<()>) {
        if let Err(error) = self.take_all(&channel, closing).await {
            tracing::warn!("refused an instance that wants to hand over: {error}");
        }
    }

    /// Returns when the other end has ended, or when this instance takes in no more.
    async fn take_all(&self, channel: &Channel, mut closing: watch::Receiver<()>) -> Result<(), End> {
        if !channel.is_ours() {
            return Err(End::Stranger);
        }
        tokio::select! {
            welcomed = timeout(PATIENCE, self.welcome(channel)) => welcomed.map_err(|_| End::Silent)??,
            _ = closing.changed() => return Ok(()),
        }
        let (mut buffer, mut told) = (vec![0; LONGEST], false);
        loop {
            let packet = tokio::select! {
                _ = closing.changed() => break,
                packet = channel.receive(&mut buffer) => packet,
            };
            let packet = match packet {
                Ok(Packet { length: 0, .. }) => return Ok(()),
                packet => packet?,
            };
            if let Some(reason) = self.take(channel, packet, &buffer)?
                && !std::mem::replace(&mut told, true)
            {
                tracing::warn!("no room for what is handed over (APP_CONNECTIONS, LimitNOFILE=): {reason:?}");
            }
        }
        // From here on nothing can be sent. What was is taken: its sender may be dead, and take nothing back.
        channel.refuse_more()?;
        while let Some(packet) = channel.try_receive(&mut buffer)? {
            self.take(channel, packet, &buffer)?;
        }
        Ok(())
    }

    async fn welcome(&self, channel: &Channel) -> Result<(), End> {
        let mut buffer = [0; GREETING];
        let hello = channel.receive(&mut buffer).await?;
        match Message::decode(&buffer[..hello.length])?.0 {
            Message::Hello { n } if n == self.place.n() => Err(End::Itself),
            Message::Hello { .. } => Ok(channel.try_send(&Message::Welcome { n: self.place.n() }.encode())?),
            _ => Err(End::OutOfTurn),
        }
    }

    /// Returns why the connection is not taken, where there is no room for it; the error is what ends the channel.
    fn take(&self, channel: &Channel, packet: Packet, buffer: &[u8]) -> Result<Option<Reason>, End> {
        let Message::Connection(travelling) = Message::decode(&buffer[..packet.length])?.0 else {
            return Err(End::OutOfTurn);
        };
        let valid_until = travelling.valid_until;
        match self.admit(packet, travelling) {
            Ok(guest) => {
                let is_ours = self.answer(channel, &Message::Took, valid_until)?;
                if let Some(guest) = guest.filter(|_| is_ours) {
                    self.serve(guest);
                }
                Ok(None)
            }
            Err(reason) => {
                self.answer(channel, &Message::Refused(reason), valid_until)?;
                if reason == Reason::Unfit { Err(End::Unfit) } else { Ok(Some(reason)) }
            }
        }
    }

    /// Waits for its client before it is acknowledged: whatever can fail fails while it is the sender's. `None` where its client
    /// has gone.
    fn admit(&self, packet: Packet, travelling: Travelling) -> Result<Option<Guest>, Reason> {
        let Received { socket, peer } = match Received::new(descriptor_of(packet)?) {
            Ok(received) => received,
            Err(Unfit::Gone) => return Ok(None),
            Err(Unfit::Kind) => return Err(Reason::Unfit),
            Err(Unfit::Room) => return Err(Reason::Descriptors),
        };
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| Reason::Full)?;
        let open = self.watch.open(permit, ago(travelling.idle)).ok_or(Reason::Full)?;
        let Travelling { fresh, head, ahead, .. } = travelling;
        let mut parked =
            Parked { socket, peer, ahead: ahead.as_slice().into(), fresh, head_since: head.map(ago), open };
        if !fresh && ahead.is_empty() {
            match self.watch.begin_rest(parked) {
                Ok(resting) => return Ok(Some(Guest::Rests(resting))),
                Err(back) => parked = *back,
            }
        }
        let io = Io::resume(parked, self.watch.clone()).map_err(|_| Reason::Descriptors)?;
        Ok(Some(Guest::Speaks(Box::new(io))))
    }

    fn serve(&self, guest: Guest) {
        self.watch.count_taken();
        let (routes, watch) = (self.routes.clone(), self.watch.clone());
        match guest {
            Guest::Speaks(io) => drop(tokio::spawn(connection::serve(io, routes, watch))),
            Guest::Rests(resting) => resting.leave(),
        }
    }

    /// Whether what was acknowledged belongs to this instance. An acknowledgement fails where the sender has taken back, or
    /// has died: the first it does not do before the time that it names, as long as this instance keeps the channel open.
    fn answer(&self, channel: &Channel, said: &Message, valid_until: Monotonic) -> Result<bool, End> {
        match channel.try_send(&said.encode()) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                Ok(Monotonic::now() < valid_until)
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
