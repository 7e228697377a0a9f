//! fsync(2) of Darwin leaves data in the drive's cache, in any order; F_FULLFSYNC does not, where
//! the file system has it.

use std::io;

use rustix::io::Errno;

use crate::os::files::Confirmation;

/// What file systems without F_FULLFSYNC answer: SMB, exFAT, FUSE.
const UNSUPPORTED: [Errno; 5] =
    [Errno::NOTSUP, Errno::OPNOTSUPP, Errno::NOTTY, Errno::INVAL, Errno::NODEV];

/// Flushes by `full`, or by `plain` where the file system does not have that.
pub fn flush(
    full: impl FnOnce() -> rustix::io::Result<()>,
    plain: impl FnOnce() -> rustix::io::Result<()>,
) -> io::Result<Confirmation> {
    match full() {
        Ok(()) => Ok(Confirmation::Confirmed),
        Err(errno) if UNSUPPORTED.contains(&errno) => {
            plain()?;
            Ok(Confirmation::Unconfirmed)
        }
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_system_without_a_full_flush_gets_the_plain_one() {
        assert_eq!(flush(|| Ok(()), || Err(Errno::IO)).unwrap(), Confirmation::Confirmed);
        for errno in UNSUPPORTED {
            assert_eq!(flush(|| Err(errno), || Ok(())).unwrap(), Confirmation::Unconfirmed);
            assert!(flush(|| Err(errno), || Err(Errno::IO)).is_err(), "a failed flush fails");
        }
        for errno in [Errno::IO, Errno::NOSPC, Errno::BADF] {
            let error = flush(|| Err(errno), || Ok(())).unwrap_err();
            assert_eq!(
                error.raw_os_error(),
                Some(errno.raw_os_error()),
                "a lost write is a failure"
            );
        }
    }
}
