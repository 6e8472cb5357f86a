//! An ssh server in hosts, and a client that they know: with keys, known hosts and a configuration of its own.

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
    process::Command,
};

use tempfile::TempDir;

use crate::Host;

/// Not installed on this machine, which would have it listen at its next boot.
const PACKAGES: [&str; 3] = ["openssh-server", "libwrap0", "sudo"];
const SERVER: &str = "\
ListenAddress 127.0.0.1
HostKey /etc/ssh/key
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
";
/// From the host's network to its own port 22; at the end of the client both ends are closed. The hangup that ssh sends would
/// end the shell alone, and leave the one that reads to the server's patience.
const DIAL: &str = "trap \"\" HUP; exec 3<>/dev/tcp/127.0.0.1/22; cat <&3 & cat >&3; kill $!";

/// A client of hosts, by the names that they were given here.
#[derive(Debug)]
pub struct Client {
    folder: TempDir,
}

impl Client {
    /// Starts a server in each host, and makes a client that `root` and the user `deploy`, who has sudo, let in.
    ///
    /// # Panics
    /// Where the packages are not to be had, or a server does not start.
    pub fn of(hosts: &[(&str, &Host)]) -> Self {
        let client = Self { folder: tempfile::tempdir().expect("a folder") };
        client.run("ssh-keygen -q -t ed25519 -N '' -f key");
        for (name, host) in hosts {
            client.start_server(host);
            client.write("config", &client.host_section(name, host));
            let key = host.succeed("cat /etc/ssh/key.pub");
            client.write("known_hosts", &format!("{name} {key}"));
        }
        client
    }

    /// Its configuration (`ssh -F`).
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    /// Forgets every host's key.
    ///
    /// # Panics
    /// Where the disk does not take that.
    pub fn forget_hosts(&self) {
        fs::write(self.folder.path().join("known_hosts"), "").expect("the folder is ours");
    }

    fn host_section(&self, name: &str, host: &Host) -> String {
        let folder = self.folder.path().display();
        format!(
            "Host {name}\n  ProxyCommand nsenter -t {} -n bash -c '{DIAL}'\n  HostKeyAlias {name}\n  User root\n  IdentityFile {folder}/key\n  \
             IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known_hosts\n  GlobalKnownHostsFile /dev/null\n",
            host.leader()
        )
    }

    fn start_server(&self, host: &Host) {
        host.unpack(&PACKAGES).unwrap_or_else(|error| panic!("{error}"));
        let key = fs::read_to_string(self.folder.path().join("key.pub")).expect("it was made");
        fs::write(host.path("/etc/ssh/rig_config"), SERVER).expect("the host takes it");
        fs::write(host.path("/etc/sudoers.d/deploy"), "deploy ALL=(root) NOPASSWD: ALL\n").expect("the host takes it");
        fs::write(host.path("/root/client.pub"), key).expect("the host takes it");
        host.succeed(
            "systemd-sysusers --inline 'u sshd - - /run/sshd' 'u deploy - - /home/deploy /bin/sh' 'u other - - /home/other /bin/sh'; \
             for user in root deploy other; do home=$(getent passwd $user | cut -d: -f6); usermod -p '*' $user; \
               mkdir -p $home/.ssh; cp /root/client.pub $home/.ssh/authorized_keys; \
               chown $user: $home $home/.ssh $home/.ssh/authorized_keys; done; \
             mkdir -p /run/sshd; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/key; ldconfig; \
             systemd-run -q --unit=rig-sshd /usr/sbin/sshd -D -e -f /etc/ssh/rig_config",
        );
        host.wait_until("sshd listens", |host| host.run("ss -Htln '( sport = :22 )' | grep .").code == 0);
    }

    fn run(&self, command: &str) {
        let status = Command::new("sh").args(["-c", command]).current_dir(self.folder.path()).status();
        assert!(status.is_ok_and(|status| status.success()), "{command}");
    }

    fn write(&self, name: &str, text: &str) {
        let file = File::options().append(true).create(true).open(self.folder.path().join(name));
        file.and_then(|mut file| file.write_all(text.as_bytes())).expect("the folder is ours");
    }
}
