//! The handover's protocol, explored in every order of start, retire, seek, send, receive, acknowledge, take back and die.
//!
//! Three instances, of which the last starts some time, and two connections. A step here is a step of `successor.rs` (the sender's end of a channel) or of
//! `predecessor.rs` (the receiver's) between which another process can run, or die. What the kernel keeps, it keeps here: what
//! a dead process had sent can still be received; what it had not read is dropped, with the descriptors in it.

use stateright::{Checker, HasDiscoveries, Model, Property};

const INSTANCES: usize = 3;
const CONNECTIONS: usize = 2;

/// How the protocol is played: as it is, or with a cure taken out.
#[derive(Clone, Copy, Debug, Default)]
struct Protocol {
    /// All about who is found: the third starts some time, one that serves may not answer, and there is one connection. Else
    /// all three serve, each is found at once, and there are two.
    is_about_the_search: bool,
    /// The receiver takes its acknowledgement for heard, whatever sending it says.
    ignores_a_failed_acknowledgement: bool,
    /// The receiver drops what it could not acknowledge, though its sender may be dead.
    drops_what_it_could_not_acknowledge: bool,
    /// The sender takes back without shutting its receiving side.
    takes_back_without_the_cut: bool,
    /// The sender reads no acknowledgement that came before the successor's death.
    forgets_what_the_dead_had_said: bool,
    /// The sender takes back as soon as it can send no more.
    takes_back_before_the_end: bool,
    /// The receiver drops what it has not received when it retires.
    retires_without_reading_on: bool,
    /// Who retires looks once for those who serve, whoever comes while they are asked.
    looks_once: bool,
}

