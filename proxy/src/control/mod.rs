//! The stream to the control plane: what the sidecar subscribes to, and how what it receives becomes a
//! [`Snapshot`](crate::policy::Snapshot).

pub mod lookup;
