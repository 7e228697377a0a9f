//! Hooks: what an editor or an agent does, told by its events, moves the pipeline on.
//!
//! Nothing of one pipeline is compiled in: `config/skill-rules.json`, or `.claude/skills/skill-rules.json`, says which
//! prompts activate which skill and what a used tool means ([`rules`]). An event comes as JSON on standard input ([`event`]). What follows from rules, event and
//! state is a pure function of the three ([`decide`]); it goes into the state as one commit, and out as text for the
//! agent ([`announce`]).
//!
//! # What holds of every hook
//!
//! 1. It ends with 0 or 1 (64 if its command line is wrong), never with 2, which editors read as "block".
//! 2. A bad rule is skipped and logged; the others work.
//! 3. It never seals what something else wrote into the state.
//! 4. It commits at most once an event, and nothing where nothing would change.

pub mod announce;
pub mod content;
pub mod decide;
pub mod event;
pub mod files;
pub mod load;
pub mod named;
pub mod record;
pub mod rules;
pub mod starter;
