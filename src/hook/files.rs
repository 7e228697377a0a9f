//! Files of the project, and globs that match them.
//!
//! Globs are relative to the root, or to the project if the root is its `.claude`. `*` and `?` stop
//! at a `/`, `**` as a whole part of the path does not, `{a,b}` matches either. `?` and `[…]` stand
//! for one byte, so for one ASCII character.

use std::cell::{OnceCell, RefCell};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use globset::{Glob, GlobBuilder, GlobMatcher};
use walkdir::WalkDir;

use super::EDITORS;
use crate::store::layout::SIDE_DIRECTORIES;

/// The most names visited for one glob: a prompt must not wait for a walk through everything.
const SEARCH_LIMIT: usize = 20_000;
/// Directories without documents that hold many files.
const PASSED_OVER: [&str; 2] = [".git", "node_modules"];

/// The characters of globs that do not stand for themselves.
const SPECIAL: [char; 7] = ['*', '?', '[', ']', '{', '}', '\\'];
/// Those without which no glob is wrong.
const FALLIBLE: [char; 5] = ['[', ']', '{', '}', '\\'];

/// A glob for files; compiled when a path first needs it.
#[derive(Clone, Debug)]
pub struct FilePattern {
    text: String,
    compiled: OnceCell<Option<GlobMatcher>>,
}

impl FilePattern {
    /// A glob for files under the root only.
    pub fn under_the_root(text: &str) -> Result<Self, String> {
        if text.starts_with('/') || text.split('/').any(|part| part == "..") {
            return Err("it leads out of the root".to_owned());
        }
        Self::anywhere(text)
    }

    /// A glob for files under the root, or, beginning with `/`, anywhere.
    pub fn anywhere(text: &str) -> Result<Self, String> {
        let text = text.trim_start_matches("./").to_owned();
        if text.contains(FALLIBLE) {
            glob(&text).map_err(|error| error.kind().to_string())?;
        }
        Ok(Self { text, compiled: OnceCell::new() })
    }

    fn is_match(&self, path: &Path) -> bool {
        let (begin, end) = self.ends();
        let bytes = path.as_os_str().as_bytes();
        bytes.starts_with(begin.as_bytes())
            && bytes.ends_with(end.as_bytes())
            && self
                .compiled
                .get_or_init(|| glob(&self.text).ok().map(|glob| glob.compile_matcher()))
                .as_ref()
                .is_some_and(|matcher| matcher.is_match(path))
    }

    /// What each match begins with and ends in. The `/` of `**/` may match nothing.
    fn ends(&self) -> (&str, &str) {
        let text = self.text.as_str();
        let begin = text.find(SPECIAL).map_or(text, |at| &text[..at]);
        let end = text.rfind(SPECIAL).map_or(text, |at| text[at + 1..].trim_start_matches('/'));
        (begin, end)
    }

    fn is_absolute(&self) -> bool {
        self.text.starts_with('/')
    }

    /// The literal directories in front, and the depth of a match below them.
    fn reach(&self) -> (PathBuf, usize) {
        let is_plain = |part: &&str| !part.contains(SPECIAL);
        let parts: Vec<&str> = self.text.split('/').collect();
        let plain: PathBuf = parts.iter().take_while(|part| is_plain(part)).collect();
        let left = parts.iter().skip_while(|part| is_plain(part)).count();
        let is_deep = self.text.contains("**") || self.text.contains('{');
        (plain, if is_deep { usize::MAX } else { left })
    }
}

fn glob(text: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(text).literal_separator(true).empty_alternates(true).build()
}

/// The project that globs refer to.
#[derive(Debug)]
pub struct Project {
    directory: PathBuf,
    complaints: RefCell<Vec<String>>,
}

impl Project {
    /// The project of this root.
    pub fn of_root(root: &Path) -> Self {
        let inner = root.file_name().is_some_and(|name| name == EDITORS);
        let directory = root.parent().filter(|_| inner).unwrap_or(root).to_owned();
        Self { directory, complaints: RefCell::default() }
    }

