//! The promises, as claims that a test holds up. One binary, a file for each subject.

mod sandbox;

mod cli;
mod contention;
mod damage;
mod documents;
mod races;
mod refusals;
