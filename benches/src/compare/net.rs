//! Two network namespaces, and a pair of interfaces between them for each AoE server.

use std::process::Command;

/// Gone when dropped.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) servers: String,
    pub(crate) clients: String,
    mtu: u32,
    pairs: usize,
}

impl Net {
    /// Makes the namespaces.
    ///
    /// # Errors
    /// If that is not permitted.
    pub(crate) fn new(mtu: u32) -> Result<Self, String> {
        let pid = std::process::id();
        let servers = format!("corbel-bench-{pid}-s");
        let clients = format!("corbel-bench-{pid}-c");
        let net = Self { servers, clients, mtu, pairs: 0 };
        ip(&["netns", "add", &net.servers])?;
        ip(&["netns", "add", &net.clients])?;
        Ok(net)
    }

    /// One more pair: the server's interface and the client's.
    ///
    /// # Errors
    /// If `ip` cannot make it.
    pub(crate) fn pair(&mut self) -> Result<(String, String), String> {
        let (server, client) = (format!("s{}", self.pairs), format!("c{}", self.pairs));
        self.pairs += 1;
        let mtu = self.mtu.to_string();
        let (servers, clients) = (self.servers.as_str(), self.clients.as_str());
        ip(&[
            "-n", servers, "link", "add", &server, "mtu", &mtu, "type", "veth", "peer", "name",
            &client, "mtu", &mtu, "netns", clients,
        ])?;
        ip(&["-n", servers, "link", "set", &server, "up"])?;
        ip(&["-n", clients, "link", "set", &client, "up"])?;
        Ok((server, client))
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in [&self.servers, &self.clients] {
            // One that was never made is not there.
            let _ = ip(&["netns", "del", name]);
        }
    }
}

fn ip(words: &[&str]) -> Result<(), String> {
    let done = Command::new("ip").args(words).output();
    let done = done.map_err(|error| format!("ip (of iproute2): {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&done.stderr);
    Err(format!("ip {}: {}", words.join(" "), why.trim()))
}
