//! The part of a snapshot that a viewer requests in its stream's query.

use crate::http::RequestHead;

/// Maximum number of rows of a list.
pub(super) const MAX_ROWS: usize = 200;
/// Maximum length of a search, in characters.
const MAX_QUERY: usize = 256;

/// Viewers with equal views get the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct View {
    /// In lower case; only clients that contain it are listed.
    pub(super) search: String,
    /// Only members of this room.
    pub(super) room: Option<String>,
    pub(super) order: Order,
    /// Like `search`, for rooms.
    pub(super) room_search: String,
    pub(super) rows: usize,
}

/// The order of the list of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) enum Order {
    #[default]
    Newest,
    Oldest,
    Queue,
    Dropped,
    User,
    Rooms,
}

impl View {
    pub(super) fn of(head: &RequestHead) -> Self {
        let param = |name| head.query_param(name).unwrap_or_default();
        let search = |name| param(name).trim().chars().take(MAX_QUERY).flat_map(char::to_lowercase).collect();
        Self {
            search: search("search"),
            room: Some(param("room")).filter(|room| !room.is_empty()),
            order: Order::named(&param("order")),
            room_search: search("rooms"),
            rows: param("rows").parse().unwrap_or(50).clamp(1, MAX_ROWS),
        }
    }
}

impl Order {
    fn named(name: &str) -> Self {
        match name {
            "oldest" => Self::Oldest,
            "queue" => Self::Queue,
            "dropped" => Self::Dropped,
            "user" => Self::User,
            "rooms" => Self::Rooms,
            _ => Self::Newest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(target: &str) -> View {
        View::of(&RequestHead::from_parts("GET", target, [("Host", "a")]).expect("valid"))
    }

    #[test]
    fn anything_makes_a_view_within_bounds() {
        let plain = view("/admin/events");
        assert_eq!((plain.search.as_str(), &plain.room, plain.order, plain.rows), ("", &None, Order::Newest, 50));
        let odd = view("/e?search=%20%C3%84nn&room=%0A&order=queue&rooms=LOB&rows=1000000&x=y");
        assert_eq!((odd.search.as_str(), odd.room.as_deref(), odd.order), ("änn", Some("\n"), Order::Queue));
        assert_eq!((odd.room_search.as_str(), odd.rows), ("lob", MAX_ROWS));
        assert_eq!(view("/e?rows=0&order=none").rows, 1);
        assert_eq!(view("/e?rows=-5").rows, 50);
        assert_eq!(view(&format!("/e?search={}", "a".repeat(1000))).search.len(), MAX_QUERY);
    }
}
