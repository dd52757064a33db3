//! Reads and verifies JWTs.

use std::time::{Duration, SystemTime};

use jwt_compact::alg::{Hs256, Hs256Key};
use jwt_compact::{AlgorithmExt as _, Token, UntrustedToken};
use serde::{Deserialize, Serialize};
use wshub::Message;
use wshub::protocol::centrifuge::{ConnectionToken, SubscriptionToken, TokenError};

const SECRET: &[u8] = b"secret";

#[derive(Clone, Deserialize, Serialize)]
struct Claims {
    #[serde(default)]
    sub: String,
    #[serde(default)]
    channel: String,
    #[serde(default)]
    channels: Vec<String>,
    info: Option<serde_json::Value>,
}

/// Reads a connection token: the user, the expiry, and the channels to which the server subscribes the client. The
/// protocol checks the expiry.
pub(crate) fn connection(token: &str) -> Result<ConnectionToken, TokenError> {
    let (claims, expires_at) = read(token)?;
    if !claims.channel.is_empty() {
        return Err(TokenError::Invalid);
    }
    let mut token = ConnectionToken::user(&claims.sub);
    if let Some(time) = expires_at {
        token = token.expires_at(time);
    }
    if let Some(info) = info(&claims) {
        token = token.info(info);
    }
    Ok(claims.channels.into_iter().fold(token, ConnectionToken::channel))
}

/// Reads a subscription token: the user, the channel, and the expiry.
pub(crate) fn subscription(token: &str) -> Result<SubscriptionToken, TokenError> {
    let (claims, expires_at) = read(token)?;
    let mut token = SubscriptionToken::new(&claims.sub, &claims.channel);
    if let Some(time) = expires_at {
        token = token.expires_at(time);
    }
    if let Some(info) = info(&claims) {
        token = token.info(info);
    }
    Ok(token)
}

fn info(claims: &Claims) -> Option<Message> {
    claims.info.as_ref().and_then(|info| Message::json(info).ok())
}

fn read(token: &str) -> Result<(Claims, Option<SystemTime>), TokenError> {
    let unchecked = UntrustedToken::new(token).map_err(|_| TokenError::Invalid)?;
    let key = Hs256Key::new(SECRET);
    let validator = Hs256.validator::<Claims>(&key);
    let token: Token<Claims> = validator.validate(&unchecked).map_err(|_| TokenError::Invalid)?;
    let claims = token.claims();
    let since_1970 = |time| Duration::from_secs(u64::try_from(time).unwrap_or_default());
    let expires_at = claims.expiration.map(|time| SystemTime::UNIX_EPOCH + since_1970(time.timestamp()));
    Ok((claims.custom.clone(), expires_at))
}
