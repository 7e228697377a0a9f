//! How the commands in hints are to be called.

/// The beginnings of the commands in hints, with the options that chose the state: typed in another
/// shell, they are about the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// This program.
    pub program: String,
    /// This program, for the state in the root's files.
    pub on_files: String,
    /// etcdctl, for the cluster that the command asks.
    pub etcdctl: String,
}

impl From<&str> for Invocation {
    /// The program, and no choice of a state.
    fn from(program: &str) -> Self {
        let program = program.to_owned();
        Self { on_files: program.clone(), program, etcdctl: "etcdctl".to_owned() }
    }
}

impl Default for Invocation {
    fn default() -> Self {
        Self::from("pipeline-state")
    }
}
