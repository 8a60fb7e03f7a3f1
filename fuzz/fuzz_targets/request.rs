//! A request frame of any API and version: it is refused or decoded, without a panic and without memory out of
//! proportion (libFuzzer ends a run that takes more than its limit).
#![no_main]

use bytes::{BufMut, Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use ringlog::protocol::request;
use ringlog::protocol::versions::APIS;

fuzz_target!(|data: &[u8]| {
    // As it comes off the wire.
    let _ = request::decode(Bytes::copy_from_slice(data));
    // And with a header that leads into the decoder of each API and version.
    let [api, version, rest @ ..] = data else { return };
    let api = &APIS[usize::from(*api) % APIS.len()];
    let version = api.min + i16::from(*version) % (api.max - api.min + 1);
    let mut frame = BytesMut::with_capacity(rest.len() + 16);
    frame.put_i16(api.key as i16);
    frame.put_i16(version);
    frame.put_i32(7);
    frame.put_i16(-1);
    if api.key.request_header_version(version) >= 2 {
        frame.put_u8(0);
    }
    frame.put_slice(rest);
    if let Ok(request) = request::decode(frame.freeze()) {
        assert_eq!((request.version, request.correlation_id), (version, 7));
    }
});