fn search() -> Protocol {
    Protocol { is_about_the_search: true, ..Protocol::default() }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Life {
    Starting,
    Serving,
    Retiring,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Held {
    Not,
    /// It answers what comes.
    Owned,
    /// It was sent to the successor, which has not answered.
    Sent,
}

/// From one that retires to one that serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Channel {
    /// Sent and not received.
    on_its_way: Vec<usize>,
    /// Received, and not answered.
    received: Option<usize>,
    /// Answers that the sender has not read: of which connection, and whether it was taken.
    answers: Vec<(usize, bool)>,
    /// The time until which the sender does not take back has passed.
    late: bool,
    /// The sender has shut its receiving side.
    cut: bool,
    /// The receiver has shut its receiving side: nothing more can be sent, and it answers what was.
    ending: bool,
}

impl Channel {
    /// The receiver has answered all that was sent, and closed its end; or it died.
    fn is_closed(&self) -> bool {
        self.ending && self.on_its_way.is_empty() && self.received.is_none()
    }
}

/// How far one that retires is with its search for a successor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Search {
    /// Who was there to be asked when it looked, if it has.
    listed: Option<[bool; INSTANCES]>,
    /// Who is no successor.
    asked: [bool; INSTANCES],
    /// It has found nobody: what it has is answered with a last response, and closed.
    alone: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Host {
    lives: [Life; INSTANCES],
    held: [[Held; CONNECTIONS]; INSTANCES],
    channels: [[Option<Channel>; INSTANCES]; INSTANCES],
    searches: [Search; INSTANCES],
    /// Closed politely by an instance that was alone.
    closed: [bool; CONNECTIONS],
    /// A process was killed that owned it; or that had sent it, and the receiver refused it, or hung.
    killed: [bool; CONNECTIONS],
    deaths: u8,
    /// One that serves has not answered in time.
    hung: bool,
    /// There was a moment at which one retired and nobody served.
    gap: bool,
    /// For the properties that say what must happen somewhere.
    seen: Seen,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Seen {
    taken_back: bool,
    acknowledgement_failed: bool,
    served_for_the_dead: bool,
    found_later: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Start(usize),
    Retire(usize),
    Kill(usize),
    Look(usize),
    Connect(usize, usize),
    PassOver(usize, usize),
    Conclude(usize),
    Send(usize, usize, usize),
    Receive(usize, usize),
    Answer(usize, usize, bool),
    Late(usize, usize),
    Cut(usize, usize),
    Hear(usize, usize),
    TakeBack(usize, usize),
    Close(usize, usize),
}

impl Host {
    fn owners(&self, connection: usize) -> usize {
        (0..INSTANCES).filter(|i| self.held[*i][connection] == Held::Owned).count()
    }

    /// Whether one may die, or hang: no two do.
    fn may_fail(&self) -> bool {
        self.deaths == 0 && !self.hung
    }

    /// Who can be seen by one that looks: a dead one leaves its socket behind.
    fn others(&self, of: usize) -> [bool; INSTANCES] {
        std::array::from_fn(|i| i != of && matches!(self.lives[i], Life::Serving | Life::Dead))
    }

    /// What one that retires can do about a successor, as long as it has none.
    fn search(&self, protocol: &Protocol, from: usize, steps: &mut Vec<Step>) {
        let serving = |to: &usize| self.lives[*to] == Life::Serving;
        if !protocol.is_about_the_search {
            return steps.extend((0..INSTANCES).filter(serving).map(|to| Step::Connect(from, to)));
        }
        let Search { listed, asked, .. } = self.searches[from];
        let Some(listed) = listed else { return steps.push(Step::Look(from)) };
        if listed == asked {
            return steps.push(Step::Conclude(from));
        }
        // The newest first.
        let Some(to) = (0..INSTANCES).rev().find(|to| listed[*to] && !asked[*to]) else { return };
        if serving(&to) {
            steps.push(Step::Connect(from, to));
        }
        if !serving(&to) || self.may_fail() {
            steps.push(Step::PassOver(from, to));
        }
    }

    /// Whether anything holds the client's connection open.
    fn is_open(&self, connection: usize) -> bool {
        let is_travelling =
            |channel: &Channel| channel.on_its_way.contains(&connection) || channel.received == Some(connection);
        self.held.iter().any(|held| held[connection] != Held::Not)
            || self.channels.iter().flatten().flatten().any(is_travelling)
    }

    fn steps(&self, protocol: &Protocol) -> Vec<Step> {
        let mut steps = Vec::new();
        for from in 0..INSTANCES {
            let retires = self.lives[from] == Life::Retiring;
            for to in (0..INSTANCES).filter(|to| *to != from) {
                let Some(channel) = &self.channels[from][to] else { continue };
                let owned = |c: &usize| self.held[from][*c] == Held::Owned;
                if retires && !channel.cut && !channel.ending {
                    steps.extend((0..CONNECTIONS).filter(owned).map(|c| Step::Send(from, to, c)));
                }
                match channel.received {
                    Some(_) => steps.extend([true, false].map(|takes| Step::Answer(from, to, takes))),
                    None if !channel.on_its_way.is_empty() => steps.push(Step::Receive(from, to)),
                    None => {}
                }
                let is_open = channel.received.is_some() || !channel.on_its_way.is_empty();
                let is_waited_for = (0..CONNECTIONS).any(|c| self.held[from][c] == Held::Sent) || is_open;
                if is_waited_for && !channel.late {
                    steps.push(Step::Late(from, to));
                }
                let is_over = channel.is_closed() || (channel.ending && protocol.takes_back_before_the_end);
                if retires && !channel.cut && (is_over || (channel.late && is_waited_for)) {
                    steps.push(Step::Cut(from, to));
                }
                if retires && !channel.answers.is_empty() {
                    steps.push(Step::Hear(from, to));
                }
                if retires && channel.cut && channel.answers.is_empty() {
                    steps.push(Step::TakeBack(from, to));
                }
            }
            if retires && self.channels[from].iter().all(Option::is_none) {
                self.search(protocol, from, &mut steps);
            }
            let knows_at_once = !protocol.is_about_the_search && !self.lives.contains(&Life::Serving);
            if retires && (self.searches[from].alone || knows_at_once) {
                let owned = (0..CONNECTIONS).filter(|c| self.held[from][*c] == Held::Owned);
                steps.extend(owned.map(|c| Step::Close(from, c)));
            }
        }
        steps
    }

    fn channels_to(&mut self, instance: usize) -> impl Iterator<Item = &mut Channel> {
        self.channels.iter_mut().filter_map(move |from| from[instance].as_mut())
    }

    fn kill(&mut self, instance: usize) {
        let its = |told: fn(&Channel, usize) -> bool, c| self.channels[instance].iter().flatten().any(|ch| told(ch, c));
        let is_its_own = |c| its(|channel, c| channel.late || channel.answers.contains(&(c, false)), c);
        let dies_with_it = |c: usize| match self.held[instance][c] {
            Held::Not => false,
            Held::Owned => true,
            Held::Sent => is_its_own(c),
        };
        let dying: Vec<usize> = (0..CONNECTIONS).filter(|c| dies_with_it(*c)).collect();
        dying.into_iter().for_each(|c| self.killed[c] = true);
        self.held[instance] = [Held::Not; CONNECTIONS];
        (self.lives[instance], self.searches[instance]) = (Life::Dead, Search::default());
        self.deaths += 1;
        for channel in self.channels_to(instance) {
            (channel.ending, channel.received) = (true, None);
            channel.on_its_way.clear();
        }
        // Nobody hears what is still said to it; what it has sent goes on.
        for channel in self.channels[instance].iter_mut().flatten() {
            channel.cut = true;
            channel.answers.clear();
        }
    }

    fn answer(&mut self, protocol: &Protocol, from: usize, to: usize, takes: bool) {
        let Some(channel) = &mut self.channels[from][to] else { return };
        let Some(connection) = channel.received.take() else { return };
        let is_heard = !channel.cut || (protocol.takes_back_without_the_cut && self.lives[from] != Life::Dead);
        if is_heard {
            channel.answers.push((connection, takes));
        }
        let fails_well = !channel.late && !protocol.drops_what_it_could_not_acknowledge;
        let is_ours = is_heard || fails_well || protocol.ignores_a_failed_acknowledgement;
        self.seen.acknowledgement_failed |= !is_heard;
        self.killed[connection] |= !takes && self.lives[from] == Life::Dead;
        if takes && is_ours {
            self.held[to][connection] = Held::Owned;
            self.seen.served_for_the_dead |= !is_heard;
        }
    }
}

impl Model for Protocol {
    type State = Host;
    type Action = Step;

    /// The first has the clients.
    fn init_states(&self) -> Vec<Host> {
        let mut held = [[Held::Not; CONNECTIONS]; INSTANCES];
        held[0] = [Held::Owned; CONNECTIONS];
        let mut lives = [Life::Serving; INSTANCES];
        if self.is_about_the_search {
            (lives[2], held[0][1]) = (Life::Starting, Held::Not);
        }
        vec![Host {
            lives,
            held,
            channels: Default::default(),
            searches: Default::default(),
            closed: [false; CONNECTIONS],
            // One that nobody has is as good as dead.
            killed: [false, self.is_about_the_search],
            deaths: 0,
            hung: false,
            gap: false,
            seen: Seen::default(),
        }]
    }

    fn actions(&self, host: &Host, steps: &mut Vec<Step>) {
        steps.extend(host.steps(self));
        for instance in (0..INSTANCES).filter(|i| host.lives[*i] != Life::Dead) {
            if host.may_fail() {
                steps.push(Step::Kill(instance));
            }
            match host.lives[instance] {
                Life::Starting => steps.push(Step::Start(instance)),
                Life::Serving => steps.push(Step::Retire(instance)),
                Life::Retiring | Life::Dead => {}
            }
        }
    }

    fn next_state(&self, host: &Host, step: Step) -> Option<Host> {
        let mut host = host.clone();
        match step {
            Step::Start(i) => host.lives[i] = Life::Serving,
            Step::Look(i) => host.searches[i].listed = Some(host.others(i)),
            Step::PassOver(from, to) => {
                host.searches[from].asked[to] = true;
                host.hung |= host.lives[to] == Life::Serving;
            }
            Step::Conclude(i) => {
                let others = host.others(i);
                let Search { listed, alone, .. } = host.searches[i];
                let again = !self.looks_once && listed != Some(others);
                host.searches[i] =
                    Search { listed: again.then_some(others), alone: alone || !again, ..Search::default() };
                host.seen.found_later |= again;
            }
            Step::Retire(i) => {
                host.lives[i] = Life::Retiring;
                for channel in host.channels_to(i) {
                    channel.ending = true;
                    if self.retires_without_reading_on {
                        channel.on_its_way.clear();
                    }
                }
            }
            Step::Kill(i) => host.kill(i),
            Step::Connect(from, to) => {
                host.channels[from][to] = Some(Channel::default());
                host.searches[from] = Search::default();
            }
            Step::Send(from, to, connection) => {
                host.held[from][connection] = Held::Sent;
                host.channels[from][to].as_mut()?.on_its_way.push(connection);
            }
            Step::Receive(from, to) => {
                let channel = host.channels[from][to].as_mut()?;
                channel.received = Some(channel.on_its_way.remove(0));
            }
            Step::Answer(from, to, takes) => host.answer(self, from, to, takes),
            Step::Late(from, to) => {
                let is_dead = host.lives[from] == Life::Dead;
                let channel = host.channels[from][to].as_mut()?;
                channel.late = true;
                for connection in channel.on_its_way.iter().chain(&channel.received).filter(|_| is_dead) {
                    host.killed[*connection] = true;
                }
            }
            Step::Cut(from, to) => {
                let channel = host.channels[from][to].as_mut()?;
                channel.cut = true;
                if self.forgets_what_the_dead_had_said && host.lives[to] == Life::Dead {
                    channel.answers.clear();
                }
            }
            Step::Hear(from, to) => {
                let (connection, taken) = host.channels[from][to].as_mut()?.answers.remove(0);
                host.held[from][connection] = if taken { Held::Not } else { Held::Owned };
            }
            Step::TakeBack(from, to) => {
                for held in host.held[from].iter_mut().filter(|held| **held == Held::Sent) {
                    *held = Held::Owned;
                    host.seen.taken_back = true;
                }
                // What the receiver holds of it goes on there; a channel that both have left is gone.
                let channel = host.channels[from][to].as_mut()?;
                if channel.received.is_none() && channel.on_its_way.is_empty() {
                    host.channels[from][to] = None;
                }
            }
            Step::Close(from, connection) => {
                host.held[from][connection] = Held::Not;
                host.closed[connection] = true;
            }
        }
        let is = |life| host.lives.contains(&life);
        host.gap |= is(Life::Retiring) && !is(Life::Serving);
        Some(host)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let always = [
            Property::always("no connection is served by two processes", |_, host: &Host| {
                (0..CONNECTIONS).all(|c| host.owners(c) <= 1)
            }),
            Property::always(
                "no connection is lost that had not reached the process that was killed",
                |_, host: &Host| (0..CONNECTIONS).all(|c| host.is_open(c) || host.closed[c] || host.killed[c]),
            ),
            Property::always(
                "none is leaked: at rest, each has an owner or an end",
                |protocol: &Protocol, host: &Host| {
                    !host.steps(protocol).is_empty()
                        || (0..CONNECTIONS).all(|c| host.owners(c) == 1 || !host.is_open(c))
                },
            ),
            // One that does not answer for a second is no successor, and one that came after everybody had been asked, too late.
            Property::always("none is closed where one that answers served at every moment", |_, host: &Host| {
                host.closed == [false; CONNECTIONS] || host.gap || host.hung
            }),
            Property::always("what is closed is nobody's", |_, host: &Host| {
                (0..CONNECTIONS).all(|c| !host.closed[c] || host.owners(c) == 0)
            }),
        ];
        let of_the_search =
            [Property::sometimes("one is found that came while others were asked", |_, host: &Host| {
                host.seen.found_later && host.held[2][0] == Held::Owned
            })];
        let of_the_handover = [
            Property::sometimes("from the first to the second to the third", |_, host: &Host| {
                host.lives == [Life::Retiring, Life::Retiring, Life::Serving]
                    && host.owners(0) == 1
                    && host.held[2][0] == Held::Owned
            }),
            Property::sometimes("taken back", |_, host: &Host| host.seen.taken_back),
            Property::sometimes("an acknowledgement fails", |_, host: &Host| host.seen.acknowledgement_failed),
            Property::sometimes("what a dead sender sent is served", |_, host: &Host| {
                host.seen.served_for_the_dead && host.lives[0] == Life::Dead
            }),
            Property::sometimes("all retire, and what is left is closed politely", |_, host: &Host| {
                host.lives == [Life::Retiring; INSTANCES] && host.closed == [true; CONNECTIONS]
            }),
        ];
        let sometimes = if self.is_about_the_search { of_the_search.to_vec() } else { of_the_handover.to_vec() };
        [always.to_vec(), sometimes].concat()
    }
}

fn fails(protocol: Protocol, property: &'static str) {
    let found = HasDiscoveries::AnyOf([property].into());
    let checker = protocol.checker().finish_when(found).spawn_bfs().join();
    assert!(checker.discovery(property).is_some(), "{protocol:?} must break: {property}");
}

/// Returns how many states there are.
fn holds(protocol: Protocol) -> usize {
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    println!("{} states", checker.unique_state_count());
    checker.unique_state_count()
}

#[test]
fn in_every_order_no_connection_is_lost_leaked_or_served_twice() {
    assert!(holds(Protocol::default()) > 10_000);
}

#[test]
fn none_is_closed_as_long_as_one_serves_that_can_be_found() {
    assert!(holds(search()) > 10_000);
}

#[test]
fn without_a_cure_the_model_finds_what_it_is_for() {
    let twice = "no connection is served by two processes";
    let closed = "none is closed where one that answers served at every moment";
    let lost = "no connection is lost that had not reached the process that was killed";
    fails(Protocol { ignores_a_failed_acknowledgement: true, ..Protocol::default() }, twice);
    fails(Protocol { takes_back_without_the_cut: true, ..Protocol::default() }, twice);
    fails(Protocol { forgets_what_the_dead_had_said: true, ..Protocol::default() }, twice);
    fails(Protocol { takes_back_before_the_end: true, ..Protocol::default() }, twice);
    fails(Protocol { retires_without_reading_on: true, ..Protocol::default() }, lost);
    fails(Protocol { looks_once: true, ..search() }, closed);
    fails(Protocol { drops_what_it_could_not_acknowledge: true, ..Protocol::default() }, lost);
}
