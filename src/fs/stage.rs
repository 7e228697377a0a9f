//! Files under temporary names, removed unless they are kept.

use rustix::io::Errno;

use super::{Dir, Disk, FsResult};

pub use super::temporary::{is_temporary, temporary};

/// Whether a file must survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It is synced before it is put in place.
    Fsync,
    /// The page cache is enough.
    None,
}

/// A file under a temporary name, or one that is not needed yet; removed unless it is kept.
#[derive(Debug)]
pub struct StagedFile<'a> {
    disk: &'a Disk,
    dir: &'a Dir,
    name: String,
    discard: Discard,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Discard {
    OnDrop,
    Never,
}

impl<'a> StagedFile<'a> {
    /// Takes ownership of an existing file.
    pub fn of(disk: &'a Disk, dir: &'a Dir, name: String) -> Self {
        Self { disk, dir, name, discard: Discard::OnDrop }
    }

    /// Keeps it, or records that it was renamed.
    pub fn keep(mut self) {
        self.discard = Discard::Never;
    }
}

impl Drop for StagedFile<'_> {
    fn drop(&mut self) {
        if self.discard == Discard::OnDrop {
            // The next writer tries again.
            let _ = self.disk.unlink(self.dir, &self.name);
        }
    }
}

impl Disk {
    /// Writes a file under a temporary name. If the name is taken, the file under it is a dead
    /// writer's, since the caller holds the lock.
    pub fn stage<'a>(
        &'a self,
        dir: &'a Dir,
        name: &str,
        bytes: &[u8],
        sync: Durability,
    ) -> FsResult<StagedFile<'a>> {
        self.stage_parts(dir, name, [bytes], sync)
    }

    /// The same for a text in parts.
    pub fn stage_parts<'a, 'b>(
        &'a self,
        dir: &'a Dir,
        name: &str,
        parts: impl IntoIterator<Item = &'b [u8]>,
        sync: Durability,
    ) -> FsResult<StagedFile<'a>> {
        let file = match self.create(dir, name) {
            Err(error) if error.is(Errno::EXIST) => {
                self.unlink(dir, name)?;
                self.create(dir, name)?
            }
            result => result?,
        };
        let staged = StagedFile::of(self, dir, name.to_owned());
        let path = dir.path_of(name);
        for part in parts {
            self.write(&file, &path, part)?;
        }
        if sync == Durability::Fsync {
            self.sync(&file, &path)?;
        }
        Ok(staged)
    }
}
