//! The adapter's settings: servers, credentials, subjects and timeouts.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::rustls::crypto::{CryptoProvider, ring};
use async_nats::{Auth, ServerAddr};
use percent_encoding::percent_decode_str;

use crate::error::ConfigError;

pub(super) const TIMEOUT: Duration = Duration::from_secs(2);
pub(super) const IDLE: Duration = Duration::from_secs(5);

/// The settings of a [`NatsAdapter`](super::NatsAdapter). Not `Debug`, because they contain passwords.
#[derive(Clone)]
pub(super) struct Settings {
    /// At least one server.
    pub(super) servers: Vec<Server>,
    pub(super) subject: String,
    pub(super) inbox_prefix: String,
    pub(super) connect_timeout: Duration,
    pub(super) response_timeout: Duration,
    pub(super) idle: Duration,
    pub(super) root_certificates: Option<PathBuf>,
}

#[derive(Clone)]
pub(super) struct Server {
    pub(super) addr: ServerAddr,
    pub(super) auth: Auth,
}

impl Settings {
    pub(super) fn new(urls: &str) -> Result<Self, ConfigError> {
        Ok(Self {
            servers: urls.split(',').map(|url| server(url.trim())).collect::<Result<_, _>>()?,
            subject: "wshub.messages".to_owned(),
            inbox_prefix: "_INBOX".to_owned(),
            connect_timeout: TIMEOUT,
            response_timeout: TIMEOUT,
            idle: IDLE,
            root_certificates: None,
        })
    }

    pub(super) fn set_auth(&mut self, auth: &Auth) {
        self.servers.iter_mut().for_each(|server| server.auth = auth.clone());
    }

    /// Returns hosts and ports, without the credentials.
    pub(super) fn hosts(&self) -> Vec<String> {
        let host = |server: &Server| format!("{}:{}", server.addr.host(), server.addr.port());
        self.servers.iter().map(host).collect()
    }
}

/// Parses a URL. Errors do not quote it, because it may contain a password.
fn server(url: &str) -> Result<Server, ConfigError> {
    let refuse = |reason| ConfigError::new("url", reason);
    let addr: ServerAddr = url.parse().map_err(|_| refuse("is not the URL of a NATS server: nats://HOST:PORT"))?;
    if !["nats", "tls"].contains(&addr.scheme()) {
        return Err(refuse("must begin with nats:// or tls://"));
    }
    if addr.host().is_empty() {
        return Err(refuse("names no host"));
    }
    if addr.tls_required() && CryptoProvider::get_default().is_none() {
        // The client uses the process's crypto provider. If the program has installed none and several are built in,
        // the client would panic. If another thread is faster, its provider serves as well.
        let _ = ring::default_provider().install_default();
    }
    let decode = |text: &str| percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned);
    let name = addr.username().map(decode).transpose().map_err(|_| refuse("has a user that is not UTF-8"))?;
    let password = addr.password().map(decode).transpose().map_err(|_| refuse("has a password that is not UTF-8"))?;
    let mut auth = Auth::new();
    if password.is_some() {
        auth.username = name;
        auth.password = password;
    } else {
        auth.token = name;
    }
    Ok(Server { addr: without_login(addr).ok_or_else(|| refuse("names no host"))?, auth })
}

/// Removes the credentials, because the client traces addresses.
fn without_login(addr: ServerAddr) -> Option<ServerAddr> {
    let mut url = addr.into_inner();
    url.set_username("").ok()?;
    url.set_password(None).ok()?;
    ServerAddr::from_url(url).ok()
}

/// Checks that a subject can be published to: words between dots, no wildcards.
pub(super) fn check_subject(field: &'static str, subject: &str) -> Result<(), ConfigError> {
    let is_word = |word: &str| !word.is_empty() && !word.contains(|c: char| "*>".contains(c) || c.is_whitespace());
    if subject.split('.').all(is_word) && !subject.contains(char::is_control) {
        return Ok(());
    }
    Err(ConfigError::new(field, "must be words with dots between them, without blanks and wildcards"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(url: &str) -> (Option<String>, Option<String>, Option<String>) {
        let auth = Settings::new(url).map(|s| s.servers[0].auth.clone()).unwrap();
        (auth.username, auth.password, auth.token)
    }

    #[test]
    fn urls_name_hosts_and_credentials() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(login("nats://h"), (None, None, None));
        assert_eq!(login("nats://ann:p%40ss%2Fword@h:1"), (some("ann"), some("p@ss/word"), None));
        assert_eq!(login("tls://s3cret@h"), (None, None, some("s3cret")));
        let hosts = |url| Settings::new(url).map(|s| s.hosts()).unwrap();
        assert_eq!(
            Settings::new("nats://u:p@b").map(|s| s.servers[0].addr.as_url_str().to_owned()).unwrap(),
            "nats://b"
        );
        assert_eq!(hosts("a, nats://u:p@b:5000,nats://[::1]"), ["a:4222", "b:5000", "::1:4222"]);
    }

    #[test]
    fn what_is_no_url_is_refused_and_not_quoted() {
        for url in
            ["", "nats://", "http://h", "ws://s3cret@h", "nats://u:s3cret@h:99999", "nats://a,", "nats://u:%ff@h"]
        {
            let error = Settings::new(url).err().unwrap_or_else(|| panic!("{url} was taken"));
            assert_eq!(error.field(), "url");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn subjects_are_words_between_dots() {
        for subject in ["wshub.messages", "a", "a.b-c.d_e"] {
            assert_eq!(check_subject("subject", subject), Ok(()));
        }
        for subject in ["", ".", "a.", ".a", "a..b", "a b", "a.*", "a.>", "a\r\nPING"] {
            assert!(check_subject("subject", subject).is_err(), "{subject:?} was taken");
        }
    }
}
