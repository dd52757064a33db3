//! The one description of a message, from which both encodings are derived.

/// Defines messages. A field is `name: type = NUMBER`; its type determines how it is encoded in protobuf and in JSON.
/// All fields are optional on the wire: an absent or `null` field has its default, and a default is not written.
macro_rules! message {
    ($($(#[$attribute:meta])* $name:ident { $($fields:tt)* })*) => {
        $(message!(@field [$(#[$attribute])*] $name {} $($fields)*);)*
    };
    (@field [$($attributes:tt)*] $name:ident { $($done:tt)* }) => {
        $($attributes)*
        #[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
        #[serde(default)]
        pub(crate) struct $name { $($done)* }
    };
    // A payload, unchanged.
    (@field $a:tt $name:ident { $($done:tt)* } $(#[$m:meta])* $field:ident: Bytes = $tag:tt, $($rest:tt)*) => {
        message!(@field $a $name { $($done)*
            $(#[$m])*
            #[prost(bytes = "bytes", tag = $tag)]
            #[serde(deserialize_with = "from_raw", serialize_with = "to_raw", skip_serializing_if = "Bytes::is_empty")]
            pub(crate) $field: Bytes,
        } $($rest)*);
    };
    // Another message, which may be absent.
    (@field $a:tt $name:ident { $($done:tt)* } $(#[$m:meta])* $field:ident: Option<$of:ident> = $tag:tt,
        $($rest:tt)*) => {
        message!(@field $a $name { $($done)*
            $(#[$m])*
            #[prost(message, optional, tag = $tag)]
            #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
            pub(crate) $field: Option<$of>,
        } $($rest)*);
    };
    // All others.
    (@field $a:tt $name:ident { $($done:tt)* } $(#[$m:meta])* $field:ident: u32 = $tag:tt, $($rest:tt)*) => {
        message!(@plain $a $name { $($done)* $(#[$m])* #[prost(uint32, tag = $tag)] } $field: u32, $($rest)*);
    };
    (@field $a:tt $name:ident { $($done:tt)* } $(#[$m:meta])* $field:ident: u64 = $tag:tt, $($rest:tt)*) => {
        message!(@plain $a $name { $($done)* $(#[$m])* #[prost(uint64, tag = $tag)] } $field: u64, $($rest)*);
    };
    (@field $a:tt $name:ident { $($done:tt)* } $(#[$m:meta])* $field:ident: i32 = $tag:tt, $($rest:tt)*) => {
        message!(@plain $a $name { $($done)* $(#[$m])* #[prost(int32, tag = $tag)] } $field: i32, $($rest)*);
    };
    (@field $a:tt $name:ident { $($done:tt)* } $(#[$m:meta])* $field:ident: i64 = $tag:tt, $($rest:tt)*) => {
        message!(@plain $a $name { $($done)* $(#[$m])* #[prost(int64, tag = $tag)] } $field: i64, $($rest)*);
    };
    (@field $a:tt $name:ident { $($done:tt)* } $(#[$m:meta])* $field:ident: bool = $tag:tt, $($rest:tt)*) => {
        message!(@plain $a $name { $($done)* $(#[$m])* #[prost(bool, tag = $tag)] } $field: bool, $($rest)*);
    };
    (@field $a:tt $name:ident { $($done:tt)* } $(#[$m:meta])* $field:ident: String = $tag:tt, $($rest:tt)*) => {
        message!(@plain $a $name { $($done)* $(#[$m])* #[prost(string, tag = $tag)] } $field: String, $($rest)*);
    };
    (@field $a:tt $name:ident { $($done:tt)* } $(#[$m:meta])* $field:ident: Vec<$of:ident> = $tag:tt,
        $($rest:tt)*) => {
        message!(@plain $a $name { $($done)* $(#[$m])* #[prost(message, repeated, tag = $tag)] } $field: Vec<$of>,
            $($rest)*);
    };
    (@field $a:tt $name:ident { $($done:tt)* } $(#[$m:meta])* $field:ident: BTreeMap<String, String> = $tag:tt,
        $($rest:tt)*) => {
        message!(@plain $a $name { $($done)* $(#[$m])* #[prost(btree_map = "string, string", tag = $tag)] }
            $field: BTreeMap<String, String>, $($rest)*);
    };
    (@field $a:tt $name:ident { $($done:tt)* } $(#[$m:meta])* $field:ident: BTreeMap<String, $of:ident> = $tag:tt,
        $($rest:tt)*) => {
        message!(@plain $a $name { $($done)* $(#[$m])* #[prost(btree_map = "string, message", tag = $tag)] }
            $field: BTreeMap<String, $of>, $($rest)*);
    };
    (@plain $a:tt $name:ident { $($done:tt)* } $field:ident: $type:ty, $($rest:tt)*) => {
        message!(@field $a $name { $($done)*
            #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
            pub(crate) $field: $type,
        } $($rest)*);
    };
}

pub(super) use message;
