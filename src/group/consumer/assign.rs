//! The assignors: which member is to get which partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::records::Partitions;
use super::{contains, count};

/// A way to assign, by Kafka's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignor {
    /// As evenly as can be, with as few moves as can be.
    Uniform,
    /// Of every topic each member gets partitions that follow one another, of topics of equal size the same ones.
    Range,
}

/// All assignors, the one that Kafka prefers first.
pub const ALL: [Assignor; 2] = [Assignor::Uniform, Assignor::Range];

impl Assignor {
    /// Kafka's name.
    pub const fn name(self) -> &'static str {
        match self {
            Assignor::Uniform => "uniform",
            Assignor::Range => "range",
        }
    }

    /// The assignor of a name.
    pub fn named(name: &str) -> Option<Assignor> {
        ALL.into_iter().find(|assignor| assignor.name() == name)
    }
}

/// A member, as the assignors see it.
#[derive(Clone, Debug)]
pub(super) struct Subscriber<'a> {
    pub(super) id: &'a Arc<str>,
    /// The static member's own name.
    pub(super) instance: Option<&'a str>,
    /// The topics that it reads, of those that there are.
    pub(super) topics: Arc<BTreeSet<Uuid>>,
    /// What it was to get up to now.
    pub(super) target: &'a Partitions,
}

