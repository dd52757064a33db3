//! Flushing the clients that a cork or a burst has listed.

use std::sync::Arc;

use super::Outbox;
#[cfg(not(wshub_loom))]
use super::share::How;

/// Flushes all outboxes of a list, with the help of their hub's threads if there are many. Empties the list. All pushes
/// must be visible to this thread: it made them itself, or a fence orders them before this call. Corks of several
/// threads may list the same client.
pub(super) fn flush_list(list: &mut Vec<Arc<Outbox>>) {
    #[cfg(not(wshub_loom))]
    if let Some(first) = list.first().filter(|first| first.settings.helpers().are_worth(list.len())) {
        let group = Arc::clone(&first.settings);
        let list: Arc<[Arc<Outbox>]> = list.drain(..).collect();
        return group.helpers().share(
            list.len(),
            || Box::new(Arc::clone(&list)),
            |range, how| {
                if how == How::Now {
                    list[range].iter().for_each(Outbox::flush_if_needed);
                }
            },
        );
    }
    list.drain(..).for_each(|outbox| outbox.flush_if_needed());
}