    /// The project's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file at an absolute path.
    pub fn file(&self, path: &Path) -> ProjectFile<'_> {
        ProjectFile { project: self, path: plain(path), relative: OnceCell::new() }
    }

    /// True if the glob matches anything. Links are followed only in the literal directories in
    /// front, and only within the project.
    pub fn has(&self, pattern: &FilePattern) -> bool {
        let (plain, levels) = pattern.reach();
        let start = self.directory.join(plain);
        if levels == 0 {
            return start.symlink_metadata().is_ok()
                && start.parent().is_some_and(|parent| self.holds(parent));
        }
        if !self.holds(&start) {
            return false;
        }
        let walk = WalkDir::new(&start).min_depth(1).max_depth(levels).into_iter();
        let passed_over =
            |name: &str| PASSED_OVER.contains(&name) || SIDE_DIRECTORIES.contains(&name);
        let walk = walk.filter_entry(|entry| {
            entry.depth() == 0 || !entry.file_name().to_str().is_some_and(passed_over)
        });
        for (seen, entry) in walk.enumerate() {
            if seen == SEARCH_LIMIT {
                self.complaints.borrow_mut().push(format!(
                    "{:?} has to look at more than {SEARCH_LIMIT} files in {}; \
                     it counts as matching nothing",
                    pattern.text,
                    start.display()
                ));
                return false;
            }
            let Ok(entry) = entry else { continue };
            if entry.path().strip_prefix(&self.directory).is_ok_and(|path| pattern.is_match(path)) {
                return true;
            }
        }
        false
    }

    /// The project's directory, and a file's path from there, both as spelt. `path` is absolute.
    pub fn locate(&self, path: &Path) -> Option<(PathBuf, PathBuf)> {
        let path = plain(path);
        let roots = [Some(self.directory.clone()), self.directory.canonicalize().ok()];
        roots.into_iter().flatten().find_map(|root| {
            let relative = path.strip_prefix(&root).ok()?.to_owned();
            Some((root, relative))
        })
    }

    /// True if a directory is the project's or inside it, with all links resolved.
    fn holds(&self, directory: &Path) -> bool {
        match (directory.canonicalize(), self.directory.canonicalize()) {
            (Ok(directory), Ok(project)) => directory.starts_with(project),
            _ => false,
        }
    }

    /// Takes the warnings about searches that were too large.
    pub fn take_complaints(&self) -> Vec<String> {
        std::mem::take(&mut *self.complaints.borrow_mut())
    }
}

/// A file, by all paths that a glob may match.
#[derive(Debug)]
pub struct ProjectFile<'p> {
    project: &'p Project,
    path: PathBuf,
    /// Its paths from the project's directory: either may contain a link.
    relative: OnceCell<Vec<PathBuf>>,
}

impl ProjectFile<'_> {
    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True if the glob matches this file.
    pub fn is_match(&self, pattern: &FilePattern) -> bool {
        if pattern.is_absolute() {
            return pattern.is_match(&self.path);
        }
        let relative = self.relative.get_or_init(|| self.relative());
        relative.iter().any(|path| pattern.is_match(path))
    }

    fn relative(&self) -> Vec<PathBuf> {
        let directory = &self.project.directory;
        let roots = [Some(directory.clone()), directory.canonicalize().ok()];
        let paths = [Some(self.path.clone()), canonical(&self.path)];
        let below = |root: &PathBuf| {
            let paths = paths.iter().flatten();
            paths.filter_map(|path| Some(path.strip_prefix(root).ok()?.to_owned())).collect()
        };
        roots.iter().flatten().flat_map(|root| -> Vec<PathBuf> { below(root) }).collect()
    }
}

/// A path without `.` and `..`, resolved lexically.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

