//! Counted places: connections in their handshake, threads that are alive.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use crate::config::reached;
use crate::lock::{Condition, Leaf};
use crate::transport::canonical_ip;

/// Counts taken places. Threads can wait until none is taken.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots(Arc<(Leaf<Taken>, Condition)>);

/// The counts, guarded by a leaf lock.
#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// The number of places of each network that has any.
    of_network: HashMap<IpAddr, usize>,
}

/// A taken place. Dropping it frees the place.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Slots,
    /// The network for which the place counts.
    network: Option<IpAddr>,
}

impl Slots {
    /// Takes a place unless `limit` are taken; 0 = no limit.
    pub(super) fn take(&self, limit: usize) -> Option<Slot> {
        let mut taken = self.0.0.lock();
        if reached(limit, taken.all) {
            return None;
        }
        taken.all += 1;
        Some(Slot { slots: self.clone(), network: None })
    }

    /// The number of taken places.
    pub(super) fn taken(&self) -> usize {
        self.0.0.lock().all
    }

    /// Waits until no place is taken. Returns the number of taken places at the deadline.
    pub(super) fn wait_none(&self, deadline: Instant) -> usize {
        let (taken, changed) = &*self.0;
        let mut taken = taken.lock();
        while taken.all > 0 && !changed.wait_until(&mut taken, deadline) {}
        taken.all
    }
}

impl Slot {
    /// Makes the place count for this address instead of the earlier one. Returns false if `limit` others already count
    /// for it; 0 = no limit. Unix sockets (`None`) do not count.
    pub(super) fn assign(&mut self, addr: Option<SocketAddr>, limit: usize) -> bool {
        let mut taken = self.slots.0.0.lock();
        taken.give_back(self.network.take());
        let Some(network) = addr.map(network_of) else { return true };
        let count = taken.of_network.entry(network).or_default();
        let is_free = !reached(limit, *count);
        // A place over the limit also counts, until its connection has been answered and dropped.
        *count += 1;
        self.network = Some(network);
        is_free
    }
}

impl Taken {
    fn give_back(&mut self, network: Option<IpAddr>) {
        let Some(network) = network else { return };
        if let Some(count) = self.of_network.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                self.of_network.remove(&network);
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let (taken, changed) = &*self.slots.0;
        let mut taken = taken.lock();
        taken.give_back(self.network);
        taken.all -= 1;
        if taken.all == 0 {
            changed.notify_all();
        }
    }
}

/// An IPv4 address, or the /64 network of an IPv6 address, because its holder controls all of its addresses.
fn network_of(addr: SocketAddr) -> IpAddr {
    match canonical_ip(addr) {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        ip @ IpAddr::V4(_) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().expect("an address"), 1)
    }

    #[test]
    fn a_network_has_its_share_and_gets_it_back() {
        let slots = Slots::default();
        let take = |ip: &str| {
            let mut slot = slots.take(5).expect("a place");
            slot.assign(Some(addr(ip)), 2).then_some(slot)
        };
        let first = take("1.1.1.1");
        let _second = take("::ffff:1.1.1.1").expect("a share of two");
        assert!(take("1.1.1.1").is_none());
        let _other = take("1.1.1.2").expect("another address");
        drop(first);
        let mut moved = take("1.1.1.1").expect("given back");
        assert!(moved.assign(Some(addr("2.2.2.2")), 2));
        let _again = take("1.1.1.1").expect("it is on another account");
        assert_eq!(slots.taken(), 4);
        let _v6 = take("2001:db8::1").expect("IPv6");
        assert!(slots.take(5).is_none(), "and there is a limit for all");
    }

    #[test]
    fn neighbours_in_ipv6_share() {
        let network = |text: &str| network_of(addr(text));
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1:2:3"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_ne!(network("1.2.3.4"), network("1.2.3.5"));
    }

    #[test]
    fn nothing_is_kept_of_those_who_have_gone() {
        let slots = Slots::default();
        for n in 0..100_u8 {
            let mut slot = slots.take(0).expect("no limit");
            assert!(slot.assign(Some(SocketAddr::from(([10, 0, 0, n], 1))), 1) && slot.assign(None, 1));
        }
        assert_eq!((slots.taken(), slots.0.0.lock().of_network.len()), (0, 0));
    }
}
