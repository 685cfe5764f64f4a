//! The contract between Outrigger's control plane, its sidecars and its tools.
//!
//! The `.proto` files in `proto/outrigger/` are the source and document every field. The code in `src/generated/` is
//! checked in, so that building needs no proto compiler; `cargo run -p outrigger-proto --features codegen --bin generate`
//! makes it again.

pub mod spiffe;

/// Between a sidecar and the control plane: subscriptions, deltas, announcements.
pub mod dataplane {
    #[allow(missing_debug_implementations, clippy::all, unused_qualifications)]
    pub mod v1 {
        include!("generated/outrigger.dataplane.v1.rs");
    }
}

/// Certificates and the trust bundle.
pub mod identity {
    #[allow(missing_debug_implementations, clippy::all, unused_qualifications)]
    pub mod v1 {
        include!("generated/outrigger.identity.v1.rs");
    }
}

/// Management of resources, sidecars and join tokens.
pub mod api {
    #[allow(missing_debug_implementations, clippy::all, unused_qualifications)]
    pub mod v1 {
        include!("generated/outrigger.api.v1.rs");
    }
}

/// Golden figures that sidecars report upwards.
pub mod telemetry {
    #[allow(missing_debug_implementations, clippy::all, unused_qualifications)]
    pub mod v1 {
        include!("generated/outrigger.telemetry.v1.rs");
    }
}

/// Shares of budgets of tokens.
pub mod budget {
    #[allow(missing_debug_implementations, clippy::all, unused_qualifications)]
    pub mod v1 {
        include!("generated/outrigger.budget.v1.rs");
    }
}

/// Encoded `FileDescriptorSet` of all packages, for gRPC server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptors.bin");
