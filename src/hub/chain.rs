//! Combines two hooks of one kind into one. Both run, in the order in which they were set. So a protocol and the
//! application, or two parts of an application, share a hook without depending on each other.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::admission::{Admission, Rejection};
use super::client::Client;
use crate::error::HandlerResult;
use crate::http::{RequestHead, Response};
use crate::message::Message;
use crate::metrics::ErrorType;

/// Hooks that observe. If the first one panics, the second still runs, and the panic resumes afterwards.
pub(super) mod observe {
    use super::in_turn;

    type One<A> = dyn Fn(&A) + Send + Sync;
    type Two<A, B> = dyn Fn(&A, &B) + Send + Sync;
    type Three<A, B, C> = dyn Fn(&A, &B, &C) + Send + Sync;

    pub(in super::super) fn one<A: ?Sized + 'static>(
        first: Box<One<A>>,
        second: impl Fn(&A) + Send + Sync + 'static,
    ) -> Box<One<A>> {
        Box::new(move |a| in_turn(|| first(a), || second(a)))
    }

    pub(in super::super) fn two<A: ?Sized + 'static, B: ?Sized + 'static>(
        first: Box<Two<A, B>>,
        second: impl Fn(&A, &B) + Send + Sync + 'static,
    ) -> Box<Two<A, B>> {
        Box::new(move |a, b| in_turn(|| first(a, b), || second(a, b)))
    }

    pub(in super::super) fn three<A: ?Sized + 'static, B: ?Sized + 'static, C: ?Sized + 'static>(
        first: Box<Three<A, B, C>>,
        second: impl Fn(&A, &B, &C) + Send + Sync + 'static,
    ) -> Box<Three<A, B, C>> {
        Box::new(move |a, b, c| in_turn(|| first(a, b, c), || second(a, b, c)))
    }
}

fn in_turn(first: impl FnOnce(), second: impl FnOnce()) {
    let panic = catch_unwind(AssertUnwindSafe(first)).err();
    second();
    if let Some(panic) = panic {
        resume_unwind(panic);
    }
}

/// The first refusal wins. Two admissions are merged: see [`Admission::merge`].
pub(super) fn admit<F, S>(first: F, second: S) -> impl Fn(&RequestHead) -> Result<Admission, Rejection>
where
    F: Fn(&RequestHead) -> Result<Admission, Rejection>,
    S: Fn(&RequestHead) -> Result<Admission, Rejection>,
{
    move |head| Ok(first(head)?.merge(second(head)?))
}

/// The second hook rewrites the first one's response.
pub(super) fn rewrite<F, S>(first: F, second: S) -> impl Fn(&RequestHead, ErrorType, &Response) -> Response
where
    F: Fn(&RequestHead, ErrorType, &Response) -> Response,
    S: Fn(&RequestHead, ErrorType, &Response) -> Response,
{
    move |head, error, response| second(head, error, &first(head, error, response))
}

/// The second hook gets the message that the first one returns.
pub(super) fn filter<F, S>(first: F, second: S) -> impl Fn(&Client, Message) -> HandlerResult<Message>
where
    F: Fn(&Client, Message) -> HandlerResult<Message>,
    S: Fn(&Client, Message) -> HandlerResult<Message>,
{
    move |client, message| second(client, first(client, message)?)
}

/// The second handler or check runs if the first one returns no error.
pub(super) fn both<A: ?Sized, F, S>(first: F, second: S) -> impl Fn(&Client, &A) -> HandlerResult
where
    F: Fn(&Client, &A) -> HandlerResult,
    S: Fn(&Client, &A) -> HandlerResult,
{
    move |client, subject| {
        first(client, subject)?;
        second(client, subject)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[test]
    fn observers_run_in_order_and_a_panic_of_the_first_is_not_lost() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (a, b) = (Arc::clone(&seen), Arc::clone(&seen));
        let first: Box<dyn Fn(&str) + Send + Sync> = Box::new(move |text| {
            a.lock().push(format!("first {text}"));
            assert_ne!(text, "panic");
        });
        let both = observe::one(first, move |text: &str| b.lock().push(format!("second {text}")));
        both("x");
        assert!(catch_unwind(AssertUnwindSafe(|| both("panic"))).is_err());
        assert_eq!(*seen.lock(), ["first x", "second x", "first panic", "second panic"]);
    }

    #[test]
    fn admissions_are_merged() {
        let first = Admission::user("ann").room("a").subprotocol("x").metadata("k", 1);
        let merged = first.merge(Admission::anonymous().room("b").room("a").metadata("k", 2));
        assert_eq!(merged.user.as_deref(), Some("ann"));
        assert_eq!(merged.rooms, ["a", "b"]);
        assert_eq!(merged.subprotocol.as_deref(), Some("x"));
        let value = merged.metadata.iter().rev().find(|(key, _)| key == "k").map(|(_, value)| Arc::clone(value));
        assert_eq!(value.and_then(|value| value.downcast::<i32>().ok()).as_deref(), Some(&2));
        assert_eq!(Admission::user("ann").merge(Admission::user("bob")).user.as_deref(), Some("bob"));
    }
}
