//! A change of reservations that is cut off at every point there is: what is read afterwards is the
//! state before it or the one after it, whole.

use corbel_proto::scsi::reservation::{OutAction, OutList, Type};

use super::*;
use crate::reservation::{NexusName, Order, Proposal, Reservations, State};

const NAME: &str = "scsi-1";
const STEPS: [Step; 5] = [Step::Create, Step::Write, Step::Sync, Step::Rename, Step::SyncFolder];

/// A volume's reservations, and their changes as they come: who, what, of which keys.
struct Volume(Reservations);

impl Volume {
    fn new() -> Self {
        let reservations = Reservations::default();
        reservations.enable_persistence();
        Self(reservations)
    }

    /// The file that a change asks for.
    fn propose(&self, who: u8, action: OutAction, key: u64, action_key: u64) -> Vec<u8> {
        let nexus = NexusName::new(&format!("iqn.x:{who},i,0x40000000000{who}"), "iqn.x:t", 1);
        self.0.attach(&nexus);
        let list = OutList {
            key,
            action_key,
            persist: true,
            all_target_ports: false,
            others: Vec::new(),
            moving: None,
        };
        let order = Order { action, kind: Some(Type::WriteExclusiveRegistrantsOnly), list };
        match self.0.propose(&nexus, &order, &[1]) {
            Proposal::Persist(bytes) => bytes,
            other => panic!("{action:?} of {who} is not to be kept: {other:?}"),
        }
    }

    fn state(&self) -> State {
        // A restart begins counting anew; what is not there need not be kept.
        let state = self.0.state().expect("there is no SPC-2 reservation");
        State { generation: 0, persists: false, ..state }
    }
}

/// What a new process finds.
fn found(dir: &Path) -> State {
    let after = Volume::new();
    if let Some(bytes) = load(dir, NAME).unwrap() {
        after.0.restore(&bytes).unwrap();
    }
    after.state()
}

/// Registrations, a reservation, a change of key, a preemption, the end of all.
const CHANGES: [(u8, OutAction, u64, u64); 6] = [
    (1, OutAction::Register, 0, 1),
    (2, OutAction::Register, 0, 2),
    (1, OutAction::Reserve, 1, 0),
    (1, OutAction::RegisterAndIgnoreExistingKey, 0, 7),
    (2, OutAction::PreemptAndAbort, 2, 7),
    (2, OutAction::Clear, 2, 0),
];

/// For each change in turn: `cut` it off in a copy of the folder, in every way that it knows, and
/// judge what is left; then let it be made.
fn through_all(cut: impl Fn(&Path, &[u8], &State, &State)) {
    let volume = Volume::new();
    let dir = tempfile::tempdir().unwrap();
    for (who, action, key, action_key) in CHANGES {
        let before = volume.state();
        let bytes = volume.propose(who, action, key, action_key);
        let next = Volume::new();
        next.0.restore(&bytes).unwrap();
        let next = next.state();
        assert_ne!(before, next, "{action:?} changes something");
        let copy = tempfile::tempdir().unwrap();
        if let Some(old) = load(dir.path(), NAME).unwrap() {
            fs::write(copy.path().join(NAME), old).unwrap();
        }
        cut(copy.path(), &bytes, &before, &next);
        replace(dir.path(), NAME, &bytes).unwrap();
        volume.0.settle(true);
        assert_eq!(found(dir.path()), volume.state());
    }
}

/// SIGKILL, or a power cut before the file is stable: any part of the new file may be there, under
/// its own name, beside the old one. The next process writes over it.
#[test]
fn a_crash_at_any_byte_leaves_the_old_state_and_the_next_change_is_made() {
    through_all(|dir, bytes, before, next| {
        let old = fs::read(dir.join(NAME)).ok();
        for written in 0..=bytes.len() {
            fs::write(dir.join("scsi-1.new"), &bytes[..written]).unwrap();
            assert_eq!(found(dir), *before, "{written} bytes of the new file");
        }
        for written in [0, bytes.len() / 2, bytes.len()] {
            fs::write(dir.join("scsi-1.new"), &bytes[..written]).unwrap();
            replace(dir, NAME, bytes).unwrap();
            assert_eq!(found(dir), *next);
            assert!(!dir.join("scsi-1.new").exists());
            match &old {
                Some(old) => fs::write(dir.join(NAME), old).unwrap(),
                None => fs::remove_file(dir.join(NAME)).unwrap(),
            }
        }
    });
}

/// The process ends before each step, or the step fails: the old state stands until the rename, the
/// new one after it.
#[test]
fn each_step_that_fails_or_is_never_made_leaves_a_whole_state() {
    for (number, step) in STEPS.into_iter().enumerate() {
        through_all(|dir, bytes, before, next| {
            let mut made = Vec::new();
            let failed = replace_by(dir, NAME, bytes, |now| {
                made.push(now);
                match now == step {
                    true => Err(io::Error::other("the disk is gone")),
                    false => Ok(()),
                }
            });
            assert!(failed.is_err(), "{step:?}");
            assert_eq!(made, STEPS[..=number], "nothing more is done after a failure");
            let renamed = step == Step::SyncFolder;
            assert_eq!(found(dir), if renamed { next } else { before }.clone(), "{step:?}");
            replace(dir, NAME, bytes).unwrap();
            assert_eq!(found(dir), *next, "the next attempt after {step:?}");
        });
    }
}

/// What could not be written is not in force either: the initiator is told, and asks again.
#[test]
fn a_change_whose_file_failed_is_not_made_in_memory_and_may_be_made_later() {
    let volume = Volume::new();
    for (who, action, key, action_key) in CHANGES {
        let before = volume.state();
        volume.propose(who, action, key, action_key);
        assert_eq!(volume.state(), before, "in force before it is stable");
        assert!(volume.0.settle(false).is_nothing());
        assert_eq!(volume.state(), before);
        volume.propose(who, action, key, action_key);
        volume.0.settle(true);
        assert_ne!(volume.state(), before);
    }
}

/// A disk that returns something else than it was given: nothing of it is believed.
#[test]
fn a_file_with_any_bit_turned_or_any_end_cut_is_refused_whole() {
    through_all(|_, bytes, _, _| {
        for at in 0..bytes.len() {
            let after = Reservations::default();
            assert!(after.restore(&bytes[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut turned = bytes.to_vec();
                turned[at] ^= 1 << bit;
                assert!(after.restore(&turned).is_err(), "bit {bit} of byte {at}");
            }
            assert!(after.state().unwrap().registrations.is_empty());
        }
    });
}
