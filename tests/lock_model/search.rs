//! Searches all reachable worlds breadth first, each once: a broken promise comes with a shortest
//! path.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasherDefault;

use super::scenario::Scenario;
use super::world::{Quick, World};

/// A step from one world to the next.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    pub what: What,
    pub script: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The script or its command takes its next step.
    Steps,
    CommandIsKilled,
    ScriptDies,
    Stops,
    Freezes,
    Continues,
    TimeIsUp,
}

/// The result of a search.
#[derive(Debug)]
pub struct Found {
    pub states: usize,
    pub moves: usize,
    /// Worlds in which every script has ended.
    pub ends: usize,
    /// The first broken promise, and the path to it.
    pub broken: Option<String>,
}

struct Reached {
    world: World,
    from: usize,
    by: Option<Move>,
}

pub fn search(scenario: &Scenario) -> Found {
    let first = scenario.begin();
    let mut known: HashMap<World, usize, BuildHasherDefault<Quick>> =
        [(first, 0)].into_iter().collect();
    let mut reached = vec![Reached { world: first, from: 0, by: None }];
    let (mut moves, mut ends, mut here) = (0, Vec::new(), 0);
    let mut ways = Vec::new();
    while let Some(world) = reached.get(here).map(|reached| reached.world) {
        let (next, mut violation) = scenario.moves(&world);
        if scenario.is_over(&world) {
            ends.push(here);
        }
        violation = violation.or_else(|| scenario.violation(&world, &next));
        if let Some(violation) = violation {
            let broken = Some(format!("{violation}\n{}", way_to(&reached, here)));
            return Found { states: reached.len(), moves, ends: ends.len(), broken };
        }
        for (by, world) in next {
            moves += 1;
            let next = reached.len();
            let to = match known.entry(world) {
                Entry::Occupied(entry) => *entry.get(),
                Entry::Vacant(entry) => {
                    reached.push(Reached { world, from: here, by: Some(by) });
                    *entry.insert(next)
                }
            };
            if matches!(by.what, What::Steps | What::Continues) {
                ways.push((to, here));
            }
        }
        here += 1;
    }
    let lost = without_way_to(&ends, ways, reached.len());
    let broken =
        lost.map(|place| format!("a script never comes to an end\n{}", way_to(&reached, place)));
    Found { states: reached.len(), moves, ends: ends.len(), broken }
}

/// The first world from which no end is reachable, even without further faults. `ways` run from
/// target to source.
fn without_way_to(ends: &[usize], mut ways: Vec<(usize, usize)>, count: usize) -> Option<usize> {
    ways.sort_unstable();
    let mut has_way = vec![false; count];
    let mut open = ends.to_vec();
    while let Some(world) = open.pop() {
        if !std::mem::replace(&mut has_way[world], true) {
            let first = ways.partition_point(|(to, _)| *to < world);
            let before =
                ways[first..].iter().take_while(|(to, _)| *to == world).map(|(_, from)| *from);
            open.extend(before);
        }
    }
    has_way.iter().position(|has_way| !has_way)
}

fn way_to(reached: &[Reached], mut place: usize) -> String {
    let mut way = vec![format!("{:?}", reached[place].world.scripts.map(|script| script.step))];
    while let Some(by) = reached[place].by {
        place = reached[place].from;
        way.push(format!(
            "{} {:?}: {:?}",
            by.script, by.what, reached[place].world.scripts[by.script].step
        ));
    }
    way.reverse();
    way.join("\n")
}
