//! The public socket's queue.

use std::{convert::Infallible, io, sync::Arc};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    connection,
    drain::{GRACE_ALONE, Phase, Phases, Watch},
    io::Io,
    listener::{ACCEPT_AGAIN, Accepting, Owner},
    parked::{Received, Unfit},
    routes::Routes,
    said::Said,
    stream::{Peer, Stream},
};

/// Accepts connections, and serves each in a task of its own.
#[derive(Debug)]
pub(crate) struct Acceptor {
    pub listener: Accepting,
    pub owner: Owner,
    pub routes: Routes,
    pub watch: Watch,
    /// One for each connection that may be open.
    pub permits: Arc<Semaphore>,
    pub said: Troubles,
}

/// What may keep clients in the queue.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    full: Said,
    failing: Said,
}

impl Acceptor {
    /// Beyond the most connections, clients wait in the socket's queue. Cancel safe.
    pub(crate) async fn run(&self) -> Infallible {
        loop {
            let permit = self.permit().await;
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.said.failing.ends();
                    self.serve(stream, peer, permit);
                }
                Err(error) => self.wait_after(&error).await,
            }
        }
    }

    /// Returns when this instance will accept nothing any more.
    ///
    /// With a successor that is at once: it takes what waits in the queue. Alone, nobody would: what waits in a parent's
    /// socket when that is closed (a host shuts down) is reset. So the queue is emptied through the grace.
    pub(crate) async fn close(self, phases: Phases) {
        let (mut watch, stage) = (self.watch.clone(), phases.known().await);
        match (stage.phase, self.owner) {
            (Phase::Alone, Owner::Parent) => tokio::select! {
                never = self.run() => match never {},
                // Who came before the end may wait there still: this task does not run at every moment.
                () = sleep_until(stage.since + GRACE_ALONE) => self.empty(),
                () = watch.leaves(stage) => {}
            },
            // Nobody can come to a queue that ends with the process: what waits there is all that ever will.
            (Phase::Alone, Owner::Process) => self.empty(),
            _ => {}
        }
    }

    fn empty(&self) {
        while let Ok(permit) = self.permits.clone().try_acquire_owned() {
            match self.listener.accept_now() {
                Ok(Some(Received { socket, peer })) => match Stream::unpark(socket, &peer) {
                    Ok(stream) => self.serve(stream, peer, permit),
                    Err(_) => return,
                },
                Err(Unfit::Gone) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn serve(&self, stream: Stream, peer: Peer, permit: OwnedSemaphorePermit) {
        // Nothing is accepted any more once the drain is over.
        let Some(open) = self.watch.open(permit, Instant::now()) else { return };
        self.watch.count_accepted();
        let io = Box::new(Io::new(stream, peer, self.watch.clone(), open));
        tokio::spawn(connection::serve(io, self.routes.clone(), self.watch.clone()));
    }

    async fn permit(&self) -> OwnedSemaphorePermit {
        if self.permits.available_permits() > 0 {
            self.said.full.ends();
        } else if self.said.full.begins() {
            tracing::warn!("as many connections are open as may be (APP_CONNECTIONS); others wait");
        }
        self.permits.clone().acquire_owned().await.unwrap_or_else(|_| unreachable!("it is never closed"))
    }

    /// A client that has gone again costs nothing; what may last (EMFILE, ENFILE, ENOMEM) must not spin (accept(2)).
    async fn wait_after(&self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
            return;
        }
        if self.said.failing.begins() {
            tracing::warn!(%error, "cannot accept a connection; others wait");
        }
        sleep(ACCEPT_AGAIN).await;
    }
}
