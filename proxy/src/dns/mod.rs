//! DNS names of servers outside the mesh, and the addresses that they have now.
//!
//! Everything here runs on the control thread. Each name in use has a task that looks it up again whenever its answer has
//! expired; what changes becomes a new snapshot, and requests never wait for DNS, other than the first one for a name.

mod follow;
mod name;
mod names;
mod own;
mod resolver;

pub use name::{Name, Outcome, Standing, Trouble};
pub(crate) use names::Names;
pub(crate) use own::OwnListeners;
pub use resolver::{Answer, Resolver};
pub(crate) use resolver::{Family, Question};

/// What is looked up, and how: the system's resolver, or a test's.
pub(crate) type LookUp = std::sync::Arc<
    dyn Fn(Question) -> futures_util::future::BoxFuture<'static, Result<Answer, Trouble>>
        + Send
        + Sync,
>;

#[cfg(test)]
mod tests;
