//! Numbers with their nouns.

/// `1 lock`, `2 locks`: a number and a noun that takes an s.
pub fn count(number: usize, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn one_is_singular() {
        assert_eq!([0, 1, 2].map(|n| count(n, "lock")), ["0 locks", "1 lock", "2 locks"]);
    }
}
