//! The answer to sysctl `KERN_PROCARGS2`: the number of arguments, the program's path, zeros, the
//! arguments with a zero after each, and the environment.

/// Its size: `ARG_MAX`.
pub const SIZE: usize = 1 << 20;

/// The arguments in an answer, with a zero byte after each; empty if it is not as expected.
pub fn parse(answer: &[u8]) -> Vec<u8> {
    let Some((count, rest)) = answer.split_first_chunk() else { return Vec::new() };
    let count = usize::try_from(i32::from_ne_bytes(*count)).unwrap_or(0);
    let path = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
    let rest = rest.get(path..).unwrap_or_default();
    let zeros = rest.iter().take_while(|byte| **byte == 0).count();
    let rest = rest.get(zeros..).unwrap_or_default();
    rest.split_inclusive(|byte| *byte == 0).take(count).flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_neither_the_path_nor_the_environment() {
        let answer =
            [&2_i32.to_ne_bytes(), b"/bin/sh\0\0\0\0sh\0-c\0HOME=/x\0".as_slice()].concat();
        assert_eq!(parse(&answer), b"sh\0-c\0");
        for cut in 0..answer.len() {
            parse(&answer[..cut]);
        }
        assert_eq!(parse(&[&(-1_i32).to_ne_bytes(), b"x\0x\0".as_slice()].concat()), b"");
    }
}
