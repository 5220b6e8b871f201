//! When a council's seats are offered, by the clock.

use std::time::Duration;

use super::Settings;
use super::rig::Rig;

const STEP: Duration = Duration::from_millis(10);

/// The times of the next `count` offers, in milliseconds from now.
fn offers(rig: &mut Rig, count: usize) -> Vec<u128> {
    let begun = rig.now;
    let mut times = Vec::new();
    loop {
        let heard = rig.published.iter().filter(|(subject, _)| subject == "councils.offers").count();
        rig.published.clear();
        times.extend((0..heard).map(|_| rig.now.since(begun).as_millis()));
        if times.len() >= count {
            return times;
        }
        assert!(rig.now.since(begun) < Duration::from_secs(60), "{times:?}");
        rig.pass(STEP);
    }
}

#[test]
fn seats_are_offered_after_50_ms_then_after_twice_as_long_up_to_every_5_s() {
    let mut rig = Rig::new(Settings::default());
    let form = r#"{"roles":{"tpm":1},"offer_to":"councils.offers","deadline_s":3600}"#;
    rig.ask("COUNCIL.FORM.c", "", form);
    let times = offers(&mut rig, 11);
    assert_eq!(times, [0, 50, 150, 350, 750, 1550, 3150, 6350, 11_350, 16_350, 21_350]);
}
