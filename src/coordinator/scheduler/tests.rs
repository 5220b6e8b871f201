//! Decisions one by one, against a dull model, and what they cost.

use std::time::Instant;

use super::super::agent::{Card, Link, Status};
use super::super::random::Random;
use super::*;

fn agent(id: &str, labels: &str, slots: u32) -> Agent {
    let card = Card {
        id: id.into(),
        status: Status::Online,
        labels: serde_json::from_str(labels).unwrap(),
        slots,
        queues: vec!["*".into()],
        ..Card::default()
    };
    Agent { card, ..Agent::default() }
}

fn class(requires: &str, prefer: &str, excluded: &[&str]) -> ClassKey {
    ClassKey {
        queue: "q".into(),
        requires: Requirement::parse(requires).unwrap(),
        prefer: Requirement::parse(prefer).unwrap(),
        excluded: excluded.iter().map(|id| (*id).to_owned()).collect(),
        ..ClassKey::default()
    }
}

fn sticky(token: &str, hard: bool) -> ClassKey {
    ClassKey { sticky: token.into(), hard, ..class("", "", &[]) }
}

/// The scheduler with agents, and what a desk does around it.
#[derive(Default)]
struct Floor {
    ready: Ready,
    roster: Roster,
    /// Class and key of every task, by its number.
    tasks: HashMap<u32, (ClassKey, String)>,
    now: i64,
    turn: u64,
}

impl Floor {
    fn with(agents: Vec<Agent>) -> Floor {
        let mut floor = Floor::default();
        for agent in agents {
            floor.roster.insert(agent);
        }
        floor.ready.sync(&mut floor.roster);
        floor
    }

    /// A second after the one before.
    fn push(&mut self, class: &ClassKey, priority: u8, key: &str, task: u32) -> Spot {
        self.now += 1_000_000_000;
        self.tasks.insert(task, (class.clone(), key.to_owned()));
        self.ready.join(&class.sticky);
        self.ready.push(class, &self.roster, (priority, key), Timestamp(self.now), task)
    }

    fn assign(&mut self, task: u32, agent: u32) {
        let (class, key) = &self.tasks[&task];
        self.turn += 1;
        let holder = self.roster.get_mut(agent).unwrap();
        holder.live.push(task);
        holder.last_turn = self.turn;
        let id = holder.card.id.clone();
        self.ready.started(&class.queue, key);
        self.ready.settle_home(&class.sticky, &id, Timestamp(self.turn as i64), &self.roster);
    }

    fn finish(&mut self, task: u32) {
        let (class, key) = self.tasks.remove(&task).unwrap();
        for agent in self.roster.indices() {
            self.roster.get_mut(agent).unwrap().live.retain(|live| *live != task);
        }
        self.ready.ended(&class.queue, &key);
        self.ready.leave(&class.sticky);
    }

    fn decide(&mut self, admits: impl Fn(&str) -> bool) -> Option<(u32, u32)> {
        let decision = self.ready.next(&mut self.roster, admits);
        if let Some((task, agent)) = decision {
            self.assign(task, agent);
        }
        decision
    }

    /// Runs a pass to its end; each decision as `task>agent`.
    fn run(&mut self) -> String {
        let mut decisions = Vec::new();
        self.ready.begin(&mut self.roster);
        while let Some((task, agent)) = self.decide(|_| true) {
            decisions.push(format!("{task}>{}", self.roster.get(agent).unwrap().card.id));
        }
        decisions.join(" ")
    }
}

fn order(ageing_s: u64, max_per_key: u32) -> Order {
    Order { ageing: Duration::from_secs(ageing_s), max_per_key }
}

#[test]
fn picks_by_priority_then_key_then_age() {
    let mut floor = Floor::with(vec![agent("a", "{}", 100)]);
    let any = class("", "", &[]);
    for (task, priority, key) in [(1, 5, "x"), (2, 5, "x"), (3, 5, "y"), (4, 0, "x"), (5, 5, "x"), (6, 9, "z")] {
        floor.push(&any, priority, key, task);
    }
    assert_eq!(floor.run(), "4>a 1>a 3>a 2>a 5>a 6>a");
}

