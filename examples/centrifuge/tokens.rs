//! JWTs: what they say, and whether they are ours.

use std::time::{Duration, SystemTime};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::Deserialize;
use wshub::Message;
use wshub::protocol::centrifuge::{ConnectionToken, SubscriptionToken, TokenError};

const SECRET: &[u8] = b"secret";

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    sub: String,
    exp: Option<u64>,
    #[serde(default)]
    channel: String,
    #[serde(default)]
    channels: Vec<String>,
    info: Option<serde_json::Value>,
}

impl Claims {
    fn expires_at(&self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(self.exp?))
    }

    fn info(&self) -> Option<Message> {
        self.info.as_ref().and_then(|info| Message::json(info).ok())
    }
}

/// Who connects, for how long, and to which channels the server subscribes it.
pub(crate) fn connection(token: &str) -> Result<ConnectionToken, TokenError> {
    let claims = read(token)?;
    if !claims.channel.is_empty() {
        return Err(TokenError::Invalid);
    }
    let mut token = ConnectionToken::user(&claims.sub);
    if let Some(time) = claims.expires_at() {
        token = token.expires_at(time);
    }
    if let Some(info) = claims.info() {
        token = token.info(info);
    }
    Ok(claims.channels.into_iter().fold(token, ConnectionToken::channel))
}

/// Who may subscribe to which channel, and for how long.
pub(crate) fn subscription(token: &str) -> Result<SubscriptionToken, TokenError> {
    let claims = read(token)?;
    let mut token = SubscriptionToken::new(&claims.sub, &claims.channel);
    if let Some(time) = claims.expires_at() {
        token = token.expires_at(time);
    }
    if let Some(info) = claims.info() {
        token = token.info(info);
    }
    Ok(token)
}

fn read(token: &str) -> Result<Claims, TokenError> {
    let mut rules = Validation::new(Algorithm::HS256);
    rules.required_spec_claims.clear();
    rules.validate_aud = false;
    rules.leeway = 0;
    decode(token, &DecodingKey::from_secret(SECRET), &rules).map(|token| token.claims).map_err(|error| {
        if *error.kind() == ErrorKind::ExpiredSignature { TokenError::Expired } else { TokenError::Invalid }
    })
}
