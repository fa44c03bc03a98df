//! The macro that declares a mapping's keys, each once.
//!
//! From one line come the struct's field, its decoding, and its row in `Section::KEYS`, from which unknown keys
//! are told, the JSON Schema is made and the defaults are printed.
//!
//! `preset` has a default, `optional` and `required` an example, both as text that the rule itself must accept;
//! `below` is a section of its own, and `apart` one that is commented out among the defaults.

/// Declares a section: for each key its presence, name, type, rule, text and meaning.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($presence:ident $field:ident $(as $key:literal)?: $type:ty $(= $rule:expr,
        $text:literal)?, $meaning:literal;)* }) => {
        $(#[$doc])*
        pub(super) struct $name {
            /// Where to point if something about the whole is wrong, and whether any of its keys was written.
            #[allow(dead_code, reason = "some sections are only judged key by key")]
            pub(super) whole: $crate::config::source::Spanned<()>,
            $(pub(super) $field: section!(@type $presence $type),)*
        }

        impl $crate::config::decode::Section for $name {
            const KEYS: &'static [$crate::config::decode::Key] = &[$($crate::config::decode::Key {
                name: section!(@name $field $($key)?),
                meaning: $meaning,
                presence: section!(@presence $presence $($text)?),
                rule: &section!(@rule $presence $type $(, $rule)?),
            },)*];

            fn decode(
                map: &$crate::config::decode::Fields<'_>,
                cx: &mut $crate::config::decode::Decoder<'_>,
            ) -> Self {
                Self {
                    whole: $crate::config::source::Spanned { value: (), span: map.span, is_given: map.is_given },
                    $($field: section!(@decode $presence cx map (section!(@name $field $($key)?)) $($text, $rule)?),)*
                }
            }
        }
    };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $key:literal) => { $key };
    (@type preset $type:ty) => { $crate::config::source::Spanned<$type> };
    (@type optional $type:ty) => { Option<$crate::config::source::Spanned<$type>> };
    (@type required $type:ty) => { Option<$crate::config::source::Spanned<$type>> };
    (@type below $type:ty) => { $type };
    (@type apart $type:ty) => { $type };
    (@presence preset $text:literal) => { $crate::config::decode::Presence::Default($text) };
    (@presence optional $text:literal) => { $crate::config::decode::Presence::Optional($text) };
    (@presence required $text:literal) => { $crate::config::decode::Presence::Required($text) };
    (@presence below) => { $crate::config::decode::Presence::Below };
    (@presence apart) => { $crate::config::decode::Presence::Apart };
    (@rule below $type:ty) => { $crate::config::collections::One::<$type>(std::marker::PhantomData) };
    (@rule apart $type:ty) => { $crate::config::collections::One::<$type>(std::marker::PhantomData) };
    (@rule $presence:ident $type:ty, $rule:expr) => { $rule };
    (@decode preset $cx:ident $map:ident ($name:expr) $text:literal, $rule:expr) => {
        $cx.field_default($map, $name, $text, &$rule)
    };
    (@decode optional $cx:ident $map:ident ($name:expr) $text:literal, $rule:expr) => {
        $cx.field_optional($map, $name, &$rule)
    };
    (@decode required $cx:ident $map:ident ($name:expr) $text:literal, $rule:expr) => {
        $cx.field_required($map, $name, $text, &$rule)
    };
    (@decode below $cx:ident $map:ident ($name:expr)) => {
        $cx.field_section($map, $name)
    };
    (@decode apart $cx:ident $map:ident ($name:expr)) => {
        $cx.field_apart($map, $name)
    };
}
pub(super) use section;
