use smallvec::SmallVec;
use zerocopy::IntoBytes;

use super::super::replicate::tests::{Cluster, Node};
use super::super::tests::{Disk, batch, config, consume, consume_undamaged, now, open_with, persist};
use super::*;
use crate::partition::CompactionStep;
use crate::record::Batch;

/// Three replicas with two segments each, the newest of which may still grow.
fn filled() -> Cluster {
    let mut cluster = Cluster::new();
    for n in 0..150u8 {
        cluster.append(0, &[&[n; 500], &[n; 450]]);
        cluster.run();
    }
    cluster.pass(3);
    cluster.nodes.iter_mut().for_each(empty_tail);
    cluster
}

fn empty_tail(node: &mut Node) {
    while node.partition.unflushed_cost() > 0 {
        node.disk.flush(&mut node.partition);
    }
    while node.partition.evict_one().is_some() {}
}

/// Every batch as bytes, without the epoch of its leader, which no checksum covers; none where damage is in the way.
fn log(partition: &mut Partition, disk: &Disk) -> Option<Vec<Vec<u8>>> {
    let bytes = |batch: Batch| {
        let mut bytes = [batch.header.as_bytes(), &batch.body].concat();
        bytes[12..16].fill(0);
        bytes
    };
    Some(consume_undamaged(partition, disk, 0)?.into_iter().map(bytes).collect())
}

/// Runs the pass; `fetch` gives what another replica has between these offsets.
fn mend(partition: &mut Partition, disk: &mut Disk, mut fetch: impl FnMut(Offset, Offset) -> Option<Chunk>) -> bool {
    assert!(partition.wants_mend(now(0)) && partition.begin_mend(now(0)));
    loop {
        let step = partition.compaction_step();
        match disk.carry_out(partition, step) {
            None => {}
            Some(CompactionStep::Fetch(from, to)) => match fetch(from, to) {
                Some(chunk) => assert!(partition.mend_fetched(from, &[chunk])),
                None => partition.give_mend_up(),
            },
            Some(CompactionStep::Done { mended, stray, .. }) => {
                stray.into_iter().for_each(|name| disk.remove(name));
                return mended;
            }
            Some(step) => panic!("{step:?}"),
        }
    }
}

/// The same, for a replica of a cluster: some batches a time, of another one.
fn mend_in(cluster: &mut Cluster, at: usize, of: usize) -> bool {
    let batches = {
        let Node { partition, disk, .. } = &mut cluster.nodes[of];
        consume(partition, disk, 0)
    };
    let Node { partition, disk, .. } = &mut cluster.nodes[at];
    mend(partition, disk, |from, to| {
        let within = batches.iter().filter(|batch| (from..to).contains(&batch.header.base_offset.get()));
        let bytes: Vec<u8> = within.take(3).flat_map(|batch| [batch.header.as_bytes(), &batch.body].concat()).collect();
        Some(Chunk { head: SmallVec::new(), body: bytes.into() })
    })
}

#[test]
fn whichever_byte_of_a_file_is_damaged_the_other_replicas_make_it_whole() {
    let mut cluster = filled();
    let Node { partition, disk, .. } = &mut cluster.nodes[0];
    let whole = log(partition, disk).unwrap();
    let mut mended = 0;
    for round in 0.. {
        cluster.restart(1);
        cluster.pass(3);
        let node = &mut cluster.nodes[1];
        let files = node.disk.lengths();
        // Each round another byte; all of the first batch, which nothing is before, and of the second.
        let mut at = if round < 2_200 { round } else { 2_200 + (round - 2_200) * 97 };
        let Some(file) = files.iter().find(|(_, len)| {
            let within = at < *len;
            at = if within { at } else { at - len };
            within
        }) else {
            break;
        };
        node.disk.flip(file.0, at);
        let found = log(&mut node.partition, &node.disk);
        if node.partition.is_mendable() {
            // Without its index a segment can be read.
            assert!(found.is_none() || file.0.file == SegmentFile::Index && found.as_ref() == Some(&whole));
            assert!(mend_in(&mut cluster, 1, 2));
            mended += 1;
            let Node { partition, disk, .. } = &mut cluster.nodes[1];
            assert!(log(partition, disk).as_ref() == Some(&whole), "byte {at} of {:?}", file.0);
            cluster.restart(1);
            cluster.pass(3);
        } else {
            // It was the epoch, or a part of an index that is in memory.
            assert!(found.as_ref() == Some(&whole), "byte {at} of {:?}", file.0);
            node.disk.flip(file.0, at);
        }
        let Node { partition, disk, .. } = &mut cluster.nodes[1];
        assert!(log(partition, disk).as_ref() == Some(&whole), "byte {at} of {:?}", file.0);
    }
    assert!(mended > 2_500, "{mended} times something was mended");
}

