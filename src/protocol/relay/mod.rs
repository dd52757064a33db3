//! Users and the devices that they may see: JSON messages between user connections and one relay per device.
//!
//! A user has any number of connections; a device has one, its relay. The application's loader subscribes each user to
//! devices, and a device's messages go to the users that are subscribed to it.
//!
//! ```
//! use wshub::protocol::relay::{Identity, Relay};
//! use wshub::{Rejection, Server};
//!
//! let relay = Relay::builder(|head| {
//!     let user = head.query_param("user").ok_or_else(Rejection::unauthorized)?;
//!     Ok(Identity::new(user, head.query_param("device")))
//! })
//! .loader(|user| Ok(if user == "ann" { vec!["lock".into()] } else { Vec::new() }))
//! .on_message(|conn, mut message| {
//!     match conn.device() {
//!         // From the lock to everybody who may see it.
//!         Some(device) => {
//!             message.device_id = Some(device.to_owned());
//!             conn.relay().broadcast_to_device(device, &message);
//!         }
//!         // From a user to the lock.
//!         None if conn.may_see(message.device_id.as_deref().unwrap_or_default()) => {
//!             message.user_id = Some(conn.user().to_owned());
//!             if !conn.relay().send_to_device(message.device_id.as_deref().unwrap_or_default(), &message) {
//!                 conn.send_error("offline", "the device is not connected");
//!             }
//!         }
//!         None => conn.send_error("forbidden", "no access to this device"),
//!     }
//!     Ok(())
//! })
//! .build()?;
//! let server = Server::bind("127.0.0.1:0")?.websocket("/ws", relay.hub());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Messages
//!
//! Each message is a text message: a JSON object with `type` and, if they apply, `deviceId`, `userId` and `payload`, in
//! this order. The payload is any JSON and is passed on unchanged, byte for byte. Unknown fields are ignored, and lost
//! when a message is passed on. An invalid message is answered with an `error`, and the connection stays open:
//!
//! ```json
//! {"type":"error","payload":{"code":"bad_message","message":"missing field `type` at line 1 column 2"}}
//! {"type":"error","payload":{"code":"rate_limited","message":"too many messages","retryAfterMs":420}}
//! ```
//!
//! The relay passes nothing on by itself, so the application decides whether to trust `deviceId` and `userId` of a
//! received message. Set them before you pass it on, as above: a peer can write anything there.
//!
//! # One relay for each device
//!
//! When a second connection arrives for a device, the newer one replaces the older, which is closed with 4001 and the
//! reason `replaced`. Alternatively the newer one is refused with 409, see [`DevicePolicy`]. The hooks
//! [`on_device_connect`] and [`on_device_disconnect`] alternate for each device and never run at the same time. A
//! replaced relay is reported as a disconnect and then a connect.
//!
//! # Subscriptions
//!
//! The loader returns the devices of a user. It runs when the user's first connection arrives, before any of its
//! messages is handled, and again after [`invalidate_user`] and [`invalidate_device`]. When the last connection is
//! gone, the subscriptions are dropped. The loader runs with no lock held, on the thread that needs its result, and may
//! block. An invalidation discards the result of a load that is under way. Change the source first, then invalidate,
//! and no outdated subscription remains.
//!
//! [`on_device_connect`]: RelayBuilder::on_device_connect
//! [`on_device_disconnect`]: RelayBuilder::on_device_disconnect
//! [`invalidate_user`]: Relay::invalidate_user
//! [`invalidate_device`]: Relay::invalidate_device

mod builder;
mod conn;
mod devices;
mod handle;
mod message;
mod subscriptions;
mod types;

pub use message::RelayMessage;
pub use types::{Conn, DevicePolicy, Identity, Relay, RelayBuilder};

/// The close code of a relay connection whose device has got a newer one; the reason is `replaced`.
pub const REPLACED: u16 = 4001;
