//! What the tests wait for is what the process says to systemd; nothing sleeps and hopes.

mod drain;
mod handover;
mod http2;
mod life;
mod served;
