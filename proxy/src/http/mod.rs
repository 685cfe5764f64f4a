//! HTTP as the data path sees it: bodies, headers, clocks, error replies, and the two servers.

pub(crate) mod arrival;
pub(crate) mod authority;
pub(crate) mod body;
pub(crate) mod clock;
pub(crate) mod cookies;
pub(crate) mod deadline;
pub(crate) mod errors;
pub(crate) mod exchange;
pub(crate) mod headers;
pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod interim;
pub(crate) mod pump;
pub(crate) mod replay;
pub(crate) mod response;
pub(crate) mod server;
pub(crate) mod tee;
pub(crate) mod upgrade;