/// What each member is to get, in their order. `sizes` has the number of partitions of every topic.
pub(super) fn assign(assignor: Assignor, members: &[Subscriber<'_>], sizes: &BTreeMap<Uuid, i32>) -> Vec<Partitions> {
    match assignor {
        Assignor::Range => range(members, sizes),
        Assignor::Uniform => uniform(members, sizes),
    }
}

/// Static members come first, by their names, so that they keep their ranges while others come and go.
fn range(members: &[Subscriber<'_>], sizes: &BTreeMap<Uuid, i32>) -> Vec<Partitions> {
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by_key(|at| (members[*at].instance.is_none(), members[*at].instance, members[*at].id));
    let mut assigned = vec![Partitions::new(); members.len()];
    for (topic, size) in sizes {
        let readers: Vec<usize> = order.iter().copied().filter(|at| members[*at].topics.contains(topic)).collect();
        if readers.is_empty() {
            continue;
        }
        let (each, more) = (*size as usize / readers.len(), *size as usize % readers.len());
        let mut next = 0;
        for (place, at) in readers.into_iter().enumerate() {
            let end = next + each + usize::from(place < more);
            if end > next {
                assigned[at].insert(*topic, (next as i32..end as i32).collect());
            }
            next = end;
        }
    }
    assigned
}

/// Everyone keeps what it may, what nobody has goes to whoever has least, and then those who have most give some away.
fn uniform(members: &[Subscriber<'_>], sizes: &BTreeMap<Uuid, i32>) -> Vec<Partitions> {
    let Some(first) = members.first() else { return Vec::new() };
    let alike = members.iter().all(|member| Arc::ptr_eq(&member.topics, &first.topics));
    let total: usize = first.topics.iter().map(|topic| sizes[topic] as usize).sum();
    let (quota, mut more) = (total / members.len(), total % members.len());
    let mut taken: BTreeMap<Uuid, BTreeSet<i32>> = BTreeMap::new();
    let mut assigned = vec![Partitions::new(); members.len()];
    for (member, assigned) in members.iter().zip(&mut assigned) {
        // Where all read the same it is known beforehand how many each may keep.
        let one_more = alike && more > 0 && count(member.target) > quota;
        let mut room = if alike { quota + usize::from(one_more) } else { usize::MAX };
        more -= usize::from(one_more);
        for (topic, numbers) in member.target.iter().filter(|(topic, _)| member.topics.contains(topic)) {
            for number in numbers.iter().copied().filter(|number| *number < sizes[topic]) {
                if room > 0 && taken.entry(*topic).or_default().insert(number) {
                    assigned.entry(*topic).or_default().insert(number);
                    room -= 1;
                }
            }
        }
    }
    let mut spread = Spread::new(members, assigned);
    for (topic, size) in sizes {
        for number in 0..*size {
            if !contains(&taken, topic, number) {
                spread.give(*topic, number);
            }
        }
    }
    spread.even_out();
    spread.assigned
}

/// Members that read the same topics.
struct Readers {
    topics: Arc<BTreeSet<Uuid>>,
    /// How many partitions each has, with its place among all members.
    members: BTreeSet<(usize, usize)>,
}

/// Partitions over members, with how many each has.
struct Spread<'a> {
    members: &'a [Subscriber<'a>],
    assigned: Vec<Partitions>,
    readers: Vec<Readers>,
    /// For each member, its place in `readers`.
    kinds: Vec<usize>,
}

impl<'a> Spread<'a> {
    fn new(members: &'a [Subscriber<'a>], assigned: Vec<Partitions>) -> Spread<'a> {
        let mut places: BTreeMap<*const BTreeSet<Uuid>, usize> = BTreeMap::new();
        let (mut readers, mut kinds) = (Vec::<Readers>::new(), Vec::new());
        for (at, member) in members.iter().enumerate() {
            let place = *places.entry(Arc::as_ptr(&member.topics)).or_insert_with(|| {
                readers.push(Readers { topics: member.topics.clone(), members: BTreeSet::new() });
                readers.len() - 1
            });
            readers[place].members.insert((count(&assigned[at]), at));
            kinds.push(place);
        }
        Spread { members, assigned, readers, kinds }
    }

    /// The reader of a topic that has least.
    fn least(&self, topic: &Uuid) -> Option<(usize, usize)> {
        let kinds = self.readers.iter().filter(|readers| readers.topics.contains(topic));
        kinds.filter_map(|readers| readers.members.first()).min().copied()
    }

    fn give(&mut self, topic: Uuid, number: i32) {
        let Some((has, at)) = self.least(&topic) else { return };
        self.assigned[at].entry(topic).or_default().insert(number);
        self.recount(at, has, has + 1);
    }

    fn recount(&mut self, at: usize, before: usize, after: usize) {
        let members = &mut self.readers[self.kinds[at]].members;
        members.remove(&(before, at));
        members.insert((after, at));
    }

    /// Moves partitions from those who have more to those who have less, until no move makes it more even. Each makes
    /// the sum of the squares smaller, so that there is an end.
    fn even_out(&mut self) {
        let mut moved = true;
        while moved {
            moved = false;
            let mut order: Vec<(usize, usize)> =
                (0..self.members.len()).map(|at| (count(&self.assigned[at]), at)).collect();
            order.sort_unstable_by(|a, b| b.cmp(a));
            for (mut has, from) in order {
                let least = self.members[from].topics.iter().filter_map(|topic| self.least(topic)).min();
                if least.is_none_or(|(least, _)| least + 1 >= has) {
                    continue;
                }
                let held: Vec<(Uuid, i32)> = (self.assigned[from].iter())
                    .flat_map(|(topic, numbers)| numbers.iter().map(|number| (*topic, *number)))
                    .collect();
                for (topic, number) in held {
                    if self.least(&topic).is_some_and(|(least, _)| least + 1 < has) {
                        let numbers = self.assigned[from].get_mut(&topic).expect("it is held");
                        numbers.remove(&number);
                        if numbers.is_empty() {
                            self.assigned[from].remove(&topic);
                        }
                        self.recount(from, has, has - 1);
                        has -= 1;
                        self.give(topic, number);
                        moved = true;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A group for the assignors: of each member its topics and what it was to get.
    #[derive(Clone, Debug)]
    struct Group {
        sizes: BTreeMap<Uuid, i32>,
        members: Vec<(Arc<str>, Arc<BTreeSet<Uuid>>, Partitions)>,
    }

    fn topic(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    impl Group {
        fn new(sizes: &[i32], subscriptions: &[&[u128]]) -> Group {
            let sizes = sizes.iter().zip(1..).map(|(size, number)| (topic(number), *size)).collect();
            let mut kinds: BTreeMap<BTreeSet<Uuid>, Arc<BTreeSet<Uuid>>> = BTreeMap::new();
            let members = subscriptions.iter().enumerate().map(|(at, topics)| {
                let topics: BTreeSet<Uuid> = topics.iter().map(|number| topic(*number)).collect();
                let kind = kinds.entry(topics.clone()).or_insert_with(|| Arc::new(topics)).clone();
                (format!("m{at:03}").into(), kind, Partitions::new())
            });
            Group { sizes, members: members.collect() }
        }

        fn assign(&mut self, assignor: Assignor) -> Vec<usize> {
            let subscribers: Vec<Subscriber<'_>> = self
                .members
                .iter()
                .map(|(id, topics, target)| Subscriber { id, instance: None, topics: topics.clone(), target })
                .collect();
            let assigned = assign(assignor, &subscribers, &self.sizes);
            for (member, assigned) in self.members.iter_mut().zip(assigned) {
                member.2 = assigned;
            }
            self.members.iter().map(|member| count(&member.2)).collect()
        }

        /// Every partition that somebody reads is assigned once, to one who reads it.
        fn check(&self) {
            let mut seen = BTreeSet::new();
            for (id, topics, target) in &self.members {
                for (topic, numbers) in target {
                    assert!(topics.contains(topic) && !numbers.is_empty(), "{id} gets what it does not read");
                    for number in numbers {
                        assert!((0..self.sizes[topic]).contains(number) && seen.insert((*topic, *number)));
                    }
                }
            }
            for (topic, size) in &self.sizes {
                let read = self.members.iter().any(|(_, topics, _)| topics.contains(topic));
                let assigned = seen.iter().filter(|(of, _)| of == topic).count();
                assert_eq!(assigned, if read { *size as usize } else { 0 });
            }
        }
    }

    #[test]
    fn ranges_follow_one_another_and_are_the_same_for_topics_of_equal_size() {
        let mut group = Group::new(&[3, 3], &[&[1, 2], &[1, 2]]);
        assert_eq!(group.assign(Assignor::Range), [4, 2]);
        assert_eq!(group.members[0].2, Partitions::from([(topic(1), [0, 1].into()), (topic(2), [0, 1].into())]));
        let mut group = Group::new(&[2, 3], &[&[1], &[1, 2], &[2]]);
        assert_eq!(group.assign(Assignor::Range), [1, 3, 1]);
        group.check();
    }

    #[test]
    fn uniform_moves_as_little_as_it_can() {
        let mut group = Group::new(&[6], &[&[1], &[1], &[1]]);
        assert_eq!(group.assign(Assignor::Uniform), [2, 2, 2]);
        let before = group.clone();
        group.members.remove(1);
        assert_eq!(group.assign(Assignor::Uniform), [3, 3]);
        for (now, then) in group.members.iter().zip([&before.members[0], &before.members[2]]) {
            assert!(then.2[&topic(1)].is_subset(&now.2[&topic(1)]), "everyone keeps what it had");
        }
        // Who comes gets from those who have most; nothing else moves.
        let mut group = Group::new(&[7], &[&[1], &[1]]);
        group.assign(Assignor::Uniform);
        let before = group.clone();
        group.members.push(Group::new(&[7], &[&[1]]).members.remove(0));
        group.members[2].1 = group.members[0].1.clone();
        assert_eq!(group.assign(Assignor::Uniform), [3, 2, 2]);
        for (now, then) in group.members.iter().zip(&before.members) {
            assert!(now.2[&topic(1)].is_subset(&then.2[&topic(1)]));
        }
    }

    #[test]
    fn what_is_gone_or_not_read_any_more_is_given_up() {
        let mut group = Group::new(&[4, 2], &[&[1, 2], &[1, 2]]);
        group.assign(Assignor::Uniform);
        group.sizes.remove(&topic(2));
        let one: Arc<BTreeSet<Uuid>> = Arc::new([topic(1)].into());
        group.members.iter_mut().for_each(|member| member.1 = one.clone());
        assert_eq!(group.assign(Assignor::Uniform), [2, 2]);
        group.check();
    }

    proptest! {
        #[test]
        fn every_partition_has_one_reader(
            sizes in prop::collection::vec(1i32..7, 1..5),
            reads in prop::collection::vec(prop::collection::btree_set(1u128..5, 0..4), 1..7),
            leaves in 0usize..7,
            assignor in prop::sample::select(&ALL[..]),
        ) {
            let reads: Vec<Vec<u128>> = reads.into_iter().map(|topics| {
                topics.into_iter().filter(|number| *number <= sizes.len() as u128).collect()
            }).collect();
            let reads: Vec<&[u128]> = reads.iter().map(Vec::as_slice).collect();
            let mut group = Group::new(&sizes, &reads);
            group.assign(assignor);
            group.check();
            if leaves < group.members.len() {
                group.members.remove(leaves);
                let counts = group.assign(assignor);
                group.check();
                let again = group.assign(assignor);
                prop_assert_eq!(&counts, &again, "what is even stays as it is");
                let alike = group.members.windows(2).all(|pair| pair[0].1 == pair[1].1);
                if alike && assignor == Assignor::Uniform && !counts.is_empty() {
                    prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
                }
            }
        }
    }
}
