//! Calls of code that is not the crate's own: handlers, hooks, metrics, loggers, destructors of the application's
//! values.
//!
//! A panic in such code must neither end a thread of the crate nor prevent the rest of its work, so each call goes
//! through a function of this file. No such call is made while a lock of the crate is held, because the code may call
//! the hub. Debug builds check this.

use std::any::Any;
use std::fmt;
use std::mem;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::lock::assert_no_lock_held;

/// A panic's payload is a value of the application: its destructor may panic as well, with another payload. After this
/// many, the last one is leaked.
const MAX_PAYLOADS: usize = 4;

/// Writes a log record, `record!(Debug, "wshub::conn", "{id} connected")`. The arguments are evaluated and the logger
/// is called only when the level is enabled. A panic while they are formatted, or in the logger, is caught, and nothing
/// reports it. Never use it under a lock: a logger may call the hub.
macro_rules! record {
    ($level:ident, $target:literal, $($message:tt)+) => {
        if log::Level::$level <= log::STATIC_MAX_LEVEL && log::Level::$level <= log::max_level() {
            $crate::guard::write_record(
                log::Level::$level, &($target, module_path!(), file!(), line!()), format_args!($($message)+)
            );
        }
    };
}

/// As [`record!`], at most ten times a second at this place; then with the number of records left out. For whatever a
/// peer can cause.
macro_rules! record_limited {
    ($level:ident, $target:literal, $($message:tt)+) => {{
        static LIMIT: $crate::log_limit::LogLimit = $crate::log_limit::LogLimit::new();
        if let Some(suppressed) = LIMIT.pass() {
            $crate::guard::record!(
                $level, $target, "{} ({suppressed} more not logged)", format_args!($($message)+)
            );
        }
    }};
}

pub(crate) use {record, record_limited};

/// Calls the logger, for [`record!`]. One function for all records, because each of its copies would need the code that
/// catches panics: that adds up in a small program.
#[cold]
#[inline(never)]
pub(crate) fn write_record(
    level: log::Level,
    (target, module, file, line): &(&str, &'static str, &'static str, u32),
    message: fmt::Arguments<'_>,
) {
    let mut record = log::Record::builder();
    record.level(level).target(target).module_path_static(Some(module)).file_static(Some(file)).line(Some(*line));
    catch(|| log::logger().log(&record.args(message).build()));
}

/// Runs `code`. Returns `None` if it panicked.
#[inline]
pub(crate) fn catch<T>(code: impl FnOnce() -> T) -> Option<T> {
    assert_no_lock_held();
    match catch_unwind(AssertUnwindSafe(code)) {
        Ok(value) => Some(value),
        Err(payload) => {
            discard(payload);
            None
        }
    }
}

/// Runs `code`. If it panicked, the error is the panic's text, or empty if the payload was not a text.
#[inline]
pub(crate) fn catch_text<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    assert_no_lock_held();
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
        discard(payload);
        text
    })
}

/// Drops a value of the application. A panic in its destructor is caught and logged.
#[inline]
pub(crate) fn dispose<T>(value: T) {
    if mem::needs_drop::<T>() && catch(move || drop(value)).is_none() {
        report_destructor();
    }
}

/// A value of the application whose drop catches panics, as [`dispose`] does. For values that are dropped as parts of
/// others: if two destructors panicked in the drop of one collection, the process would abort.
#[derive(Debug, Clone)]
pub(crate) struct Guarded<T>(
    /// `None` only within `drop`.
    Option<T>,
);

impl<T> Guarded<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }

    pub(crate) fn into_inner(mut self) -> T {
        self.0.take().expect("only `drop` takes it before")
    }
}

impl<T> Deref for Guarded<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.0.as_ref().expect("only `drop` takes it")
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        let Some(value) = self.0.take() else { return };
        // Unlike `dispose`, this allows a lock to be held: often others have handles to the value, and nothing of it is
        // dropped here. The thread that drops the last handle holds no lock.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(move || drop(value))) {
            discard(payload);
            report_destructor();
        }
    }
}

#[cold]
fn report_destructor() {
    record_limited!(Error, "wshub::hub", "a destructor of the application panicked");
}

#[cold]
fn discard(mut payload: Box<dyn Any + Send>) {
    for _ in 0..MAX_PAYLOADS {
        match catch_unwind(AssertUnwindSafe(move || drop(payload))) {
            Ok(()) => return,
            Err(next) => payload = next,
        }
    }
    mem::forget(payload);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::panic_any;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Panics when it is dropped, with another one as the payload, without end.
    struct Chain<'a>(&'a AtomicUsize);

    impl Drop for Chain<'_> {
        fn drop(&mut self) {
            static NEXT: AtomicUsize = AtomicUsize::new(0);
            self.0.fetch_add(1, Ordering::Relaxed);
            panic_any(Chain(&NEXT));
        }
    }

    #[test]
    fn panics_are_caught_with_their_text() {
        assert_eq!(catch(|| 7), Some(7));
        assert_eq!(catch(|| -> u8 { panic!("on purpose") }), None);
        assert_eq!(catch_text(|| 7), Ok(7));
        assert_eq!(catch_text(|| -> u8 { panic!("on purpose") }), Err("on purpose".into()));
        assert_eq!(catch_text(|| -> u8 { panic!("on {}", "purpose") }), Err("on purpose".into()));
        assert_eq!(catch_text(|| -> u8 { panic_any(1_u8) }), Err(String::new()));
    }

    #[test]
    fn a_collection_of_destructors_that_panic_is_dropped_whole() {
        static DROPPED: AtomicUsize = AtomicUsize::new(0);
        let values: Vec<_> = (0..3).map(|_| Guarded::new(Chain(&DROPPED))).collect();
        drop(values);
        assert_eq!(DROPPED.load(Ordering::Relaxed), 3);
        assert_eq!((*Guarded::new(7), Guarded::new(7).into_inner()), (7, 7));
    }

    #[test]
    fn destructors_that_panic_for_ever_end() {
        static DROPPED: AtomicUsize = AtomicUsize::new(0);
        dispose(Chain(&DROPPED));
        assert_eq!(DROPPED.load(Ordering::Relaxed), 1);
        assert!(catch(|| panic_any(Chain(&DROPPED))).is_none());
        assert_eq!(catch_text(|| panic_any(Chain(&DROPPED))), Err(String::new()));
        assert_eq!(DROPPED.load(Ordering::Relaxed), 3);
    }
}
