//! What became of a request.

/// Whether a request that failed took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Nothing of it was ever written to a connection that worked.
    NotSent,
    /// The cluster refused it, and nothing was changed.
    Refused,
    /// It was sent, and no answer says what became of it.
    Unknown,
}

impl Fate {
    /// The fate of a request after another attempt. A proof about one attempt says nothing about
    /// an earlier one.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        self.max(later)
    }
}

/// What a second execution of a request would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repetition {
    /// It is a read: nothing, ever.
    Read,
    /// Guards of its own make a second execution fail or change nothing.
    Guarded,
}

#[cfg(test)]
mod tests {
    use super::Fate::{NotSent, Refused, Unknown};

    #[test]
    fn a_proof_about_one_attempt_says_nothing_about_an_earlier_one() {
        assert_eq!(Unknown.and(NotSent), Unknown);
        assert_eq!(Unknown.and(Refused), Unknown);
        assert_eq!(NotSent.and(Refused), Refused);
        assert_eq!(Refused.and(Unknown), Unknown);
    }
}
