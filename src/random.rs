//! Random numbers of the operating system.

use uuid::Uuid;

/// A random UUID (version 4).
///
/// # Panics
///
/// If the system has no random numbers. Every supported system has them once it has booted.
pub(crate) fn uuid() -> Uuid {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    #[test]
    fn uuids_are_of_version_4_and_differ() {
        let (one, two) = (super::uuid(), super::uuid());
        assert_eq!((one.get_version_num(), two.get_version_num()), (4, 4));
        assert_ne!(one, two);
    }
}
