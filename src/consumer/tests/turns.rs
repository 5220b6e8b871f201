//! Who gets a message, under random requests of every priority policy, against a model that asks one after the other.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Event {
    Publish,
    /// A request for `batch` messages, by rank or by what must be pending, with the pin that is held or an old one.
    Pull {
        batch: i64,
        number: u64,
        pin: Pin,
    },
    Unpin,
    /// Seconds.
    Pass(i64),
    AckAll,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Pin {
    None,
    Held,
    Old,
}

fn event() -> impl Strategy<Value = Event> {
    let pin = prop_oneof![3 => Just(Pin::None), 2 => Just(Pin::Held), 1 => Just(Pin::Old)];
    prop_oneof![
        5 => Just(Event::Publish),
        5 => (1i64..4, 0u64..4, pin).prop_map(|(batch, number, pin)| Event::Pull { batch, number, pin }),
        1 => Just(Event::Unpin),
        1 => (1i64..8).prop_map(Event::Pass),
        2 => Just(Event::AckAll),
    ]
}

const PIN_TTL: i64 = 10;
const MAX_OUT: usize = 5;

#[derive(Clone, Debug)]
struct Request {
    name: String,
    left: i64,
    number: u64,
    pin: u64,
}

/// Pins are numbered, from 1 on.
#[derive(Debug)]
struct Model {
    policy: PriorityPolicy,
    requests: Vec<Request>,
    pending: u64,
    out: usize,
    seq: u64,
    pins: u64,
    held: u64,
    held_until: i64,
    now: i64,
}

impl Model {
    /// Gives out what there is; one line for each thing said.
    fn settle(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.held > 0 && self.held_until <= self.now {
            self.held = 0;
            lines.push("advisory unpinned g timeout".to_owned());
        }
        while self.pending > 0 && self.out < MAX_OUT {
            let Some(at) = self.turn(&mut lines) else { break };
            self.pending -= 1;
            self.out += 1;
            self.seq += 1;
            let mut request = self.requests.remove(at);
            let pinned = if self.policy == PriorityPolicy::PinnedClient { " pinned" } else { "" };
            lines.push(format!("{} <- {}{pinned}", request.name, self.seq));
            request.left -= 1;
            if request.left > 0 {
                self.insert(request);
            }
        }
        lines
    }

    /// Whose turn it is. Who is passed over goes to the back.
    fn turn(&mut self, lines: &mut Vec<String>) -> Option<usize> {
        let mut passed_over = 0;
        while let Some(request) = self.requests.first_mut() {
            let passes = match self.policy {
                PriorityPolicy::Overflow => request.number > 0 && request.number > self.pending,
                PriorityPolicy::PinnedClient if self.held == 0 && request.pin == 0 => {
                    self.pins += 1;
                    (self.held, self.held_until) = (self.pins, self.now + PIN_TTL);
                    request.pin = self.pins;
                    lines.push("advisory pinned g".to_owned());
                    false
                }
                PriorityPolicy::PinnedClient if request.pin > 0 && request.pin != self.held => {
                    lines.push(format!("{} <- 423", request.name));
                    self.requests.remove(0);
                    continue;
                }
                PriorityPolicy::PinnedClient => request.pin == 0,
                _ => false,
            };
            if !passes {
                return Some(0);
            }
            self.requests.rotate_left(1);
            passed_over += 1;
            if passed_over >= self.requests.len() {
                break;
            }
        }
        None
    }

    fn insert(&mut self, request: Request) {
        let prioritized = self.policy == PriorityPolicy::Prioritized;
        let before = |other: &Request| !prioritized || other.number <= request.number;
        let at = self.requests.iter().position(|other| !before(other)).unwrap_or(self.requests.len());
        self.requests.insert(at, request);
    }
}