#[test]
fn waiting_makes_up_for_priority_unless_nothing_ages() {
    // How long the first one, five levels below the second, waits before that comes; and who goes first.
    for (ageing_s, waited_s, expected) in [
        (10, 45, "2>a 1>a"),
        (10, 55, "1>a 2>a"),
        (60, 55, "2>a 1>a"),
        (60, 290, "2>a 1>a"),
        (60, 310, "1>a 2>a"),
        (0, 100_000, "2>a 1>a"),
    ] {
        let mut floor = Floor::with(vec![agent("a", "{}", 100)]);
        floor.ready.arrange("q", order(ageing_s, 0));
        let any = class("", "", &[]);
        floor.push(&any, 5, "", 1);
        floor.now += (waited_s - 1) * 1_000_000_000;
        floor.push(&any, 0, "", 2);
        assert_eq!(floor.run(), expected, "{ageing_s} s a level, {waited_s} s");
    }
}

#[test]
fn filters_by_labels_exclusion_and_slots_and_levels_the_load() {
    let mut floor = Floor::with(vec![agent("a", r#"["gpu"]"#, 1), agent("b", "{}", 2), agent("c", "{}", 4)]);
    floor.push(&class("gpu", "", &[]), 5, "", 1);
    floor.push(&class("gpu", "", &[]), 5, "", 2);
    for task in 3..9 {
        floor.push(&class("", "", &["a"]), 5, "", task);
    }
    floor.push(&class("", "", &[]), 0, "", 9);
    // The oldest of highest priority takes the first of equals; the GPU tasks find the slot taken.
    assert_eq!(floor.run(), "9>a 3>b 4>c 5>c 6>b 7>c 8>c");
    floor.finish(9);
    assert_eq!(floor.run(), "1>a");
    assert_eq!(floor.run(), "", "nobody is free for the other one");
}

#[test]
fn preference_ranks_but_does_not_filter() {
    let mut floor = Floor::with(vec![agent("a", "{}", 2), agent("b", r#"["near"]"#, 1)]);
    floor.push(&class("", "near", &[]), 5, "", 1);
    floor.push(&class("", "near", &[]), 5, "", 2);
    assert_eq!(floor.run(), "1>b 2>a");
}

#[test]
fn those_who_left_and_full_queues_are_passed_over() {
    let mut floor = Floor::with(vec![agent("a", "{}", 10)]);
    let gone = floor.push(&class("", "", &[]), 5, "", 1);
    floor.push(&class("", "", &[]), 5, "", 2);
    floor.push(&ClassKey { queue: "other".into(), ..class("", "", &[]) }, 5, "", 3);
    floor.ready.remove(&gone);
    floor.ready.begin(&mut floor.roster);
    assert_eq!(floor.decide(|queue| queue == "other"), Some((3, 0)));
    assert_eq!(floor.decide(|queue| queue == "other"), None);
    assert_eq!(floor.ready.direct(&class("", "", &[]), "", &mut floor.roster), None, "one is in line");
    floor.ready.begin(&mut floor.roster);
    assert_eq!(floor.decide(|_| true), Some((2, 0)));
    assert_eq!(floor.ready.direct(&class("", "", &[]), "", &mut floor.roster), Some(0));
}

#[test]
fn a_key_at_its_limit_waits_without_holding_up_others() {
    let mut floor = Floor::with(vec![agent("a", "{}", 10)]);
    floor.ready.arrange("q", order(60, 2));
    for task in 0..5 {
        floor.push(&class("", "", &[]), 5, "greedy", task);
    }
    floor.push(&class("gpu!=1", "", &[]), 5, "greedy", 5);
    floor.push(&class("", "", &[]), 5, "modest", 6);
    floor.push(&class("", "", &[]), 5, "", 7);
    floor.push(&class("", "", &[]), 5, "", 8);
    floor.push(&class("", "", &[]), 5, "", 9);
    // Both of another class, and tasks without a key, which no limit is about.
    assert_eq!(floor.run(), "0>a 6>a 7>a 1>a 8>a 9>a");
    assert_eq!(floor.ready.direct(&class("gpu", "", &[]), "greedy", &mut floor.roster), None);
    floor.finish(0);
    assert_eq!(floor.run(), "2>a");
    floor.ready.arrange("q", order(60, 3));
    assert_eq!(floor.run(), "3>a");
    floor.ready.arrange("q", order(60, 0));
    assert_eq!(floor.run(), "4>a 5>a");
}

#[test]
fn tokens_come_home() {
    let mut floor = Floor::with(vec![agent("a", "{}", 1), agent("b", "{}", 3)]);
    floor.push(&sticky("soft", false), 5, "", 1);
    floor.push(&sticky("hard", true), 5, "", 2);
    floor.push(&sticky("hard", true), 5, "", 3);
    floor.push(&sticky("soft", false), 5, "", 4);
    // The first of each goes anywhere; then home ranks first, and the soft one takes another when home is full.
    assert_eq!(floor.run(), "1>a 2>b 3>b 4>b");
    floor.finish(1);
    floor.push(&sticky("hard", true), 5, "", 5);
    assert_eq!(floor.run(), "", "a is free, but its home is b");
    floor.finish(2);
    assert_eq!(floor.run(), "5>b");
    floor.push(&sticky("hard", true), 5, "", 6);
    // A home that is not registered any more holds nobody.
    let b = floor.roster.find("b").unwrap();
    floor.roster.remove(b);
    assert_eq!(floor.run(), "6>a");
    // It is a now, which is taken by another of its kind; and one that a must not have goes elsewhere.
    floor.roster.insert(agent("c", "{}", 1));
    floor.push(&sticky("hard", true), 5, "", 7);
    floor.push(&ClassKey { excluded: vec!["a".into()], ..sticky("hard", true) }, 5, "", 8);
    assert_eq!(floor.run(), "8>c");
}

#[test]
fn agents_that_change_are_noticed() {
    let mut floor = Floor::with(vec![agent("a", "{}", 1)]);
    floor.push(&class("gpu", "", &[]), 5, "", 1);
    assert_eq!(floor.run(), "");
    floor.roster.get_mut(0).unwrap().card.labels.add("gpu", "");
    floor.roster.recast(0);
    floor.roster.get_mut(0).unwrap().link = Link::Gone(Timestamp(1));
    assert_eq!(floor.run(), "");
    floor.roster.get_mut(0).unwrap().link = Link::Unknown;
    assert_eq!(floor.run(), "1>a");
}

/// A key, with rank and number of its tasks.
type Line = (String, Vec<(i64, u32)>);

/// The dullest scheduler: lists, searched whole for each decision.
#[derive(Default)]
struct Model {
    /// Class, priority; keys in the order of their turns.
    lanes: Vec<(ClassKey, u8, Vec<Line>)>,
    limit: u32,
    running: HashMap<String, u32>,
}

impl Model {
    fn push(&mut self, class: &ClassKey, priority: u8, key: &str, at: i64, task: u32) {
        let lane = self.lanes.iter().position(|(other, level, _)| other == class && *level == priority);
        let lane = lane.unwrap_or_else(|| {
            self.lanes.push((class.clone(), priority, Vec::new()));
            self.lanes.len() - 1
        });
        let keys = &mut self.lanes[lane].2;
        match keys.iter_mut().find(|(other, _)| other == key) {
            Some((_, tasks)) => tasks.push((at, task)),
            None => keys.push((key.to_owned(), vec![(at, task)])),
        }
    }

    fn parked(&self, key: &str) -> bool {
        self.limit > 0 && !key.is_empty() && self.running.get(key).is_some_and(|running| *running >= self.limit)
    }

    /// Keys at their limit lose their turn and come back behind the others.
    fn weigh(&mut self, key: &str) {
        for (_, _, keys) in &mut self.lanes {
            if let Some(at) = keys.iter().position(|(other, _)| other == key) {
                let line = keys.remove(at);
                keys.push(line);
            }
        }
    }

    fn decide(&mut self, roster: &Roster) -> Option<u32> {
        let oldest = |keys: &Vec<Line>| {
            keys.iter().filter(|(key, _)| !self.parked(key)).flat_map(|(_, tasks)| tasks).min().copied()
        };
        let served = |class: &ClassKey| roster.iter().any(|(_, agent)| agent.free_slots() > 0 && class.matches(agent));
        let lane = (0..self.lanes.len())
            .filter(|lane| served(&self.lanes[*lane].0))
            .filter_map(|lane| Some((oldest(&self.lanes[lane].2)?, lane)))
            .min()?
            .1;
        let at = self.lanes[lane].2.iter().position(|(key, _)| !self.parked(key))?;
        let (key, mut tasks) = self.lanes[lane].2.remove(at);
        let (_, task) = tasks.remove(0);
        if !tasks.is_empty() {
            self.lanes[lane].2.push((key, tasks));
        }
        Some(task)
    }

    fn remove(&mut self, task: u32) {
        for (_, _, keys) in &mut self.lanes {
            keys.iter_mut().for_each(|(_, tasks)| tasks.retain(|(_, other)| *other != task));
            keys.retain(|(_, tasks)| !tasks.is_empty());
        }
    }
}

#[test]
fn decisions_are_those_of_a_whole_search() {
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let mut draw = move |below: u32| (random.draw() % u64::from(below)) as u32;
        let limit = draw(3);
        let labels = [r#"["x"]"#, r#"["y"]"#, r#"["x","y"]"#, "{}"];
        let mut floor = Floor::with((0..6).map(|n| agent(&format!("a{n}"), labels[n % 4], 1 + n as u32 % 3)).collect());
        floor.ready.arrange("q", order(3, limit));
        let mut model = Model { limit, ..Model::default() };
        let mut waiting: Vec<(u32, Spot)> = Vec::new();
        let mut running: Vec<u32> = Vec::new();
        for step in 0..1500 {
            match draw(10) {
                0..5 => {
                    let excluded = format!("a{}", draw(8));
                    let class = class(["", "x", "y", "x,y", "z"][draw(5) as usize], "", &[&excluded]);
                    let (priority, key) = (draw(3) as u8, ["", "k", "l", "m"][draw(4) as usize]);
                    let spot = floor.push(&class, priority, key, step);
                    model.push(&class, priority, key, floor.now + 3_000_000_000 * i64::from(priority), step);
                    waiting.push((step, spot));
                }
                5 if !waiting.is_empty() => {
                    let (task, spot) = waiting.swap_remove(draw(waiting.len() as u32) as usize);
                    floor.ready.remove(&spot);
                    model.remove(task);
                }
                6 => {
                    // An agent changes.
                    let index = draw(6);
                    let changed = agent(&format!("a{index}"), labels[draw(4) as usize], 1 + draw(3));
                    floor.roster.get_mut(index).unwrap().card = changed.card;
                    floor.roster.recast(index);
                }
                _ if !running.is_empty() => {
                    let task = running.swap_remove(draw(running.len() as u32) as usize);
                    let key = floor.tasks[&task].1.clone();
                    let was = model.parked(&key);
                    *model.running.get_mut(&key).unwrap() -= 1;
                    if was && !model.parked(&key) {
                        model.weigh(&key);
                    }
                    floor.finish(task);
                }
                _ => {}
            }
            if step % 3 > 0 {
                continue;
            }
            floor.ready.begin(&mut floor.roster);
            loop {
                let expected = model.decide(&floor.roster);
                let got = floor.decide(|_| true);
                assert_eq!(got.map(|(task, _)| task), expected, "seed {seed} step {step}");
                let Some((task, agent)) = got else { break };
                let (class, key) = &floor.tasks[&task];
                assert!(class.matches(floor.roster.get(agent).unwrap()));
                *model.running.entry(key.clone()).or_default() += 1;
                waiting.retain(|(other, _)| *other != task);
                running.push(task);
            }
        }
        assert!(floor.ready.classes.len() < IDLE_CLASSES_MAX + 50, "classes nobody waits in are forgotten");
    }
}

/// Time a decision takes on average, while all `agents` have one slot that frees again and again.
#[allow(clippy::disallowed_methods)]
fn cost(agents: u32, tasks: u32, class_of: impl Fn(u32) -> ClassKey, key_of: impl Fn(u32) -> String) -> Duration {
    let label = |n: u32| format!(r#"{{"name":"n{n}","x":true,"mem":{n}}}"#);
    let mut floor = Floor::with((0..agents).map(|n| agent(&format!("a{n}"), &label(n), 1)).collect());
    for task in 0..tasks {
        floor.push(&class_of(task), 5, &key_of(task), task);
    }
    let mut decided = 0;
    let begun = Instant::now();
    // Every free agent takes one; then one frees at a time.
    floor.ready.begin(&mut floor.roster);
    while floor.decide(|_| true).is_some() {
        decided += 1;
    }
    for round in 0..200 {
        let agent = round * 7 % agents;
        if let Some(task) = floor.roster.get(agent).unwrap().live.first().copied() {
            floor.finish(task);
        }
        floor.ready.begin(&mut floor.roster);
        while floor.decide(|_| true).is_some() {
            decided += 1;
        }
    }
    assert!(decided >= 200, "{decided} decisions");
    begun.elapsed() / decided
}

/// The least of a few measurements: others of the machine's programs only make one longer.
fn least(measure: impl Fn() -> Duration) -> Duration {
    (0..3).map(|_| measure()).min().unwrap()
}

/// Below a millisecond each with 10,000 waiting tasks and 1,000 agents, whatever they require; a build without optimization
/// has twenty.
#[test]
fn a_decision_stays_below_a_millisecond() {
    let bar = Duration::from_millis(if cfg!(debug_assertions) { 20 } else { 1 });
    let any = |_| class("x", "", &[]);
    let own = |n: u32| class(&format!("name=n{}", n % 3000), "", &[]);
    let memory = |n: u32| class(&format!("mem>={}", n % 2000), "", &[]);
    let preferring = |n: u32| class("", &format!("name=n{n}"), &[]);
    let declined = |n: u32| class("", "", &[&format!("a{}", n % 1000), &format!("a{}", n / 10)]);
    let tokens = |n: u32| sticky(&format!("t{n}"), true);
    let queues = |n: u32| ClassKey { queue: format!("q{}", n % 1000), ..class("x", "", &[]) };
    let no_key = |_| String::new();
    let figures = [
        ("one class", cost(1000, 10_000, any, no_key)),
        ("one class, a key each", cost(1000, 10_000, any, |n| format!("k{n}"))),
        ("3,000 classes of one agent each, most without one", cost(1000, 10_000, own, no_key)),
        ("2,000 classes by memory", cost(1000, 10_000, memory, no_key)),
        ("10,000 classes by preference", cost(1000, 10_000, preferring, no_key)),
        ("10,000 classes by exclusion, 200 agents", cost(200, 10_000, declined, no_key)),
        ("10,000 hard tokens, 200 agents", cost(200, 10_000, tokens, no_key)),
        ("1,000 queues", cost(1000, 10_000, queues, no_key)),
    ];
    for (name, cost) in figures {
        println!("{cost:>10.1?}  {name}");
    }
    let slowest = figures.iter().map(|(_, cost)| *cost).max().unwrap();
    assert!(slowest < bar, "{slowest:?}");
}

/// A thousand agents take as many tasks at once in both; what is left in line is 200 tasks or 9,000. A cost that grew with
/// that would be 45 times as high.
#[test]
fn a_decision_costs_the_same_however_many_wait() {
    const TIMES: u32 = 4;
    let any = |_| class("x", "", &[]);
    let three = |n: u32| class(["x", "mem>=5", "x,mem>=9"][n as usize % 3], "", &[]);
    let compare = |name: &str, cost: &dyn Fn(u32) -> Duration| {
        let (few, many) = (least(|| cost(1200)), least(|| cost(10_000)));
        println!("{few:>10.1?} with 1,200 tasks, {many:.1?} with 10,000: {name}");
        assert!(
            many < few * TIMES + Duration::from_micros(20),
            "{name}: {few:?} with 1,200 tasks, {many:?} with 10,000"
        );
    };
    compare("one class", &|tasks| cost(1000, tasks, any, |_| String::new()));
    compare("one class, a key each", &|tasks| cost(1000, tasks, any, |n| format!("k{n}")));
    compare("three classes, a hundred keys", &|tasks| cost(1000, tasks, three, |n| format!("k{}", n % 100)));
}
