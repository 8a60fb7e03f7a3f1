//! A change of a group while it is worked out: records, and the state that they lead to.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crc_fast::{CrcAlgorithm, checksum};
use uuid::Uuid;

use super::assign::{Subscriber, assign};
use super::records::{Current, Metadata, Part, Partitions};
use super::{ConsumerGroup, JOINING, Member, Watch, reconcile, regex};
use crate::group::{Error, Outside, Settings};
use crate::limits::REGEX_REFRESH_MIN_MS;

/// A change of a group.
pub(super) struct Draft<'a> {
    /// What the group will be.
    pub(super) state: Cow<'a, ConsumerGroup>,
    pub(super) parts: Vec<Part>,
    pub(super) outside: Outside<'a>,
    pub(super) settings: &'a Settings,
}

impl<'a> Draft<'a> {
    pub(super) fn of(group: &'a ConsumerGroup, outside: Outside<'a>, settings: &'a Settings) -> Draft<'a> {
        Draft { state: Cow::Borrowed(group), parts: Vec::new(), outside, settings }
    }

    pub(super) fn push(&mut self, part: Part) {
        self.state.to_mut().apply(&part);
        self.parts.push(part);
    }

    pub(super) fn member(&self, id: &str) -> Option<&Arc<Member>> {
        self.state.members.get(id)
    }

    /// Takes a member out.
    pub(super) fn remove(&mut self, id: &Arc<str>) {
        let regex = self.member(id).and_then(|member| member.metadata.regex.clone());
        self.push(Part::Current(id.clone(), None));
        self.push(Part::Target(id.clone(), None));
        self.push(Part::Member(id.clone(), None));
        self.drop_regex(regex);
    }

    /// Forgets a regular expression that no member has any more.
    fn drop_regex(&mut self, regex: Option<String>) {
        if let Some(regex) = regex
            && self.state.readers_of(&regex) == 0
            && self.state.regexes.contains_key(&regex)
        {
            self.push(Part::Regex(regex, None));
        }
    }

    /// A static member is back under a new id, with all that the old one was to get.
    pub(super) fn replace(&mut self, old: &Arc<str>, new: &Arc<str>) {
        let Some(member) = self.member(old).cloned() else { return };
        let target = self.state.targets.get(old).map(|target| Partitions::clone(target));
        self.push(Part::Current(old.clone(), None));
        self.push(Part::Target(old.clone(), None));
        self.push(Part::Member(old.clone(), None));
        self.push(Part::Member(new.clone(), Some(member.metadata.clone())));
        if let Some(target) = target {
            self.push(Part::Target(new.clone(), Some(target)));
        }
        let current = Current { epoch: JOINING, previous_epoch: JOINING, ..member.current.clone() };
        self.push(Part::Current(new.clone(), Some(current)));
    }

    /// Members have gone: whoever is left gets their partitions with the next epoch.
    pub(super) fn members_left(&mut self) {
        let (epoch, hash) = (self.state.epoch.saturating_add(1), self.metadata_hash());
        self.push(Part::Epoch(Some((epoch, hash))));
    }

    /// Leads a member on, which may be new or say something new of itself: the group comes to a new epoch where that or
    /// the topics ask for one, the assignment is made anew where the group has, and the member takes its next step.
    /// `owned` is what it says that it reads. The assignment is put off while the group has to wait with it, unless a
    /// member reads other topics than before: until then it would go on to be given what it does not read any more.
    pub(super) fn advance(
        &mut self,
        id: &Arc<str>,
        metadata: Metadata,
        owned: Option<&Partitions>,
        watch: &Watch,
    ) -> Result<(), Error> {
        let before = self.member(id).map(|member| member.metadata.clone());
        let is_new = before.is_none();
        let (mut anew, mut at_once) = (self.state.epoch == 0 || is_new, self.state.target_epoch == 0);
        if before.as_ref() != Some(&metadata) {
            let (old_topics, old_regex) = before.map(|before| (before.topics, before.regex)).unwrap_or_default();
            let reads_others = old_topics != metadata.topics || old_regex != metadata.regex;
            anew |= reads_others;
            at_once |= reads_others && !is_new;
            let new_regex = metadata.regex.clone().filter(|regex| old_regex.as_ref() != Some(regex));
            if let Some(regex) = &new_regex {
                regex::compile(regex)?;
            }
            self.push(Part::Member(id.clone(), Some(metadata)));
            self.drop_regex(old_regex);
            if let Some(regex) = new_regex.filter(|regex| !self.state.regexes.contains_key(regex)) {
                let resolved = regex::resolve(self.outside, &regex);
                self.push(Part::Regex(regex, Some(resolved)));
            }
        }
        anew |= self.refresh_regexes();
        if anew || watch.seen != Some(self.outside.topics.version()) {
            let hash = self.metadata_hash();
            if anew || hash != self.state.metadata_hash {
                let epoch = self.state.epoch.saturating_add(1);
                self.push(Part::Epoch(Some((epoch, hash))));
            }
        }
        let waits = !at_once && watch.assignment_wait_ms(self.outside.now, self.settings) > 0;
        if self.state.epoch > self.state.target_epoch && !waits {
            self.assign();
        }
        self.step(id, owned);
        Ok(())
    }

    /// Looks what the regular expressions stand for where there are other topics than when that was done, all at once and
    /// not too often. Says whether anything is different.
    fn refresh_regexes(&mut self) -> bool {
        let version = self.outside.topics.version() as i64;
        let last = self.state.regexes.values().map(|resolved| resolved.time_ms).max();
        let stale = self.state.regexes.values().any(|resolved| resolved.version != version);
        if !stale || last.is_some_and(|last| self.outside.now.wall_ms < last + REGEX_REFRESH_MIN_MS) {
            return false;
        }
        let texts: Vec<String> = self.state.regexes.keys().cloned().collect();
        let mut changed = false;
        for text in texts {
            let resolved = regex::resolve(self.outside, &text);
            changed |= self.state.regexes[&text].topics != resolved.topics;
            self.push(Part::Regex(text, Some(resolved)));
        }
        changed
    }

    /// A number that changes when a topic that is read comes, goes or gets partitions; 0 where none is there.
    fn metadata_hash(&self) -> i64 {
        let mut text = Vec::new();
        for name in self.state.subscribed() {
            if let Some(topic) = self.outside.topics.by_name(name) {
                text.extend_from_slice(topic.id.as_bytes());
                text.extend_from_slice(&topic.partitions.to_be_bytes());
            }
        }
        if text.is_empty() { 0 } else { checksum(CrcAlgorithm::Crc64Nvme, &text) as i64 }
    }

    /// Makes the target assignment of the group's epoch.
    fn assign(&mut self) {
        let mut sizes: BTreeMap<Uuid, i32> = BTreeMap::new();
        let mut ids: BTreeMap<&str, Uuid> = BTreeMap::new();
        for name in self.state.subscribed() {
            if let Some(topic) = self.outside.topics.by_name(name) {
                sizes.insert(topic.id, topic.partitions);
                ids.insert(name, topic.id);
            }
        }
        let nothing = Partitions::new();
        // Members that read the same share one set, by which the assignors know that they do.
        type Subscription<'s> = (&'s BTreeSet<String>, &'s Option<String>);
        let mut named: BTreeMap<Subscription<'_>, Arc<BTreeSet<Uuid>>> = BTreeMap::new();
        let mut sets: BTreeSet<Arc<BTreeSet<Uuid>>> = BTreeSet::new();
        let subscribers = self.state.members.iter().map(|(id, member)| {
            let Metadata { topics, regex, instance, .. } = &member.metadata;
            let set = named.entry((topics, regex)).or_insert_with(|| {
                let matched = regex.as_ref().and_then(|regex| self.state.regexes.get(regex));
                let names = topics.iter().chain(matched.iter().flat_map(|resolved| &resolved.topics));
                let set = Arc::new(names.filter_map(|name| ids.get(name.as_str()).copied()).collect());
                sets.get(&set).cloned().unwrap_or_else(|| {
                    sets.insert(Arc::clone(&set));
                    set
                })
            });
            let target = self.state.targets.get(id).map_or(&nothing, |target| target);
            Subscriber { id, instance: instance.as_deref(), topics: set.clone(), target }
        });
        let subscribers: Vec<Subscriber<'_>> = subscribers.collect();
        let assigned = assign(self.state.assignor(self.settings), &subscribers, &sizes);
        let changed: Vec<(Arc<str>, Partitions)> = subscribers
            .iter()
            .zip(assigned)
            .filter(|(subscriber, assigned)| {
                subscriber.target != assigned || !self.state.targets.contains_key(subscriber.id)
            })
            .map(|(subscriber, assigned)| (subscriber.id.clone(), assigned))
            .collect();
        for (id, assigned) in changed {
            self.push(Part::Target(id, Some(assigned)));
        }
        self.push(Part::TargetEpoch(Some(self.state.epoch)));
    }

    /// A member takes its next step towards its target.
    fn step(&mut self, id: &Arc<str>, owned: Option<&Partitions>) {
        let Some(member) = self.member(id) else { return };
        let (nothing, epoch) = (Partitions::new(), self.state.target_epoch);
        let target = self.state.targets.get(id).map_or(&nothing, |target| target);
        let is_free = |topic, number| !self.state.owners.contains_key(&(topic, number));
        let next = reconcile::next(&member.current, epoch, target, owned, is_free);
        if next != member.current {
            self.push(Part::Current(id.clone(), Some(next)));
        }
    }
}
