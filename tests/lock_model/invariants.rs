//! The promises that must hold in every reachable world, checked against what the scripts were
//! granted and when they came, not against the program's own conclusions.

use super::gated::is_marked;
use super::scenario::{Command, Scenario};
use super::search::{Move, What};
use super::steps::Actor;
use super::world::{Held, LOCKS, SCRIPTS, Step, World, code_of, identity, script_code, script_of};
use pipeline_state::lock::admission::first_blocker;
use pipeline_state::lock::edit::RecordEdit;
use pipeline_state::lock::liveness::LivenessOracle as _;
use pipeline_state::lock::{Mode, Record, Waiter};
use pipeline_state::name::Name;

impl Scenario {
    pub fn is_over(&self, world: &World) -> bool {
        world.scripts.iter().all(|script| script.step == Step::End)
    }

    /// The first promise that is broken.
    pub fn violation(&self, world: &World, moves: &[(Move, World)]) -> Option<String> {
        self.two_at_once(world)
            .or_else(|| self.two_on_record(world))
            .or_else(|| self.one_of_several(world))
            .or_else(|| self.never_woken(world))
            .or_else(|| self.stuck(world, moves))
    }

    /// The lock that a script relies on: from the grant until it begins to give it back.
    fn relies_on(&self, world: &World, script: usize, lock: usize) -> Option<Held> {
        let it = &world.scripts[script];
        let is_begun = it.step != Step::Begin || it.attempt > 0;
        let gives_back = is_begun
            && match self.command(world, script) {
                Command::Release(locks) => locks.contains(&lock),
                Command::GiveAllBack => true,
                _ => false,
            };
        // From the moment a downgrade begins it shares.
        let shares = is_begun
            && match self.command(world, script) {
                Command::Acquire(locks, Mode::Shared) => locks.contains(&lock),
                _ => false,
            };
        let held = it.holds[lock].filter(|_| it.is_alive && !it.is_broken && !gives_back)?;
        Some(if shares { Held::Shared } else { held })
    }

    fn two_at_once(&self, world: &World) -> Option<String> {
        for lock in 0..LOCKS {
            let holders = (0..SCRIPTS)
                .filter_map(|script| Some((script, self.relies_on(world, script, lock)?)));
            let holders: Vec<(usize, Held)> = holders.collect();
            if holders.len() > 1 && holders.iter().any(|(_, held)| *held == Held::Alone) {
                return Some(format!("lock {lock} is held by {holders:?} at once"));
            }
            let commits = (0..SCRIPTS)
                .filter(|script| lock == 0 && world.scripts[*script].step == Step::Commit);
            for committer in commits {
                // A script that holds the state may commit, and so may a command that outlived it.
                if let Some((holder, _)) = holders.iter().find(|(holder, _)| *holder != committer) {
                    return Some(format!("{committer} commits while {holder} holds the state"));
                }
            }
        }
        None
    }

    fn two_on_record(&self, world: &World) -> Option<String> {
        for (lock, name) in self.names.iter().enumerate() {
            let record = world.effective(&self.libraries, lock, name);
            let living: Vec<_> =
                record.holders.iter().filter(|grant| !world.is_dead(grant)).collect();
            if living.len() > 1 && living.iter().any(|grant| grant.mode == Mode::Exclusive) {
                return Some(format!("on record for {name}: {living:?}"));
            }
        }
        None
    }

    /// A script that only ever requests all locks at once has all or none of them.
    fn one_of_several(&self, world: &World) -> Option<String> {
        for script in (0..SCRIPTS).filter(|script| world.scripts[*script].is_alive) {
            let takes_all = |command: &Command| match command {
                Command::Acquire(locks, _) | Command::Release(locks) => locks.len() == LOCKS,
                Command::GiveAllBack => true,
                _ => false,
            };
            if self.names.len() < LOCKS || !self.scripts[script].iter().all(takes_all) {
                continue;
            }
            let owner = identity(script_code(script));
            let is_on = |(lock, name): (usize, &Name)| {
                let record = world.effective(&self.libraries, lock, name);
                record
                    .holders
                    .iter()
                    .any(|grant| grant.owner.as_ref().is_some_and(|held| held.is(&owner)))
            };
            let count = self.names.iter().enumerate().filter(|place| is_on(*place)).count();
            if count != 0 && count != LOCKS {
                return Some(format!("{script} is granted one of two"));
            }
        }
        None
    }

    /// A sleeper that nothing blocks, and that no event will wake.
    fn never_woken(&self, world: &World) -> Option<String> {
        for (number, script) in world.scripts.iter().enumerate().filter(|_| !self.is_apart) {
            let Step::Sleep(ends) = script.step else { continue };
            let is_ended = ends.iter().any(|code| *code != 0 && !world.lives(*code));
            if script.wakeup
                || script.rechecks_soon
                || script.is_late
                || is_ended
                || self.is_to_be_woken(world, number)
            {
                continue;
            }
            let request = self.request(world, number);
            let records: Vec<(Name, Record)> = self
                .locks(world, number)
                .iter()
                .map(|lock| {
                    (
                        self.names[*lock].clone(),
                        world
                            .effective(&self.libraries, *lock, &self.names[*lock])
                            .as_ref()
                            .clone(),
                    )
                })
                .collect();
            if first_blocker(&records, request, world).is_none() {
                return Some(format!(
                    "{number} sleeps, and nothing blocks it and no event will wake it"
                ));
            }
        }
        None
    }

