//! How much of what is sampled is tried: a fixed part, or all of it with `PROOFS=all`.

/// Whether everything is tried, which takes hours.
pub fn is_exhaustive() -> bool {
    std::env::var("PROOFS").is_ok_and(|value| value == "all")
}

/// A figure of a sample, or that of an exhaustive run.
pub fn sampled<T>(usual: T, exhaustive: T) -> T {
    if is_exhaustive() { exhaustive } else { usual }
}
