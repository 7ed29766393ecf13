//! libFuzzer around the targets; `STOA_FUZZ_TARGET` names the one.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("STOA_FUZZ_TARGET").expect("STOA_FUZZ_TARGET names a target");
        stoa_fuzz::target(&name).unwrap_or_else(|| panic!("no target {name}"))
    });
    target(data);
});
