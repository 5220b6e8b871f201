//! The index against the dullest model: a list of messages and linear scans.

use proptest::prelude::*;

use super::*;
use crate::types::subject;

#[derive(Clone, Debug)]
struct ModelRow {
    seq: u64,
    subject: String,
    bytes: u64,
    time: i64,
}

#[derive(Default)]
struct Model {
    rows: Vec<ModelRow>,
    last_seq: u64,
}

impl Model {
    fn matching<'a>(&'a self, from: u64, patterns: &'a [&str]) -> impl Iterator<Item = &'a ModelRow> {
        self.rows.iter().filter(move |row| {
            row.seq >= from
                && (patterns.is_empty()
                    || patterns.iter().any(|pattern| subject::matches(pattern.as_bytes(), row.subject.as_bytes())))
        })
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append { subject: u8, skip: u64, time: i64 },
    RemoveAt(prop::sample::Index),
    RemoveFirst,
    Skip(u64),
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => (0u8..12, prop_oneof![20 => Just(0u64), 3 => 0u64..5, 1 => Just(700u64), 1 => Just(5_000_000_000u64)],
            prop_oneof![10 => 0i64..50, 1 => Just(10_000_000_000i64)])
            .prop_map(|(subject, skip, time)| Step::Append { subject, skip, time }),
        20 => any::<prop::sample::Index>().prop_map(Step::RemoveAt),
        20 => Just(Step::RemoveFirst),
        2 => (1u64..1_000).prop_map(Step::Skip),
        1 => Just(Step::Clear),
    ]
}

fn name(subject: u8) -> String {
    // Deep ones, and ones that end where others go on.
    match subject {
        10 => "s.2".to_owned(),
        11 => "s.0.3.x.y".to_owned(),
        _ => format!("s.{}.{}", subject % 3, subject),
    }
}

const FILTERS: [&[&str]; 7] =
    [&[], &["s.1.1"], &["s.0.>"], &["s.*.4", "s.2.2"], &["s.0.0", "s.0.3"], &["nothing.>"], &["*.2.*", "s.2"]];

