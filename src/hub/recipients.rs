//! Resolves a target to its recipients: lists shared with the rosters, never copied.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::Hub;
use super::client::Client;
use super::roster::{Member, Roster, Snapshot};
use super::target::{Part, Target};
use crate::client_id::ClientId;
use crate::outbox::{Helpers, How, List, Outbox, is_corked, prefetch_queues};

/// Number of recipients whose outboxes are prefetched together.
const AHEAD: usize = 16;

/// The recipients of one message.
pub(super) enum Recipients {
    None,
    One(Member),
    Shared(Snapshot),
    /// A client may be in several of these lists.
    Union(Vec<Recipients>),
}

impl Recipients {
    pub(super) fn is_nobody(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Whether the recipients are a single client, named by its id.
    pub(super) fn is_one(&self) -> bool {
        matches!(self, Self::One(_))
    }

    /// Calls `each` once for every recipient. If there are many, `each` may leave flushes to the helpers.
    #[inline]
    pub(super) fn for_each_shared(&self, helpers: Option<&Helpers>, mut each: impl FnMut(&Member, How)) {
        match helpers {
            Some(helpers) if helpers.are_worth(self.most()) && !is_corked() => share(helpers, &self.snapshot(), each),
            _ => self.for_each(|member| each(member, How::Now)),
        }
    }

    /// Calls `each` once for every recipient.
    #[inline]
    pub(super) fn for_each(&self, mut each: impl FnMut(&Member)) {
        let is_union = matches!(self, Self::Union(_));
        let new_seen = || Seen::with_capacity_and_hasher(self.most(), BuildHasherDefault::default());
        let mut seen = is_union.then(new_seen);
        for next in self.lists().flat_map(|list| list.chunks(AHEAD)) {
            prefetch(next);
            for member in next {
                let is_new = |seen: &mut Seen| seen.insert(Arc::as_ptr(&member.outbox).addr());
                if seen.as_mut().is_none_or(is_new) {
                    each(member);
                }
            }
        }
    }

    /// All recipients as one list.
    fn snapshot(&self) -> Snapshot {
        if let Self::Shared(all) = self {
            return Arc::clone(all);
        }
        let mut all = Vec::new();
        self.for_each(|member| all.push(member.clone()));
        all.into()
    }

    fn lists(&self) -> impl Iterator<Item = &[Member]> {
        let parts = if let Self::Union(parts) = self { &parts[..] } else { std::slice::from_ref(self) };
        parts.iter().map(Self::list)
    }

    /// The length of the longest list.
    fn most(&self) -> usize {
        self.lists().map(<[_]>::len).max().unwrap_or_default()
    }

    fn list(&self) -> &[Member] {
        match self {
            Self::None | Self::Union(_) => &[],
            Self::One(member) => std::slice::from_ref(member),
            Self::Shared(snapshot) => snapshot,
        }
    }
}

/// Calls `each` once for every member. If there are many, helpers may do the flushes that `each` leaves to a later
/// time.
pub(super) fn share(helpers: &Helpers, members: &Snapshot, mut each: impl FnMut(&Member, How)) {
    helpers.share(
        members.len(),
        || Box::new(Arc::clone(members)),
        |range, how| {
            for next in members[range].chunks(AHEAD) {
                prefetch(next);
                if how == How::Later {
                    prefetch_queues(next.iter().map(|member| &member.outbox));
                }
                next.iter().for_each(|member| each(member, how));
            }
        },
    );
}

impl List for Snapshot {
    fn len(&self) -> usize {
        self.as_ref().len()
    }

    fn outbox(&self, at: usize) -> &Arc<Outbox> {
        &self[at].outbox
    }
}

/// Fetches what a send to each of these clients reads first: one cache line each, anywhere in memory. Consecutive loads
/// wait for memory together. With a system call between them, each would wait alone.
#[inline]
fn prefetch(members: &[Member]) {
    std::hint::black_box(members.iter().filter(|member| member.outbox.is_accepting()).count());
}

/// Addresses of outboxes.
type Seen = HashSet<usize, BuildHasherDefault<OfAddress>>;

/// Hashes addresses by Fibonacci hashing. No peer chooses the addresses, so a slower keyed hash is not needed.
#[derive(Default)]
struct OfAddress(u64);

impl Hasher for OfAddress {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_usize(usize::from(*byte)));
    }

    fn write_usize(&mut self, address: usize) {
        // Every bit of the address affects the product's upper half. The rotation moves it to both ends of the hash,
        // where tables look.
        self.0 = (self.0 ^ address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

#[cfg(test)]
#[path = "shared_tests.rs"]
mod shared_tests;

impl Hub {
    pub(super) fn resolve(&self, target: &Target<'_>) -> Recipients {
        match target.single() {
            Some(part) => self.resolve_part(part, &target.except),
            None => Recipients::Union(target.parts().map(|part| self.resolve_part(part, &target.except)).collect()),
        }
    }

    fn resolve_part(&self, part: &Part<'_>, except: &[ClientId]) -> Recipients {
        match part {
            Part::All => Recipients::Shared(self.everyone()),
            Part::Room(name) => self.find_room(name).map_or(Recipients::None, |r| Recipients::Shared(r.snapshot())),
            Part::OneOf(name) => {
                let member = self.find_room(name).and_then(|room| room.next_member(except));
                member.map_or(Recipients::None, Recipients::One)
            }
            Part::User(id) => self.user_snapshot(id).map_or(Recipients::None, Recipients::Shared),
            Part::Client(id) => self.client(*id).and_then(|c| Member::of(&c)).map_or(Recipients::None, Recipients::One),
        }
    }

    /// The target's clients on this node.
    pub(super) fn clients_of(&self, target: &Target<'_>) -> Vec<Client> {
        let mut clients = Vec::new();
        self.resolve(target).for_each(|member| clients.push(member.client.clone()));
        clients.retain(|client| !target.except.contains(&client.id()));
        clients
    }

    fn user_snapshot(&self, id: &str) -> Option<Snapshot> {
        let cached = self.inner().users.read().by_id.get(id)?.cached();
        cached.or_else(|| self.inner().users.write().by_id.get_mut(id).map(Roster::snapshot))
    }
}
