//! What the outboxes of one hub share: its settings and its helper threads.

use std::ops::Deref;

#[cfg(not(wshub_loom))]
use super::helpers::Helpers;
use crate::config::Config;

/// The settings of a hub's connections, and the threads that help with its large fan-outs.
#[derive(Debug)]
pub(crate) struct Group {
    config: Config,
    #[cfg(not(wshub_loom))]
    helpers: Helpers,
}

impl From<Config> for Group {
    fn from(config: Config) -> Self {
        Self {
            #[cfg(not(wshub_loom))]
            helpers: Helpers::new(config.fanout_threads),
            config,
        }
    }
}

#[cfg(test)]
impl Default for Group {
    fn default() -> Self {
        Config::default().into()
    }
}

impl Deref for Group {
    type Target = Config;

    #[inline]
    fn deref(&self) -> &Config {
        &self.config
    }
}

#[cfg(not(wshub_loom))]
impl Group {
    #[inline]
    pub(crate) fn helpers(&self) -> &Helpers {
        &self.helpers
    }
}