/// The path with all links resolved; of a missing file, those of its directory.
fn canonical(path: &Path) -> Option<PathBuf> {
    path.canonicalize()
        .ok()
        .or_else(|| Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_glob_means_files_below_the_root_however_they_are_spelt() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        fs::create_dir(&real).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let is_meant = |root: &Path, glob: &str, path: PathBuf| {
            Project::of_root(root).file(&path).is_match(&FilePattern::anywhere(glob).unwrap())
        };
        for (root, other) in [(&real, &link), (&link, &real)] {
            assert!(is_meant(root, "*.md", root.join("a.md")));
            assert!(is_meant(root, "./*.md", other.join("a.md")));
            assert!(is_meant(root, "docs/{a,b}.md", root.join("x/../docs/./b.md")));
            assert!(is_meant(&root.join(".claude"), "a.md", root.join("a.md")));
            assert!(!is_meant(root, "*.md", root.join("docs/a.md")), "a star stops at a slash");
            assert!(is_meant(root, "**/*.md", root.join("docs/deep/a.md")));
            assert!(is_meant(root, "**/*.md", root.join("a.md")));
            assert!(!is_meant(root, "**/*.md", "/elsewhere/a.md".into()));
        }
        assert!(is_meant(&real, "/etc/*", "/etc/hosts".into()));
    }

    #[test]
    fn a_glob_is_looked_for_where_it_can_match() {
        let dir = tempfile::tempdir().unwrap();
        for made in ["docs/prd", "node_modules/x", ".state-backups"] {
            fs::create_dir_all(dir.path().join(made)).unwrap();
        }
        for made in ["docs/prd/one.md", "node_modules/x/hidden.md", ".state-backups/hidden.md"] {
            fs::write(dir.path().join(made), "").unwrap();
        }
        std::os::unix::fs::symlink("/", dir.path().join("everything")).unwrap();
        let project = Project::of_root(dir.path());
        let has = |glob: &str| project.has(&FilePattern::under_the_root(glob).unwrap());
        for there in [
            "docs",
            "docs/prd/one.md",
            "docs/*",
            "docs/*/one.md",
            "**/one.md",
            "{x,docs/prd}/o*",
            "*/prd/*",
        ] {
            assert!(has(there), "{there}");
        }
        for absent in
            ["prd", "*.md", "docs/*.md", "**/hidden.md", "*/etc", "**/etc", "docs/one.md", "gone/*"]
                .into_iter()
                .chain(["everything/etc", "everything/etc/*", "everything/*"])
        {
            assert!(!has(absent), "{absent}");
        }
        assert!(has("node_modules/*/hidden.md"), "what is named is looked into");
        assert!(project.take_complaints().is_empty());
    }

    #[test]
    fn two_stars_and_a_slash_match_no_directory_too() {
        let pairs = [("**/b", "b"), ("**/", ""), ("a/**/b", "a/b"), ("{a,b/**}/c", "a/c")];
        for (glob, path) in pairs.into_iter().chain([("a{,b}", "a"), ("*.ts{x,}", "a.ts")]) {
            assert!(FilePattern::anywhere(glob).unwrap().is_match(Path::new(path)), "{glob}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]
        #[test]
        fn a_glob_matches_what_its_matcher_matches(
            glob in r"[ab/]{0,3}(\*|\*\*/|\?|\{a,b\}|[ab/]|\\\*|\[ab\]){0,3}[ab/]{0,3}",
            path in "[ab*/]{0,6}",
        ) {
            let Ok(pattern) = FilePattern::anywhere(&glob) else { return Ok(()) };
            let matcher = super::glob(&glob).unwrap().compile_matcher();
            prop_assert_eq!(pattern.is_match(Path::new(&path)), matcher.is_match(&path));
        }
    }

    #[test]
    fn a_path_that_cannot_match_compiles_nothing() {
        let pattern = FilePattern::anywhere("src/**/*.rs").unwrap();
        assert!(!pattern.is_match(Path::new("docs/a.md")));
        assert!(pattern.compiled.get().is_none());
        assert!(pattern.is_match(Path::new("src/a/b.rs")));
    }

    #[test]
    fn no_glob_leads_out_of_the_root() {
        for bad in ["/etc/*", "../x", "a/../../b"] {
            assert!(FilePattern::under_the_root(bad).is_err(), "{bad}");
        }
        for bad in ["[", "{a", "a**b[z-a]"] {
            assert!(FilePattern::anywhere(bad).is_err(), "{bad}");
        }
    }
}
