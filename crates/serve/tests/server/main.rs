//! What the tests wait for is what the process says to systemd; nothing sleeps and hopes.

mod drain;
mod faults;
mod handover;
mod hostile;
mod http2;
mod life;
mod metrics;
mod peer;
mod served;
