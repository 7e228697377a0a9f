//! The locks of a root on a local file system: everything here touches files, and decides nothing
//! that the modules beside it decide.

pub mod acquire;
pub mod break_lock;
pub mod case;
pub mod clean;
pub mod commit;
pub mod encoding;
pub mod events;
pub mod flock;
pub mod flock_holder;
pub mod gate;
pub mod guard_lifeline;
pub mod implicit;
pub mod journal;
pub mod load;
pub mod park;
pub mod probe;
mod queue_dir;
pub mod records;
pub mod release;
pub mod report;
pub mod reservation;
pub mod root;
pub mod run;
pub mod slot;
pub mod tokens;
pub mod wait;
