//! The model server over real sockets.
#![allow(clippy::unwrap_used)]

mod api;
mod conduct;
mod support;
