//! Record batches as clients produce them and as segments hold them.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ringlog::record::{Batch, BatchHeader, Compression, RecordTimes, split_batches};

/// Where the CRC of a batch lies, and where the bytes begin that it is made of.
const CRC: std::ops::Range<usize> = 17..21;

fuzz_target!(|data: &[u8]| {
    look_at(Bytes::copy_from_slice(data));
    // The same with a length and a CRC that are right, so that what lies behind those checks is reached.
    if data.len() < CRC.end {
        return;
    }
    let mut batch = data.to_vec();
    let length = batch.len() as i32 - 12;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[16] = 2;
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &batch[CRC.end..]) as u32;
    batch[CRC].copy_from_slice(&crc.to_be_bytes());
    look_at(batch.into());
});

fn look_at(bytes: Bytes) {
    let _ = BatchHeader::peek(&bytes);
    let _ = Batch::parse_stored(&bytes);
    for (position, batch) in split_batches(&bytes) {
        assert!(position + batch.len() <= bytes.len());
        let _ = batch.check_crc();
    }
    if let Ok(mut batch) = Batch::parse_produced(&bytes) {
        let _ = batch.entries();
        batch.assign(5, 3);
        batch.stamp(1_000);
        if batch.header.compression() == Some(Compression::None) {
            let records = RecordTimes::new(&batch.header, &batch.body);
            let offsets: Vec<i64> = records.map(|(offset, _)| offset).collect();
            assert_eq!(offsets, (5..=batch.header.last_offset()).collect::<Vec<i64>>());
        }
    }
}
