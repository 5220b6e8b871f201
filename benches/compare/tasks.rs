//! Work handed to agents: as tasks through our coordinator, where each step of each is durable before the next, and as the
//! messages of a plain work queue on nats-server, which knows of no leases, results or dead letters.

use crate::load::{Load, Measured};
use crate::process::Process;
use crate::rows::{CONSUMER, Control, Meter, Outcome, STREAM, SUBJECT, Scale, WINDOW, per_second, start_persist};
use crate::support::server::{Program, Server};
use serde_json::json;

/// How long the paced half of a measurement lasts, in seconds.
const PACED_S: f64 = 2.0;
/// Work that all agents together may have at once.
const IN_FLIGHT: u64 = 1024;

macro_rules! lines {
    ($agents:literal) => {
        [
            Line {
                name: concat!("tasks, ", $agents, ": submit to completed (nats-server: plain work queue)"),
                unit: Unit::PerSecond,
                bars: &[Bar::OwnAtLeast(10_000.0)],
            },
            Line {
                name: concat!("tasks, ", $agents, ": submit to delivery at half of that load, p50"),
                unit: Unit::Microseconds,
                bars: &[],
            },
            Line {
                name: concat!("tasks, ", $agents, ": submit to delivery at half of that load, p99"),
                unit: Unit::Microseconds,
                bars: &[Bar::OwnAtMost(10_000.0)],
            },
        ]
    };
}
pub(crate) use lines;

/// First as much as goes, then half of it, each on a server of its own.
pub fn tasks(program: &Program, scale: &Scale, agents: usize) -> Result<Outcome, String> {
    let count = scale.durable_count(program, 20_000);
    let (all_out, cpu_us) = run(program, agents, count, None)?;
    let rate = per_second(count, all_out.start_ns, all_out.end_ns);
    let pace = rate / 2.0;
    let seconds = if scale.quick { PACED_S / 4.0 } else { PACED_S };
    let (half, _) = run(program, agents, (pace * seconds) as u64, Some(pace))?;
    let micros = |nanos: u64| nanos as f64 / 1e3;
    Ok(Outcome { values: vec![rate, micros(half.p50_ns), micros(half.p99_ns)], cpu_us })
}

fn run(
    program: &Program,
    agents: usize,
    count: u64,
    pace: Option<f64>,
) -> Result<(Measured, Option<(f64, f64)>), String> {
    let server = Server::start(program.clone())?;
    let mut control = Control::connect(&server)?;
    let address = server.address();
    let slots = IN_FLIGHT / agents as u64;
    let subject;
    let crew = if program.is_real() {
        control.create_stream("workqueue")?;
        control.create_consumer()?;
        subject = SUBJECT;
        let (address, stream, consumer) = (address.clone(), STREAM.into(), CONSUMER.into());
        Load::Workers { address, stream, consumer, batch: slots, workers: agents, count }
    } else {
        subject = "$TASK.API.SUBMIT";
        Load::Agents { address: address.clone(), agents, slots, count }
    };
    let mut crew = Process::start(crew)?;
    let mut submitter = match pace {
        Some(per_second) => Process::start(Load::Paced { address, subject: subject.into(), count, per_second })?,
        None if program.is_real() => start_persist(&server, count)?,
        None => Process::start(Load::Submit { address, count, window: WINDOW })?,
    };
    let meter = Meter::start(&server);
    crew.go()?;
    submitter.go()?;
    let start_ns = submitter.finish()?.start_ns;
    let measured = crew.finish()?;
    let cpu_us = meter.stop(&server, &[&crew, &submitter], count, Vec::new()).cpu_us;
    if program.is_real() {
        control.wait(|control| Ok(control.stream_state()?["messages"] == 0))?;
    } else {
        let completed = control.task_call("LIST", &json!({ "state": "completed", "limit": 1 }))?;
        if completed["total"] != count {
            return Err(format!("{count} tasks submitted, {} completed", completed["total"]));
        }
    }
    Ok((Measured { start_ns, ..measured }, cpu_us))
}
