//! Hooks: the events of an editor or an agent move the pipeline on.
//!
//! No pipeline is compiled in: `config/skill-rules.json`, or `.claude/skills/skill-rules.json`,
//! defines which prompts activate which skill and which signals a used tool gives ([`rules`]). An
//! event comes as JSON on standard input ([`event`]). A pure function of rules, event and state
//! computes the effects ([`decide`]); they go into the state as one commit, and out as text for the
//! agent ([`announce`]).
//!
//! # Invariants of every hook
//!
//! 1. It ends with 0 or 1 (64 if its command line is wrong), never with 2, which editors read as
//!    "block".
//! 2. A bad rule is skipped and logged; the others work.
//! 3. It never seals a foreign edit of the state.
//! 4. It commits at most once an event, and only a change.

pub mod announce;
pub mod content;
pub mod decide;
pub mod event;
pub mod explain;
pub mod files;
pub mod load;
pub mod named;
pub mod pattern;
pub mod record;
pub mod rules;
pub mod session;
pub mod settings;
pub mod starter;

/// An editor's directory in a project.
pub const EDITORS: &str = ".claude";
