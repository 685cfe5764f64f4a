//! The program as a whole: what is typed goes in, text and exit code come out.
#![allow(clippy::unwrap_used)]

mod apply;
mod connection;
mod health;
mod read;
mod status;
mod tokens;
mod usage;
