#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pipeline_state_fuzz::skill_rules::check(bytes));
