//! One run: a cluster is formed, works, suffers, is healed, and must be well again.

use std::panic::{AssertUnwindSafe, catch_unwind};

use dislog_cluster::sim::{Bug, put_back};
use dislog_types::{PartitionId, TopicName};

use crate::actor::{Actor, Work};
use crate::oracle::Violation;
use crate::properties::progress;
use crate::properties::streams::Tail;
use crate::workload::partition;
use crate::world::{Event, Mend, World};

/// So many nodes form the cluster.
const EXPECTED: u32 = 3;

/// Up to so many come at the same time and only want to join it.
const JOINING_MAX: usize = 2;

/// The first nodes start within this time.
const STARTING_MS: u64 = 400;

/// How long it may take until the first cluster has its topic.
const FORMING_MS: u64 = 60_000;

/// How long the faults last.
const FAULTS_MS: u64 = 10_000;

/// How long it may take until all is well after the faults.
const HEALING_MS: u64 = 120_000;

/// How often it is looked whether something has come about.
const LOOK_MS: u64 = 200;

/// How a run is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Print what happens.
    pub trace: bool,
    /// Put this bug back.
    pub bug: Option<Bug>,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The first property that did not hold.
    pub violation: Option<Violation>,
    /// Stands for everything that happened, in its order.
    pub digest: u64,
    /// Appends that were acknowledged.
    pub acknowledged: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Looks at a replica that found it at rest.
    pub rests: u64,
    /// How long it was in the world, milliseconds.
    pub world_ms: u64,
    /// How much happened.
    pub steps: u64,
}

/// Runs a seed.
#[must_use]
pub fn run(seed: u64, options: Options) -> Outcome {
    put_back(options.bug);
    let mut world = World::new(seed, options.trace);
    let result = catch_unwind(AssertUnwindSafe(|| live(&mut world)));
    put_back(None);
    let violation = match result {
        Ok(result) => result.err(),
        Err(panic) => {
            let message = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Some(Violation { property: "no panic", message: message.unwrap_or_default() })
        }
    };
    Outcome {
        violation,
        digest: world.trace.digest,
        acknowledged: world.oracle.acknowledged,
        reads: world.oracle.reads,
        rests: world.rests,
        world_ms: world.now_ms,
        steps: world.steps,
    }
}

fn live(world: &mut World) -> Result<(), Violation> {
    let joining = u32::try_from(world.random.index(JOINING_MAX + 1)).expect("it is small");
    for number in 0..EXPECTED + joining {
        let machine = world.add_machine(if number < EXPECTED { EXPECTED } else { 0 });
        let after_ms = world.random.below(STARTING_MS);
        world.after(after_ms, Event::Mend(Mend::Start(machine)));
    }
    let partitions = u32::try_from(world.random.within(1, 3)).expect("it is small");
    form(world, partitions)?;
    employ(world, partitions);
    let until_ms = world.now_ms + 500;
    world.run_until(until_ms)?;
    world.begin_faults();
    let until_ms = world.now_ms + FAULTS_MS;
    world.run_until(until_ms)?;
    world.heal();
    let ids: Vec<PartitionId> = (0..partitions).map(partition).chain([metadata()]).collect();
    recover(world, &ids)
}

fn metadata() -> PartitionId {
    PartitionId { topic: TopicName::system("metadata"), partition: 0 }
}

/// Waits for a cluster and its topic.
fn form(world: &mut World, partitions: u32) -> Result<(), Violation> {
    let retention_bytes = [0, 0, 20_000][world.random.index(3)];
    let work = Work::Creates { partitions, retention_bytes };
    let creates = Actor::new(work, partition(0), &mut world.random);
    let creates = world.add_actor(creates);
    while !world.actors[creates].done {
        let until_ms = world.now_ms + LOOK_MS;
        world.run_until(until_ms)?;
        if until_ms > FORMING_MS {
            let message = "no cluster was formed".to_owned();
            return Err(Violation { property: "progress", message });
        }
    }
    Ok(())
}

/// Sets clients to work.
fn employ(world: &mut World, partitions: u32) {
    for number in 0..partitions {
        let id = i64::from(number) + 1;
        let mut works = vec![
            Work::Plain,
            Work::Plain,
            Work::Idempotent { id, sequence: 0 },
            Work::Idempotent { id: id + 100, sequence: 0 },
            Work::Conditional { expected: 0 },
            Work::Linear,
            Work::Linear,
            Work::Tail(Tail::default()),
            Work::Tail(Tail::default()),
        ];
        if world.random.permille(300) {
            works.push(Work::Trims);
        }
        for work in works {
            let actor = Actor::new(work, partition(number), &mut world.random);
            world.add_actor(actor);
        }
    }
}

/// Waits until all is well: first with the clients at work, then with appends at rest, so that
/// everyone can have everything.
fn recover(world: &mut World, partitions: &[PartitionId]) -> Result<(), Violation> {
    let deadline_ms = world.now_ms + HEALING_MS;
    let before: Vec<u64> = world.actors.iter().map(|actor| actor.successes).collect();
    let served = |world: &World| {
        let mut at_work = world.actors.iter().zip(before.iter().chain(std::iter::repeat(&0)));
        let idle = at_work.find(|(actor, before)| {
            // Who appends at an expected end may always find that another was faster.
            let must = !actor.done && !matches!(actor.work, Work::Conditional { .. });
            must && actor.successes <= **before
        });
        idle.map_or(Ok(()), |(actor, _)| Err(format!("no answer for {:?}", actor.work)))
    };
    wait_for(world, deadline_ms, served)?;
    for actor in &mut world.actors {
        actor.done |= !matches!(actor.work, Work::Tail(_) | Work::Drains { .. });
    }
    wait_for(world, deadline_ms, |world| {
        progress::check(&world.oracle.facts, &world.replicas(), partitions)?;
        for actor in &world.actors {
            let end = world.oracle.facts.of(&actor.partition).map_or(0, |g| g.records.len() as u64);
            if let Work::Tail(tail) = &actor.work
                && tail.next < end
            {
                return Err(format!("a tail is at {} of {end}", tail.next));
            }
        }
        Ok(())
    })
}

fn wait_for(
    world: &mut World,
    deadline_ms: u64,
    holds: impl Fn(&World) -> Result<(), String>,
) -> Result<(), Violation> {
    loop {
        let Err(message) = holds(world) else { return Ok(()) };
        if world.now_ms >= deadline_ms {
            return Err(Violation { property: "progress", message });
        }
        let until_ms = world.now_ms + LOOK_MS;
        world.run_until(until_ms)?;
    }
}
