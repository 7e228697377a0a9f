//! Calls of either arm of an enum: work in files, or on a cluster.

/// The same call of both arms, or one call for each.
macro_rules! each {
    ($arms:ident: $value:expr, $one:ident => $call:expr) => {
        $crate::arms::each!($arms: $value, $one => $call, $one => $call)
    };
    ($arms:ident: $value:expr, $files:ident => $call:expr, $remote:ident => $other:expr) => {
        match $value {
            $arms::Files($files) => $call,
            #[cfg(feature = "etcd")]
            $arms::Remote($remote) => $other,
        }
    };
}
pub(crate) use each;
