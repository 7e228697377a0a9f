//! Faults of a command or its script, between any two of its steps.

use super::scenario::{Command, Scenario};
use super::search::{Move, What};
use super::steps::Actor;
use super::world::{Outcome, Step, World};

impl Scenario {
    pub fn faults_of(&self, world: &World, me: usize, moves: &mut Vec<(Move, World)>) {
        let is_running = world.is_running(me);
        let script = &world.scripts[me];
        let mut inject = |what, change: &dyn Fn(&mut Actor<'_>)| {
            let mut actor = Actor { scenario: self, world: *world, me, violation: None };
            change(&mut actor);
            moves.push((Move { what, script: me }, actor.world));
        };
        if is_running && world.faults.kills > 0 {
            inject(What::CommandIsKilled, &|actor| actor.is_killed());
        }
        if script.is_alive && script.step != Step::End && world.faults.deaths > 0 {
            inject(What::ScriptDies, &|actor| actor.script_dies());
        }
        if is_running && !script.is_stopped && world.faults.stops > 0 {
            inject(What::Stops, &|actor| {
                actor.world.faults.stops -= 1;
                actor.world.scripts[me].is_stopped = true;
                actor.others_recheck_soon();
            });
        }
        if script.is_stopped {
            inject(What::Continues, &|actor| {
                actor.world.scripts[me].is_stopped = false;
                actor.others_recheck_soon();
            });
        }
        if is_running && !script.is_frozen && !script.is_stopped && world.faults.freezes > 0 {
            inject(What::Freezes, &|actor| {
                actor.world.faults.freezes -= 1;
                // The waiters that it was about to wake re-check by themselves.
                for code in self.wakeups(&actor.world, me) {
                    actor.notify(code, |script| script.rechecks_soon = true);
                }
                actor.world.scripts[me].is_frozen = true;
            });
        }
        if script.is_frozen {
            inject(What::Continues, &|actor| actor.world.scripts[me].is_frozen = false);
        }
        let waits = matches!(
            self.command(world, me),
            Command::Acquire(..) | Command::AcquireAgain(..) | Command::Commit
        );
        if is_running && waits && !script.is_late && world.faults.expiries > 0 {
            inject(What::TimeIsUp, &|actor| {
                actor.world.faults.expiries -= 1;
                actor.world.scripts[me].is_late = true;
            });
        }
    }
}

impl Actor<'_> {
    pub fn is_killed(&mut self) {
        let me = Some(u8::try_from(self.me).unwrap());
        self.world.faults.kills -= 1;
        self.world.gate = self.world.gate.filter(|_| self.world.gate != me);
        self.world.flock = self.world.flock.filter(|_| self.world.flock != me);
        // It was killed before it could wake these waiters.
        for code in self.scenario.wakeups(&self.world, self.me) {
            self.notify(code, |script| script.rechecks_soon = true);
        }
        let script = self.world.scripts[self.me];
        if script.is_alive && script.attempt == 0 {
            self.world.leave_queue(self.me);
            let script = &mut self.world.scripts[self.me];
            (script.wakeup, script.rechecks_soon, script.is_stopped, script.is_late) =
                (false, false, false, false);
            (script.is_frozen, script.has_lifeline, script.is_excused) = (false, false, false);
            (script.is_broken, script.seems_deadlocked) = (false, false);
            script.attempt = 1;
            script.step = Step::Begin;
        } else {
            self.end(Outcome::Failed);
        }
    }

    pub fn script_dies(&mut self) {
        self.world.faults.deaths -= 1;
        let script = &mut self.world.scripts[self.me];
        script.is_alive = false;
        script.holds = Default::default();
        if script.step == Step::Begin {
            script.step = Step::End;
        }
    }

    /// A waiter that is stopped, or continues, gives no sign.
    pub fn others_recheck_soon(&mut self) {
        for (number, script) in self.world.scripts.iter_mut().enumerate() {
            let has_judged = match script.step {
                Step::PeekJournal(read_record) | Step::PeekRecord(read_record) => {
                    read_record.judged.is_some()
                }
                step => matches!(step, Step::Sleep(_)),
            };
            script.rechecks_soon |= number != self.me && has_judged;
        }
    }
}
