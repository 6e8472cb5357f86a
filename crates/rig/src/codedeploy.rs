//! A stand-in for CodeDeploy's own service: what `moto` does not know of it, told of deployments that really ran.
//!
//! moto 5.2.5 knows applications, groups, CreateDeployment and S3, and answers those here, too. It knows no revisions, no hosts,
//! and no deployment that ends: these are kept here. A deployment is made by moto, and then its revision is fetched from moto's
//! S3 and deployed by the stand-in for the agent, batch by batch, as the group's configuration has it; and where it fails and the
//! group asks for that, the last good revision after it.

mod account;
mod engine;
mod ledger;
mod service;
mod wire;

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

pub use account::Account;
use service::Service;

use crate::Host;

/// The service, at an address of this machine; dropping it ends it, after the event that is under way.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    service: Arc<Service>,
    is_over: Arc<AtomicBool>,
    serves: Option<JoinHandle<()>>,
}

impl Endpoint {
    /// Of an account's deployments, all of them to these hosts, under these names.
    ///
    /// # Panics
    /// Where it cannot listen.
    pub fn start(account: &Arc<Account>, hosts: &[(&str, &Arc<Host>)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let hosts = hosts.iter().map(|(name, host)| ((*name).to_owned(), Arc::clone(host))).collect();
        let (service, is_over) = (Arc::new(Service::new(Arc::clone(account), hosts)), Arc::new(AtomicBool::new(false)));
        let serves = thread::spawn({
            let (service, is_over) = (Arc::clone(&service), Arc::clone(&is_over));
            move || serve(&listener, &service, &is_over)
        });
        Self { address, service, is_over, serves: Some(serves) }
    }

    /// From here on an alarm of each group is on: what heeds it is stopped before its next batch.
    pub fn alarm(&self) {
        self.service.alarm();
    }

    /// For `AWS_ENDPOINT_URL_CODEDEPLOY`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn serve(listener: &TcpListener, service: &Arc<Service>, is_over: &AtomicBool) {
    while let Ok((stream, _)) = listener.accept() {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let service = Arc::clone(service);
        thread::spawn(move || {
            // Who has gone away is not answered.
            let _ = wire::answer(stream, |request| service.answer(request));
        });
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // It waits for a connection.
        let _ = TcpStream::connect(self.address);
        let _ = self.serves.take().map(JoinHandle::join);
        self.service.end();
    }
}
