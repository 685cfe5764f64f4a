//! Puts the sidecar together: what starts in which order, and how it ends.
