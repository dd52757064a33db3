//! Why a scenario has no figures.

use std::fmt::{self, Display};
use std::io;

#[derive(Debug)]
pub(crate) enum Failure {
    /// A signal asked for the end before there was anything to tell.
    Interrupted,
    /// A sentence for the user.
    Because(String),
}

impl Failure {
    pub(crate) fn because(why: impl Into<String>) -> Self {
        Self::Because(why.into())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Because(error.to_string())
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted => f.write_str("interrupted"),
            Self::Because(why) => f.write_str(why),
        }
    }
}
