//! How many connections each client has, so that one cannot take them all. Looked at once a connection.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;

use ipnet::IpNet;

use crate::proxy::limits::Settings;
use crate::proxy::thread::Thread;

/// One thread's count.
#[derive(Debug)]
pub(crate) struct PerClient {
    /// 0: any number.
    most: usize,
    exempt: Vec<IpNet>,
    open: HashMap<IpAddr, usize>,
    /// Connections that were closed since the log last said so.
    refused: u64,
}

impl PerClient {
    pub(crate) fn new(settings: &Settings) -> Self {
        let (most, exempt) = (settings.connections_per_client, settings.exempt.clone());
        Self { most, exempt, open: HashMap::new(), refused: 0 }
    }

    /// From now on, these limits.
    pub(crate) fn reconfigure(&mut self, settings: &Settings) {
        (self.most, self.exempt) = (settings.connections_per_client, settings.exempt.clone());
    }

    /// Counts a connection: as whose, if it counts. An error if the client has too many.
    fn begin(&mut self, client: IpAddr) -> Result<Option<IpAddr>, ()> {
        let client = client.to_canonical();
        if self.most == 0 || self.exempt.iter().any(|network| network.contains(&client)) {
            return Ok(None);
        }
        let client = one_client(client);
        let open = self.open.entry(client).or_insert(0);
        if *open >= self.most {
            self.refused += 1;
            return Err(());
        }
        *open += 1;
        Ok(Some(client))
    }

    fn end(&mut self, client: IpAddr) {
        if let Some(open) = self.open.get_mut(&client) {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&client);
            }
        }
    }
}

/// What counts as one client: an IPv6 customer has a whole /64.
fn one_client(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
    }
}

/// A connection that is counted as its client's for as long as this lives.
pub(crate) struct Counted {
    thread: Rc<Thread>,
    client: IpAddr,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.thread.clients.borrow_mut().end(self.client);
    }
}

/// Counts a connection, where it counts. `Err`: its client has too many; it is to be closed.
pub(crate) fn count(thread: &Rc<Thread>, client: IpAddr) -> Result<Option<Counted>, ()> {
    let mut clients = thread.clients.borrow_mut();
    let counted = clients.begin(client);
    if counted.is_err() && thread.may_warn() {
        tracing::warn!(
            closed = std::mem::take(&mut clients.refused),
            %client,
            "a client has all the connections that it may have on a thread; hint: limits: {{connections_per_client: ..}}"
        );
    }
    Ok(counted?.map(|client| Counted { thread: thread.clone(), client }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn per_client(most: usize) -> PerClient {
        PerClient::new(&Settings { connections_per_client: most, ..Settings::default() })
    }

    #[test]
    fn a_client_has_so_many_and_another_one_as_many() {
        let mut clients = per_client(2);
        let [a, b] = ["192.0.2.1", "::ffff:192.0.2.2"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let key = clients.begin(a).unwrap().unwrap();
        assert!(clients.begin(a).is_ok() && clients.begin(a).is_err() && clients.refused == 1);
        assert!(clients.begin(b).is_ok());
        clients.end(key);
        assert!(clients.begin(a).is_ok() && clients.begin(a).is_err());
        for _ in 0..2 {
            clients.end(key);
        }
        assert!(!clients.open.contains_key(&key), "nothing is remembered of a client without connections");
    }

    #[test]
    fn an_ipv6_client_is_its_network_and_this_machine_is_exempt() {
        let mut clients = per_client(1);
        for (ip, allowed) in [
            ("2001:db8::1", true),
            ("2001:db8::2", false),
            ("2001:db8:0:0:ffff::9", false),
            ("2001:db8:0:1::1", true),
            ("127.0.0.1", true),
            ("127.0.0.1", true),
            ("::1", true),
            ("::1", true),
        ] {
            assert_eq!(clients.begin(ip.parse().unwrap()).is_ok(), allowed, "{ip}");
        }
        let mut any = per_client(0);
        assert!((0..5000).all(|_| any.begin("192.0.2.1".parse().unwrap()) == Ok(None)));
    }
}
