//! The way of a member from what it has to what it is to have: first it gives back, then it gets.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::records::{Current, MemberState, Partitions};
use super::{contains, count};

/// What a member has next, on its way to `target`, which is of the epoch `epoch`. `owned` is what its client says that it
/// reads, where it says so; `is_free` says whether nobody has a partition.
pub(super) fn next(
    current: &Current,
    epoch: i32,
    target: &Partitions,
    owned: Option<&Partitions>,
    is_free: impl Fn(Uuid, i32) -> bool,
) -> Current {
    match current.state {
        MemberState::Stable if current.epoch == epoch => return current.clone(),
        // Until it says that it has given all of that back it goes no further.
        MemberState::UnrevokedPartitions if owns(owned, &current.revoking) => return current.clone(),
        MemberState::Stable | MemberState::UnrevokedPartitions | MemberState::UnreleasedPartitions => {}
    }
    let (mut kept, mut revoking, mut missing) = (Partitions::new(), Partitions::new(), Partitions::new());
    let mut unreleased = false;
    for (topic, numbers) in &current.assigned {
        for number in numbers {
            let into = if contains(target, topic, *number) { &mut kept } else { &mut revoking };
            into.entry(*topic).or_default().insert(*number);
        }
    }
    for (topic, numbers) in target {
        let wanted: BTreeSet<i32> = numbers.iter().copied().filter(|number| !contains(&kept, topic, *number)).collect();
        for number in wanted {
            if is_free(*topic, number) {
                missing.entry(*topic).or_default().insert(number);
            } else {
                unreleased = true;
            }
        }
    }
    if count(&revoking) > 0 && owns(owned, &revoking) {
        // In its epoch as before: its commits for what it gives back are still good.
        let state = MemberState::UnrevokedPartitions;
        return Current { state, assigned: kept, revoking, previous_epoch: current.epoch, epoch: current.epoch };
    }
    let mut assigned = kept;
    for (topic, numbers) in missing {
        assigned.entry(topic).or_default().extend(numbers);
    }
    let state = if unreleased { MemberState::UnreleasedPartitions } else { MemberState::Stable };
    let next = Current { state, assigned, revoking: Partitions::new(), previous_epoch: current.epoch, epoch };
    // A member that waits on is told nothing new.
    let same = Current { previous_epoch: current.previous_epoch, ..next.clone() };
    if same == *current { same } else { next }
}

/// Whether a client reads any of these, as far as it says.
fn owns(owned: Option<&Partitions>, partitions: &Partitions) -> bool {
    let Some(owned) = owned else { return true };
    partitions.iter().any(|(topic, numbers)| numbers.iter().any(|number| contains(owned, topic, *number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(numbers: &[i32]) -> Partitions {
        if numbers.is_empty() {
            return Partitions::new();
        }
        Partitions::from([(Uuid::from_u128(1), numbers.iter().copied().collect())])
    }

    fn at(epoch: i32, previous_epoch: i32, state: MemberState, assigned: &[i32], revoking: &[i32]) -> Current {
        Current { epoch, previous_epoch, state, assigned: set(assigned), revoking: set(revoking) }
    }

    const STABLE: MemberState = MemberState::Stable;
    const UNREVOKED: MemberState = MemberState::UnrevokedPartitions;
    const UNRELEASED: MemberState = MemberState::UnreleasedPartitions;

    #[test]
    fn what_is_free_is_given_at_once() {
        let next = next(&at(0, 0, STABLE, &[], &[]), 3, &set(&[0, 1]), Some(&set(&[])), |_, _| true);
        assert_eq!(next, at(3, 0, STABLE, &[0, 1], &[]));
    }

    #[test]
    fn it_gives_back_before_it_comes_to_the_next_epoch() {
        let target = set(&[1, 2]);
        let before = at(3, 2, STABLE, &[0, 1], &[]);
        let revoking = next(&before, 4, &target, None, |_, number| number == 2);
        assert_eq!(revoking, at(3, 3, UNREVOKED, &[1], &[0]));
        // It still reads it, or does not say.
        for owned in [None, Some(set(&[0, 1]))] {
            assert_eq!(next(&revoking, 4, &target, owned.as_ref(), |_, _| false), revoking);
        }
        let done = next(&revoking, 4, &target, Some(&set(&[1])), |_, number| number == 2);
        assert_eq!(done, at(4, 3, STABLE, &[1, 2], &[]));
        // Who does not read it any more need not be asked.
        assert_eq!(next(&before, 4, &target, Some(&set(&[1])), |_, number| number == 2), done);
    }

    #[test]
    fn it_waits_for_what_others_have() {
        let target = set(&[0, 1]);
        let waits = next(&at(3, 2, STABLE, &[0], &[]), 4, &target, None, |_, _| false);
        assert_eq!(waits, at(4, 3, UNRELEASED, &[0], &[]));
        assert_eq!(next(&waits, 4, &target, None, |_, _| false), waits, "nothing is new");
        let done = next(&waits, 4, &target, None, |_, _| true);
        assert_eq!(done, at(4, 4, STABLE, &[0, 1], &[]));
        assert_eq!(next(&done, 4, &target, None, |_, _| panic!("it has what it is to have")), done);
    }
}