fn compare(index: &Index, model: &Model, filters: &mut [Filter]) {
    let first = model.rows.first().map_or(model.last_seq + 1, |row| row.seq);
    assert_eq!((index.first_seq(), index.last_seq(), index.len()), (first, model.last_seq, model.rows.len() as u64));
    assert_eq!(index.bytes(), model.rows.iter().map(|row| row.bytes).sum::<u64>());
    assert_eq!(index.seqs(0).collect::<Vec<_>>(), model.rows.iter().map(|row| row.seq).collect::<Vec<_>>());
    let probes: Vec<u64> = (0..3)
        .chain(model.rows.iter().step_by(1 + model.rows.len() / 20).flat_map(|row| [row.seq, row.seq + 1]))
        .chain([model.last_seq, model.last_seq + 1])
        .collect();
    for (filter, patterns) in filters.iter_mut().zip(FILTERS) {
        for &probe in &probes {
            let expected = model.matching(probe, patterns).next().map(|row| row.seq);
            assert_eq!(index.next(probe, filter), expected, "next {probe} {patterns:?}");
            let expected = model.matching(probe, patterns).count() as u64;
            assert_eq!(index.count_from(probe, filter), expected, "count {probe} {patterns:?}");
            let mut last = std::collections::BTreeMap::new();
            for row in model.matching(0, patterns).filter(|row| row.seq <= probe) {
                last.insert(row.subject.clone(), row.seq);
            }
            let mut last: Vec<u64> = last.into_values().collect();
            last.sort_unstable();
            assert_eq!(index.last_per_subject(filter, probe), last, "last {probe} {patterns:?}");
        }
        let expected: Vec<u64> = model.matching(0, patterns).map(|row| row.seq).collect();
        assert_eq!(index.matching(filter), expected, "all {patterns:?}");
        let mut subjects = std::collections::BTreeMap::new();
        for row in model.matching(0, patterns) {
            *subjects.entry(row.subject.as_bytes().to_vec()).or_insert(0) += 1;
        }
        let found: std::collections::BTreeMap<_, _> =
            index.subjects(filter).map(|(subject, count)| (subject.to_vec(), count)).collect();
        assert_eq!(found, subjects);
    }
    for row in model.rows.iter().step_by(1 + model.rows.len() / 20) {
        assert_eq!(
            index.row(row.seq),
            Some(Row { subject: row.subject.as_bytes().into(), accounted_bytes: row.bytes, time: Timestamp(row.time) })
        );
        for time in [row.time - 1, row.time, row.time + 1] {
            let expected = model.rows.iter().find(|row| row.time >= time).map_or(model.last_seq + 1, |row| row.seq);
            assert_eq!(index.seq_at_time(Timestamp(time)), expected, "time {time}");
        }
    }
    for subject in 0..12 {
        let subject = name(subject);
        let seqs: Vec<u64> = model.matching(0, &[&subject]).map(|row| row.seq).collect();
        assert_eq!(index.first_for(subject.as_bytes()), seqs.first().copied());
        assert_eq!(index.last_for(subject.as_bytes()), seqs.last().copied());
        assert_eq!(index.count_for(subject.as_bytes()), seqs.len() as u64);
    }
    let mut expected = first;
    let mut gaps = Vec::new();
    for seq in model.rows.iter().map(|row| row.seq).chain([model.last_seq + 1]) {
        if seq > expected {
            gaps.push((expected, seq - 1));
        }
        expected = seq + 1;
    }
    assert_eq!(index.deleted_ranges().collect::<Vec<_>>(), gaps);
    assert_eq!(index.num_deleted(), gaps.iter().map(|(from, to)| to - from + 1).sum::<u64>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn equals_a_list(steps in prop::collection::vec(step(), 1..300)) {
        let mut index = Index::new();
        let mut model = Model::default();
        let mut filters = FILTERS.map(Filter::new);
        let mut now = 1_000;
        for (at, step) in steps.into_iter().enumerate() {
            match step {
                Step::Append { subject, skip, time } => {
                    now += time;
                    let row = ModelRow { seq: model.last_seq + 1 + skip, subject: name(subject), bytes: 10 + at as u64, time: now };
                    let appended = index.append(row.seq, row.subject.as_bytes(), row.bytes, Timestamp(now));
                    model.last_seq = row.seq;
                    model.rows.push(row.clone());
                    let seqs: Vec<u64> = model.matching(0, &[&row.subject]).map(|row| row.seq).collect();
                    prop_assert_eq!((appended.count, appended.first), (seqs.len() as u64, seqs[0]));
                }
                Step::RemoveAt(at) if !model.rows.is_empty() => {
                    let row = model.rows.remove(at.index(model.rows.len()));
                    let removed = index.remove(row.seq).expect("it lives");
                    prop_assert_eq!(&*removed.subject, row.subject.as_bytes());
                    prop_assert_eq!(index.remove(row.seq), None);
                }
                Step::RemoveFirst if !model.rows.is_empty() => {
                    let row = model.rows.remove(0);
                    prop_assert!(index.remove(index.first_seq()).is_some());
                    prop_assert!(!index.exists(row.seq));
                }
                Step::Skip(by) => {
                    model.last_seq += by;
                    index.skip_to(model.last_seq, Timestamp(now));
                }
                Step::Clear => {
                    model.rows.clear();
                    index.clear();
                }
                _ => {}
            }
            if at % 40 == 0 {
                compare(&index, &model, &mut filters);
            }
        }
        compare(&index, &model, &mut filters);
        // The same from summaries, where nothing is lost but what was skipped at the end.
        let mut restored = Index::new();
        for segment in index.segments() {
            let bytes = index.summarize(segment).expect("something lives there");
            prop_assert!(restored.restore_segment(segment, &bytes[..bytes.len() - 1]).is_err());
            prop_assert_eq!(restored.restore_segment(segment, &bytes), Ok(Vec::new()));
            prop_assert!(restored.restore_segment(segment, &bytes).is_err(), "it is there already");
        }
        restored.skip_to(index.last_seq(), index.last_time());
        compare(&restored, &model, &mut FILTERS.map(Filter::new));
    }
}

/// Whole segments at work: filled, thinned until they are packed, emptied from both ends and the middle.
#[test]
fn many_messages_thinned_out() {
    let mut index = Index::new();
    let mut model = Model::default();
    let mut filters = FILTERS.map(Filter::new);
    for seq in 1..=2_000u64 {
        let row = ModelRow { seq, subject: name((seq % 12) as u8), bytes: seq % 100, time: seq as i64 * 7 };
        index.append(seq, row.subject.as_bytes(), row.bytes, Timestamp(row.time));
        model.rows.push(row);
        model.last_seq = seq;
    }
    compare(&index, &model, &mut filters);
    let mut keep = |index: &mut Index, keep: &dyn Fn(u64) -> bool| {
        for row in model.rows.extract_if(.., |row| !keep(row.seq)) {
            assert!(index.remove(row.seq).is_some());
        }
        compare(index, &model, &mut filters);
    };
    keep(&mut index, &|seq| !seq.is_multiple_of(3));
    keep(&mut index, &|seq| seq.is_multiple_of(10));
    keep(&mut index, &|seq| !(600..1_400).contains(&seq));
    keep(&mut index, &|seq| seq > 300);
    keep(&mut index, &|seq| seq.is_multiple_of(100));
    keep(&mut index, &|_| false);
    index.append(2_001, b"s.1.1", 1, Timestamp(9_000_000));
    assert_eq!(index.next(0, &mut Filter::new(["s.1.1"])), Some(2_001));
}