#[test]
fn what_comes_while_the_newest_segment_is_damaged_goes_to_another() {
    let mut cluster = filled();
    cluster.restart(1);
    cluster.pass(3);
    let node = &mut cluster.nodes[1];
    let newest = node.disk.lengths().into_iter().rfind(|(file, _)| file.file == SegmentFile::Log).unwrap();
    node.disk.flip(newest.0, newest.1 / 2);
    assert!(log(&mut node.partition, &node.disk).is_none());
    for round in 0..2 {
        cluster.append(0, &[b"more"]);
        cluster.run();
        cluster.pass(3);
        cluster.nodes.iter_mut().for_each(empty_tail);
        assert_eq!(cluster.nodes[1].disk.lengths().iter().find(|(file, _)| *file == newest.0).map(|file| file.1), {
            (round == 0).then_some(newest.1)
        });
        if round == 0 {
            assert!(mend_in(&mut cluster, 1, 0));
        }
    }
    cluster.restart(1);
    cluster.pass(3);
    cluster.assert_equal();
}

#[test]
fn a_replica_that_nobody_helps_keeps_what_it_has() {
    let mut cluster = filled();
    cluster.restart(1);
    cluster.pass(3);
    let Node { partition, disk, .. } = &mut cluster.nodes[1];
    let (first, len) = disk.lengths()[0];
    disk.flip(first, len / 2);
    assert!(log(partition, disk).is_none());
    let before = disk.lengths();
    assert!(!mend(partition, disk, |_, _| None));
    assert_eq!(disk.lengths(), before);
    assert!(partition.is_mendable() && !partition.wants_mend(now(0)), "not again at once");
}

#[test]
fn a_log_without_other_replicas_gets_its_index_anew_and_no_records() {
    let mut disk = Disk::default();
    let mut partition = open_with(&disk, config());
    persist(&mut partition, &mut disk);
    for n in 0..150u8 {
        partition.append(now(0), batch(&[&[n; 2_000]], 0)).unwrap();
        persist(&mut partition, &mut disk);
    }
    while partition.unflushed_cost() > 0 {
        disk.flush(&mut partition);
    }
    let reopened = |disk: &mut Disk| {
        let mut partition = open_with(disk, config());
        persist(&mut partition, disk);
        while partition.evict_one().is_some() {}
        partition
    };
    let whole = log(&mut reopened(&mut disk), &disk).unwrap();
    let files = disk.lengths();
    let index = files.iter().find(|(file, _)| file.file == SegmentFile::Index).unwrap();
    disk.flip(index.0, 5);
    let mut partition = reopened(&mut disk);
    assert!(log(&mut partition, &disk).as_ref() == Some(&whole) && partition.is_mendable());
    assert!(mend(&mut partition, &mut disk, |_, _| unreachable!("nobody can be asked")));
    assert!(log(&mut partition, &disk).as_ref() == Some(&whole));
    let mut partition = reopened(&mut disk);
    assert!(log(&mut partition, &disk).as_ref() == Some(&whole));
    let records = disk.lengths().into_iter().find(|(file, _)| file.file == SegmentFile::Log).unwrap();
    disk.flip(records.0, 1_000);
    let mut partition = reopened(&mut disk);
    assert!(log(&mut partition, &disk).is_none() && !partition.is_mendable());
}
