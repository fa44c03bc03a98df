//! HTTP/2 clients: what they may ask, what they are answered, and what they are not let do.

mod ends;
mod exchanges;
mod floods;
mod flow;
mod heads;
