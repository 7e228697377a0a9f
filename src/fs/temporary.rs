//! The names of temporary files.

/// A temporary file's name. It contains the inode of the lock that its writer holds: a process that
/// holds that lock and finds the name knows that its writer is dead, and a writer that lost its
/// lock to `rm -rf .locks` cannot collide with another writer's file.
pub fn temporary(lock_inode: u64, purpose: &str) -> String {
    format!(".pipeline-state-{lock_inode}-{purpose}.tmp")
}

/// Returns whether [`temporary`] makes this name.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with(".pipeline-state-") && name.ends_with(".tmp")
}
