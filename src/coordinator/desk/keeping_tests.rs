//! What a finished task takes for as long as it is kept, which is a week unless its queue says otherwise.

use super::rig::Rig;
use super::{Settings, Task};
use crate::coordinator::record::Phase;

/// Beside its strings. Hundreds of thousands are kept where a few are live.
const TASK_BYTES_MAX: usize = 560;

#[test]
fn a_task_that_is_only_kept_is_small() {
    assert!(size_of::<Task>() <= TASK_BYTES_MAX, "{} bytes", size_of::<Task>());
    let mut rig = Rig::new(Settings::default());
    rig.ask("AGENT.REGISTER.ann", "", "");
    rig.ask("SUBMIT", "Task-Id: t\r\n", "a body");
    let waiting = rig.request("AWAIT.t", "", "");
    let lease = rig.record("t").lease;
    rig.ask(&format!("COMPLETE.t.{lease}"), "", "a result");
    assert!(!rig.answer_bytes(&waiting).is_empty());
    let task = rig.desk.task(rig.desk.ids["t"]).unwrap();
    assert_eq!(task.record.phase, Phase::Completed);
    assert_eq!((task.line.capacity(), task.waiters.capacity()), (0, 0));
    let room = (&task.payload, &task.result, &task.request, &task.spot, &task.firing, &task.loss);
    assert!(matches!(room, (None, None, None, None, None, None)), "{room:?}");
}
