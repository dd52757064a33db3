//! Resolves a target to its recipients: lists shared with the rosters, never copied.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::Hub;
use super::client::Client;
use super::roster::{Member, Roster, Snapshot};
use super::target::{Part, Target};
use crate::client_id::ClientId;

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

    /// Calls `each` once for every recipient.
    #[inline]
    pub(super) fn for_each(&self, mut each: impl FnMut(&Member)) {
        let mut seen = self.most().map(|most| Seen::with_capacity_and_hasher(most, BuildHasherDefault::default()));
        for next in self.lists().flat_map(|list| list.chunks(AHEAD)) {
            look_ahead(next);
            for member in next {
                let is_new = |seen: &mut Seen| seen.insert(Arc::as_ptr(&member.outbox).addr());
                if seen.as_mut().is_none_or(is_new) {
                    each(member);
                }
            }
        }
    }

    fn lists(&self) -> impl Iterator<Item = &[Member]> {
        let parts = if let Self::Union(parts) = self { &parts[..] } else { std::slice::from_ref(self) };
        parts.iter().map(Self::list)
    }

    /// The length of the longest list if there are several.
    fn most(&self) -> Option<usize> {
        matches!(self, Self::Union(_)).then(|| self.lists().map(<[_]>::len).max().unwrap_or_default())
    }

    fn list(&self) -> &[Member] {
        match self {
            Self::None | Self::Union(_) => &[],
            Self::One(member) => std::slice::from_ref(member),
            Self::Shared(snapshot) => snapshot,
        }
    }
}

/// Fetches what a send to each of these clients reads first: one cache line each, anywhere in memory. Loads that stand
/// together wait for memory together; with a system call between them each would wait alone.
#[inline]
fn look_ahead(members: &[Member]) {
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
        // The product's upper half is where every bit of the address has a say; tables look at both ends.
        self.0 = (self.0 ^ address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

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
