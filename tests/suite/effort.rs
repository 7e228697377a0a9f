//! The part of the samples that is tried: a fixed one, or everything with `PROOFS=all`.

/// True if everything is tried, which takes hours.
pub fn is_exhaustive() -> bool {
    std::env::var("PROOFS").is_ok_and(|value| value == "all")
}

/// The size of a sample, or that of an exhaustive run.
pub fn sampled<T>(usual: T, exhaustive: T) -> T {
    if is_exhaustive() { exhaustive } else { usual }
}
