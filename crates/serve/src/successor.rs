//! Who takes over from an instance that retires, as that instance sees it.
//!
//! A connection belongs to its sender until the successor has acknowledged it. The sender takes back what is not
//! acknowledged in time by shutting its receiving side: the kernel either has the acknowledgement by then, or refuses it to
//! the successor, which drops its descriptor.

use std::{collections::VecDeque, convert::Infallible, future::Future, io, os::fd::AsFd, pin::pin, time::Duration};

use rustix::io::Errno;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::{
    drain::{Phase, Phases},
    message::{LONGEST, MOST_BYTES, Message, Monotonic, Travelling, VERSION},
    offer::{Offer, Offers},
    packet::{Channel, Packet},
    place::Place,
    predecessor::GREETING,
    said::Said,
};

/// How long an answer may take, of an instance that lives.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// How soon an instance that has found nobody looks again.
const SEEK_AGAIN: Duration = Duration::from_secs(1);
/// How often those are listed who may serve, as long as they come and go while they are asked.
const ROUNDS: usize = 8;

/// Finds successors, as long as it runs, and gives them what is offered.
#[derive(Debug)]
pub(crate) struct Succession {
    place: Option<Place>,
    phases: Phases,
    offers: Offers,
    /// Came back from one successor, for the next.
    waiting: VecDeque<Offer>,
    /// That nobody can be looked for.
    blind: Said,
}

/// An instance that serves.
struct Found {
    n: u64,
    version: u8,
    channel: Channel,
}

/// A connection that has been sent and not been acknowledged.
struct Sent {
    offer: Offer,
    at: Instant,
}

impl Sent {
    /// When it is taken back, unless it is answered.
    fn patience(&self) -> Instant {
        self.at + PATIENCE
    }
}

impl Succession {
    pub(crate) fn new(place: Option<Place>, phases: Phases, offers: Offers) -> Self {
        Self { place, phases, offers, waiting: VecDeque::new(), blind: Said::default() }
    }

    /// Dropped, it leaves what was offered and not taken to be closed.
    pub(crate) async fn run(mut self) -> Infallible {
        loop {
            match self.seek().await {
                Some(found) if found.version == VERSION => {
                    tracing::info!(successor = found.n, "handing over to instance {}", found.n);
                    self.phases.to(Phase::HandingOver);
                    self.hand_over(found).await;
                }
                Some(Found { n, version, channel }) => {
                    tracing::info!(successor = n, version, "instance {n} takes no connections of version {VERSION}");
                    self.phases.to(Phase::Succeeded);
                    self.give_back_until(ended(channel)).await;
                }
                None => {
                    self.phases.to(Phase::Alone);
                    self.give_back_until(sleep(SEEK_AGAIN)).await;
                }
            }
        }
    }

    /// The first that answers of those that may serve. Where they are others by then, one may serve that was not there when
    /// they were listed; where they are the same, nobody has begun to serve, and whoever did does not answer.
    async fn seek(&mut self) -> Option<Found> {
        let place = self.place.as_ref()?;
        let mut others = listed(place, &self.blind);
        for _ in 0..ROUNDS {
            for n in &others {
                match greet(place, *n).await {
                    Ok(found) => return Some(found),
                    Err(error) => tracing::debug!(n, "is no successor: {error}"),
                }
            }
            let asked = std::mem::replace(&mut others, listed(place, &self.blind));
            if others == asked {
                return None;
            }
        }
        None
    }

    async fn give_back_until(&mut self, end: impl Future<Output = ()>) {
        self.waiting.drain(..).for_each(Offer::give_back);
        let mut end = pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return,
                Some(offer) = self.offers.recv() => offer.give_back(),
            }
        }
    }

    /// Returns when the successor has died, hangs or retires. What it has not acknowledged waits for the next.
    async fn hand_over(&mut self, Found { n, channel, .. }: Found) {
        let (mut sent, mut next) = (VecDeque::new(), None);
        let why = self.send_all(&channel, &mut sent, &mut next).await;
        tracing::info!(successor = n, unanswered = sent.len(), "instance {n} takes no more: {why}");
        // The cut: an acknowledgement has arrived by now, or never does.
        if let Err(error) = channel.refuse_more() {
            tracing::debug!(%error, "it is gone");
        }
        let mut buffer = vec![0; LONGEST];
        while let Ok(Some(packet)) = channel.try_receive(&mut buffer) {
            // Nothing comes of it any more, whatever it says.
            let _ = heard(&buffer[..packet.length], &mut sent);
        }
        for Sent { offer, .. } in sent.into_iter().chain(next.map(|(sent, _)| sent)).rev() {
            self.waiting.push_front(offer);
        }
    }

    /// Returns why no more can be sent. What is `next` has not been.
    async fn send_all(
        &mut self,
        channel: &Channel,
        sent: &mut VecDeque<Sent>,
        next: &mut Option<(Sent, Vec<u8>)>,
    ) -> String {
        let mut buffer = vec![0; LONGEST];
        let (mut too_many, mut ending) = (false, false);
        loop {
            let patience = sent.front().map(Sent::patience);
            let patience = patience.or_else(|| ending.then(|| Instant::now() + PATIENCE));
            tokio::select! {
                biased;
                received = channel.receive(&mut buffer) => {
                    let said = match received {
                        Ok(Packet { length: 0, .. }) => return "it has ended".to_owned(),
                        Ok(packet) => heard(&buffer[..packet.length], sent),
                        Err(error) => Err(format!("it has ended: {error}")),
                    };
                    if let Err(why) = said {
                        return why;
                    }
                    too_many = false;
                }
                () = at(patience) => return "it does not answer".to_owned(),
                result = send(channel, next.as_ref()), if next.is_some() && !too_many && !ending => {
                    let Some((this, bytes)) = next.take() else { continue };
                    match result {
                        Ok(()) => sent.push_back(Sent { at: Instant::now(), ..this }),
                        // Too many descriptors are on their way: others will do when some have arrived.
                        Err(error) if is(&error, Errno::TOOMANYREFS) && !sent.is_empty() => {
                            (*next, too_many) = (Some((this, bytes)), true);
                        }
                        Err(error) if is(&error, Errno::TOOMANYREFS) || is(&error, Errno::MSGSIZE) => {
                            tracing::warn!(%error, "a connection stays");
                            this.offer.refuse();
                        }
                        // It takes no more, and goes on to answer what it has: the end comes after its last answer.
                        Err(_) => (*next, ending) = (Some((this, bytes)), true),
                    }
                }
                offer = offered(&mut self.waiting, &mut self.offers), if next.is_none() => {
                    *next = pack(offer, sent.front());
                }
            }
        }
    }
}

