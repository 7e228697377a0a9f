//! Breadth first through all worlds that can be reached, each looked at once: a broken promise comes with a shortest way there.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::scenario::Scenario;
use super::world::World;

/// From one world to the next.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    pub what: What,
    pub script: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The script or its command does what comes next.
    Steps,
    CommandIsKilled,
    ScriptDies,
    Stops,
    Continues,
    TimeIsUp,
}

/// What a search found.
#[derive(Debug)]
pub struct Found {
    pub states: usize,
    pub moves: usize,
    /// Worlds in which every script has come to its end.
    pub ends: usize,
    /// The first broken promise, and how it came about.
    pub broken: Option<String>,
}

struct Reached {
    world: World,
    from: usize,
    by: Option<Move>,
}

pub fn search(scenario: &Scenario) -> Found {
    let first = scenario.begin();
    let mut known: HashMap<World, ()> = HashMap::from([(first, ())]);
    let mut reached = vec![Reached { world: first, from: 0, by: None }];
    let (mut moves, mut ends, mut here) = (0, 0, 0);
    while let Some(world) = reached.get(here).map(|reached| reached.world) {
        let (next, mut complaint) = scenario.moves(&world);
        ends += usize::from(scenario.is_over(&world));
        complaint = complaint.or_else(|| scenario.complaint(&world, &next));
        if let Some(complaint) = complaint {
            let broken = Some(format!("{complaint}\n{}", way_to(&reached, here)));
            return Found { states: reached.len(), moves, ends, broken };
        }
        for (by, world) in next {
            moves += 1;
            if let Entry::Vacant(entry) = known.entry(world) {
                entry.insert(());
                reached.push(Reached { world, from: here, by: Some(by) });
            }
        }
        here += 1;
    }
    Found { states: reached.len(), moves, ends, broken: None }
}

fn way_to(reached: &[Reached], mut place: usize) -> String {
    let mut way = vec![format!("{:?}", reached[place].world.scripts.map(|script| script.step))];
    while let Some(by) = reached[place].by {
        place = reached[place].from;
        way.push(format!("{} {:?}: {:?}", by.script, by.what, reached[place].world.scripts[by.script].step));
    }
    way.reverse();
    way.join("\n")
}
