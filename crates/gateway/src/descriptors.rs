//! The API's descriptors, in a pool.

use everspan_proto::DESCRIPTORS;
use prost_reflect::{DescriptorError, DescriptorPool};

/// The pool of what the server speaks.
///
/// # Errors
/// If the set is damaged: a defect of the build.
pub(crate) fn pool() -> Result<DescriptorPool, DescriptorError> {
    DescriptorPool::decode(DESCRIPTORS)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::LazyLock;

    use prost_reflect::DescriptorPool;

    /// One for all tests: messages of different pools are never equal.
    pub(crate) fn pool() -> DescriptorPool {
        static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| super::pool().unwrap());
        POOL.clone()
    }

    #[test]
    fn the_set_is_complete() {
        let pool = pool();
        for (service, rpc, _) in crate::RPCS {
            let service = pool.get_service_by_name(service).unwrap();
            assert!(service.methods().any(|m| m.name() == *rpc), "{rpc}");
        }
        let rpcs: usize = pool
            .services()
            .filter(|s| s.full_name().starts_with("temporal.api."))
            .map(|s| s.methods().count())
            .sum();
        assert_eq!(rpcs, crate::RPCS.len());
    }
}