/// Without what the model does not know: consumer sequences, counts, and the rest of statuses.
fn short(line: &str) -> String {
    let mut words: Vec<&str> = line.split(' ').collect();
    if line.starts_with("advisory") {
        return line.to_owned();
    }
    let pinned = words.last() == Some(&"pinned");
    words.truncate(3);
    words[2] = words[2].split('/').next().unwrap();
    format!("{}{}", words.join(" "), if pinned { " pinned" } else { "" })
}

fn run(policy: PriorityPolicy, events: Vec<Event>) -> Result<(), TestCaseError> {
    let groups = if policy.is_none() { Vec::new() } else { vec!["g".to_owned()] };
    let mut world = World::new(
        ConsumerConfig {
            ack_policy: AckPolicy::All,
            ack_wait: GoDuration::from_secs(100_000),
            priority_policy: policy,
            priority_groups: groups,
            pinned_ttl: if policy == PriorityPolicy::PinnedClient {
                GoDuration::from_secs(PIN_TTL)
            } else {
                GoDuration(0)
            },
            max_ack_pending: MAX_OUT as i64,
            ..explicit()
        },
        &[],
    );
    let mut model =
        Model { policy, requests: Vec::new(), pending: 0, out: 0, seq: 0, pins: 0, held: 0, held_until: 0, now: 0 };
    // The names of the pins, in order.
    let mut pins: Vec<String> = Vec::new();
    for (nth, event) in events.into_iter().enumerate() {
        let mut expected = Vec::new();
        match event {
            Event::Publish => {
                world.publish("a");
                model.pending += 1;
            }
            Event::Pull { batch, number, pin } => {
                let name = format!("r{nth}");
                let pin = match pin {
                    _ if policy != PriorityPolicy::PinnedClient => 0,
                    Pin::None => 0,
                    Pin::Held => model.held,
                    Pin::Old => model.held.saturating_sub(1),
                };
                let id = pin.checked_sub(1).map_or("", |at| &pins[at as usize]);
                let more = match policy {
                    PriorityPolicy::None => String::new(),
                    PriorityPolicy::Overflow => format!(r#","group":"g","min_pending":{number}"#),
                    PriorityPolicy::PinnedClient => format!(r#","group":"g","id":"{id}""#),
                    PriorityPolicy::Prioritized => format!(r#","group":"g","priority":{number}"#),
                };
                world.pull(&name, &format!(r#"{{"batch":{batch}{more}}}"#));
                if pin > 0 && pin == model.held {
                    model.held_until = model.now + PIN_TTL;
                }
                if pin > 0 && model.held > 0 && pin != model.held {
                    expected.push(format!("{name} <- 423"));
                } else {
                    model.insert(Request { name, left: batch, number, pin });
                }
            }
            Event::Unpin => {
                world.consumer.handle_unpin("g");
                model.held = 0;
                expected.push("advisory unpinned g admin".to_owned());
            }
            Event::Pass(seconds) => {
                world.pass(1_000 * seconds);
                model.now += seconds;
            }
            Event::AckAll => {
                world.ack((model.seq, model.seq, 1), "");
                model.out = 0;
            }
        }
        expected.extend(model.settle());
        let mut said = Vec::new();
        while let Some(output) = world.with(|consumer, view, now| consumer.poll(view, now)) {
            if let Output::Advisory(Advisory::Pinned { pin_id, .. }) = &output {
                pins.push(pin_id.clone());
            }
            said.push(short(&line(&output)));
        }
        prop_assert_eq!(said, expected);
        let info = world.info();
        prop_assert_eq!(info.num_waiting, model.requests.len() as u64);
        let held = info.priority_groups.first().map_or("", |group| &group.pinned_client_id).to_owned();
        prop_assert_eq!(held, model.held.checked_sub(1).map_or("", |at| &pins[at as usize]));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn equal_a_model_that_asks_one_after_the_other(
        policy in prop_oneof![
            Just(PriorityPolicy::None),
            Just(PriorityPolicy::Overflow),
            Just(PriorityPolicy::PinnedClient),
            Just(PriorityPolicy::Prioritized),
        ],
        events in prop::collection::vec(event(), 0..80),
    ) {
        run(policy, events)?;
    }
}