/// Each message answers the connection whose turn it is: whatever is no acknowledgement is a refusal. The error is why nothing
/// more can come of this successor.
fn heard(bytes: &[u8], sent: &mut VecDeque<Sent>) -> Result<(), String> {
    let Some(Sent { offer, .. }) = sent.pop_front() else {
        return Err("it answers what it was not asked".to_owned());
    };
    let said = Message::decode(bytes);
    if let Ok((Message::Took, _)) = said {
        offer.taken();
        return Ok(());
    }
    tracing::debug!(?said, "a connection is refused, and stays");
    offer.refuse();
    match said {
        Ok((Message::Refused(_), _)) => Ok(()),
        Ok(_) => Err("it says what it has not been asked for".to_owned()),
        Err(error) => Err(format!("it says what nobody understands: {error}")),
    }
}

/// Who may serve beside this instance.
fn listed(place: &Place, blind: &Said) -> Vec<u64> {
    place.others().inspect(|_| blind.ends()).unwrap_or_else(|error| {
        if blind.begins() {
            tracing::warn!("cannot look for a successor: {error}");
        }
        Vec::new()
    })
}

/// Asks an instance whether it serves.
async fn greet(place: &Place, n: u64) -> io::Result<Found> {
    let channel = place.call(n)?;
    if !channel.is_ours() {
        tracing::warn!(n, "another user's process stands where instance {n} would");
        return Err(io::Error::other("it is another user's"));
    }
    channel.try_send(&Message::Hello { n: place.n() }.encode())?;
    let mut buffer = [0; GREETING];
    let packet = timeout(PATIENCE, channel.receive(&mut buffer)).await??;
    if packet.length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    match Message::decode(&buffer[..packet.length]).map_err(io::Error::other)? {
        (Message::Welcome { n }, version) => Ok(Found { n, version, channel }),
        _ => Err(io::Error::other("it answers what it was not asked")),
    }
}

/// What a connection says of itself; `None` where it is too long to travel, and stays. With the first that waits for its
/// answer all behind it are taken back.
fn pack(offer: Offer, first: Option<&Sent>) -> Option<(Sent, Vec<u8>)> {
    if offer.parked.ahead.len() > MOST_BYTES {
        offer.refuse();
        return None;
    }
    let valid_for = first.map_or(PATIENCE, |first| first.patience().saturating_duration_since(Instant::now()));
    let parked = &offer.parked;
    let message = Message::Connection(Travelling {
        fresh: parked.fresh,
        idle: parked.open.exchange().idle_since().elapsed(),
        head: parked.head_since.map(|since| since.elapsed()),
        valid_until: Monotonic::now().after(valid_for),
        ahead: parked.ahead.to_vec(),
    });
    Some((Sent { offer, at: Instant::now() }, message.encode()))
}

async fn send(channel: &Channel, next: Option<&(Sent, Vec<u8>)>) -> io::Result<()> {
    match next {
        Some((sent, bytes)) => channel.send(bytes, Some(sent.offer.parked.socket.as_fd())).await,
        None => std::future::pending().await,
    }
}

async fn offered(waiting: &mut VecDeque<Offer>, offers: &mut Offers) -> Offer {
    match waiting.pop_front() {
        Some(offer) => offer,
        // Nobody is left to offer: the end is near.
        None => match offers.recv().await {
            Some(offer) => offer,
            None => std::future::pending().await,
        },
    }
}

/// Returns when whoever speaks another version retires or dies: then it ends its channel.
async fn ended(channel: Channel) {
    let mut buffer = [0; GREETING];
    loop {
        match channel.receive(&mut buffer).await {
            Ok(Packet { length: 0, .. }) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}