    fn is_to_be_woken(&self, world: &World, parker: usize) -> bool {
        let code = world.code(parker);
        world.scripts.iter().enumerate().any(|(number, script)| {
            // A late waiter is about to leave the queue, and wakes the next one.
            let leaves =
                number != parker && script.is_late && script.is_queued && world.is_running(number);
            leaves || self.wakeups(world, number).contains(&code)
        })
    }

    fn stuck(&self, world: &World, moves: &[(Move, World)]) -> Option<String> {
        let is_stuck = !moves.iter().any(|(by, _)| by.what == What::Steps);
        let is_anybody_stopped = world.scripts.iter().any(|script| script.is_stopped);
        if !is_stuck || is_anybody_stopped || self.is_over(world) {
            return None;
        }
        let mut frozen = (0..SCRIPTS).filter(|script| world.scripts[*script].is_frozen).peekable();
        if frozen.peek().is_none() {
            return Some("all wait, and none can move".to_owned());
        }
        if (0..SCRIPTS).all(|script| {
            world.scripts[script].is_frozen || world.scripts[script].step == Step::End
        }) {
            return None;
        }
        // A holder is waited for, frozen or not.
        let holds = |script: usize| {
            let number = u8::try_from(script).ok();
            let is_owner = |lock: usize| {
                let record = world.effective(&self.libraries, lock, &self.names[lock]);
                let owner = identity(script_code(script));
                record
                    .holders
                    .iter()
                    .any(|grant| grant.owner.as_ref().is_some_and(|held| held.is(&owner)))
            };
            world.gate == number || world.flock == number || (0..self.names.len()).any(is_owner)
        };
        (!frozen.any(holds)).then(|| "all wait for one that is frozen and holds nothing".to_owned())
    }
}

impl Actor<'_> {
    /// Complains if this grant or commit goes before an earlier waiter that is in its place. A
    /// holder does not queue for its own lock. `excused`: when the records were read.
    pub fn check_overtaken(&mut self, edits: &[RecordEdit], excused: [bool; SCRIPTS]) {
        let (world, scenario) = (&self.world, self.scenario);
        let request = scenario.request(world, self.me);
        if edits.iter().any(|edit| request.requester.own_grant(&edit.name, &edit.record).is_some())
        {
            return;
        }
        let mine = scenario.locks(world, self.me);
        let earlier = world
            .queue
            .iter()
            .flatten()
            .map(|script| usize::from(*script))
            .take_while(|script| *script != self.me);
        let overtaken = earlier.into_iter().find(|earlier| {
            let it = &world.scripts[*earlier];
            // A script that came after the record was read came later.
            let process = &scenario.request(world, *earlier).requester.process;
            let is_seen = edits.iter().any(|edit| edit.original().position_of(process).is_some());
            let is_excused = excused[*earlier] && edits.iter().any(|edit| is_marked(edit, process));
            let lets_others_pass = it.is_stopped || it.is_late || is_excused;
            let waits = is_seen && it.is_alive && world.is_running(*earlier) && !lets_others_pass;
            let shares_lock =
                scenario.locks(world, *earlier).iter().any(|lock| mine.contains(lock));
            waits
                && shares_lock
                && scenario.request(world, *earlier).spec.mode.conflicts(request.spec.mode)
        });
        if let Some(overtaken) = overtaken {
            self.violation = Some(format!("{} overtakes {overtaken}", self.me));
        }
    }
}

impl Actor<'_> {
    /// Complains if a living waiter that still waits is removed from a record.
    pub fn check_removed(&mut self, edits: &[RecordEdit]) {
        let (world, me) = (&self.world, self.me);
        let gone = edits.iter().flat_map(|edit| {
            let is_gone = |waiter: &&Waiter| edit.record.position_of(&waiter.process).is_none();
            edit.original().waiters.iter().filter(is_gone)
        });
        let removed = gone.map(|waiter| code_of(&waiter.process)).find(|code| {
            let script = script_of(*code);
            script != me && world.lives(*code) && world.scripts[script].is_alive
        });
        if let Some(code) = removed {
            self.violation =
                Some(format!("{me} takes a living waiter off the record: {}", script_of(code)));
        }
    }
}

impl World {
    pub fn excused(&self) -> [bool; SCRIPTS] {
        self.scripts.map(|script| script.is_excused)
    }

    pub fn jois_queued(&mut self, script: usize) {
        self.leave_queue(script);
        self.scripts[script].is_queued = true;
        if let Some(place) = self.queue.iter_mut().find(|place| place.is_none()) {
            *place = u8::try_from(script).ok();
        }
    }

    pub fn leave_queue(&mut self, script: usize) {
        self.scripts[script].is_queued = false;
        let script = u8::try_from(script).ok();
        let mut others = self.queue.into_iter().filter(|place| *place != script && place.is_some());
        self.queue = std::array::from_fn(|_| others.next().flatten());
    }
}
