//! The harness against itself: clients talk to origins without a proxy between.
//!
//! A harness that lies makes every other test worthless, so each part is shown to notice what it must notice.

mod load;
mod origins;
mod proxied;
mod reading;
mod scripted;
