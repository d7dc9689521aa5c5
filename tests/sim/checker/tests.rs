use super::*;
use crate::rng::Rng;

fn write(client: u32, blocks: Range<u64>, time: Range<u64>, id: WriteId) -> Command {
    let (began, ended) = (time.start, Some(time.end));
    Command { client, blocks, began, ended, action: Action::Write(id) }
}

fn read(client: u32, first: u64, time: Range<u64>, seen: &[WriteId]) -> Command {
    let blocks = first..first + seen.len() as u64;
    let action = Action::Read(seen.iter().map(|&id| Content::Of(id)).collect());
    Command { client, blocks, began: time.start, ended: Some(time.end), action }
}

fn judge(commands: impl IntoIterator<Item = Command>) -> bool {
    let mut history = History::new();
    commands.into_iter().for_each(|command| history.push(command));
    let fine = history.check().is_ok();
    assert_eq!(fine, history.exhaustive(), "both checkers agree");
    fine
}

#[test]
fn what_one_client_does_in_turn_is_fine() {
    assert!(judge([
        read(1, 0, 1..2, &[0, 0]),
        write(1, 0..2, 3..4, 1),
        read(1, 0, 5..6, &[1, 1]),
        write(1, 1..2, 7..8, 2),
        read(1, 0, 9..10, &[1, 2]),
    ]));
}

#[test]
fn a_read_during_a_write_may_see_either_but_not_half() {
    let during = |seen: &[WriteId]| judge([write(1, 0..2, 1..9, 1), read(2, 0, 3..4, seen)]);
    assert!(during(&[0, 0]));
    assert!(during(&[1, 1]));
    assert!(!during(&[1, 0]), "torn");
    assert!(!during(&[0, 1]), "torn");
}

#[test]
fn a_stale_read_is_caught() {
    let stale = [write(1, 0..1, 1..2, 1), write(1, 0..1, 3..4, 2), read(2, 0, 5..6, &[1])];
    assert!(!judge(stale));
}

#[test]
fn a_lost_write_is_caught() {
    assert!(!judge([write(1, 0..4, 1..2, 1), read(2, 0, 3..4, &[1, 1, 0, 1])]));
}

#[test]
fn a_value_that_comes_back_is_caught() {
    // The late copy of a retransmitted write lands on a newer one.
    assert!(!judge([
        write(1, 0..1, 1..2, 1),
        write(2, 0..1, 3..4, 2),
        read(3, 0, 5..6, &[2]),
        read(3, 0, 7..8, &[1]),
    ]));
}

#[test]
fn two_readers_that_see_concurrent_writes_in_opposite_order_are_caught() {
    assert!(!judge([
        write(1, 0..1, 1..20, 1),
        write(2, 0..1, 1..20, 2),
        read(3, 0, 2..3, &[1]),
        read(3, 0, 4..5, &[2]),
        read(4, 0, 6..7, &[1]),
    ]));
}

#[test]
fn overlapping_writes_that_each_win_one_block_are_caught() {
    let both = [write(1, 0..2, 1..9, 1), write(2, 0..2, 1..9, 2)];
    assert!(!judge(both.clone().into_iter().chain([read(3, 0, 10..11, &[1, 2])])));
    assert!(judge(both.into_iter().chain([read(3, 0, 10..11, &[2, 2])])));
}

#[test]
fn reading_from_the_future_or_from_nobody_is_caught() {
    assert!(!judge([read(1, 0, 1..2, &[1]), write(1, 0..1, 3..4, 1)]));
    assert!(!judge([write(1, 0..1, 1..2, 1), read(1, 0, 3..4, &[9])]));
}

#[test]
fn a_write_of_unknown_outcome_may_land_late_or_never_but_only_once() {
    let unknown = Command { ended: None, ..write(1, 0..1, 1..2, 1) };
    assert!(judge([unknown.clone(), read(2, 0, 3..4, &[0]), read(2, 0, 5..6, &[1])]));
    assert!(judge([unknown.clone(), read(2, 0, 3..4, &[0])]));
    assert!(!judge([
        unknown,
        read(2, 0, 3..4, &[1]),
        write(2, 0..1, 5..6, 2),
        read(2, 0, 7..8, &[2]),
        read(2, 0, 9..10, &[1]),
    ]));
}

#[test]
fn broken_blocks_are_caught_in_reads_and_at_the_start() {
    let mut history = History::new();
    let action = Action::Read(vec![Content::Broken]);
    history.push(Command { client: 1, blocks: 0..1, began: 1, ended: Some(2), action });
    assert!(history.check().is_err());
    assert!(History::starting_with(&[Content::Of(1), Content::Broken]).is_err());
}

#[test]
fn an_epoch_starts_with_what_the_last_one_left() {
    let start = [Content::Of(7), Content::Of(7), Content::Of(0)];
    let mut history = History::starting_with(&start).unwrap();
    history.push(read(1, 0, 1..2, &[7, 7, 0]));
    assert_eq!(history.check(), Ok(()));
    history.push(read(1, 0, 3..4, &[7, 0, 0]));
    assert!(history.check().is_err());
}

/// What a device with one fault, or none, would show to three clients.
fn random_history(rng: &mut Rng, torn: bool) -> History {
    let mut history = History::new();
    let mut device = [0_u64; 3];
    let mut free_at = [1_u64; 3];
    for id in 1..9 {
        let client = usize::try_from(rng.below(3)).unwrap();
        let first = usize::try_from(rng.below(3)).unwrap();
        let blocks = usize::try_from(1 + rng.below(3 - first as u64)).unwrap();
        // Effects take place in the order of `id`, each somewhere within its command.
        let effect = id * 10;
        let began = free_at[client].max(effect - rng.below(10).min(effect - 1)).min(effect);
        let ended = effect + rng.below(30);
        free_at[client] = ended + 1;
        if began > effect || free_at[client] < began {
            continue;
        }
        let range = first as u64..(first + blocks) as u64;
        let name = u32::try_from(client).unwrap();
        if rng.percent(50) {
            let landed = if torn && rng.percent(30) { blocks - 1 } else { blocks };
            device[first..first + landed].fill(id);
            history.push(write(name, range, began..ended, id));
        } else {
            history.push(read(name, range.start, began..ended, &device[first..first + blocks]));
        }
    }
    history
}

#[test]
fn a_right_device_is_never_accused() {
    crate::for_seeds(2000, |seed| {
        let history = random_history(&mut Rng::new(seed), false);
        assert_eq!(history.check(), Ok(()));
        assert!(history.exhaustive());
    });
}

#[test]
fn the_quick_checker_finds_what_the_exhaustive_one_finds() {
    let (mut faulty, mut missed) = (0, 0);
    for seed in 0..3000 {
        let history = random_history(&mut Rng::new(seed), true);
        match (history.check().is_ok(), history.exhaustive()) {
            (false, true) => panic!("seed {seed}: accused a right device: {history:?}"),
            (true, false) => missed += 1,
            (false, false) => faulty += 1,
            (true, true) => {}
        }
    }
    assert!(faulty > 50, "the device is faulty often enough: {faulty}");
    assert!(missed * 100 <= faulty, "missed {missed} of {faulty}");
}
