//! How the program is linked: with the unwinder in it, and for a fixed address. A shared
//! `libgcc_s.so.1` takes 100 µs, an eighth of a short command: it is mapped, relocated, and asks the
//! processor what it can do, which a virtual machine answers slowly. At an address of its choice the
//! loader would relocate 10,800 pointers, and so copy 50 pages, another 100 µs. Libraries, stack and
//! heap still are at random addresses.

use std::env::var;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let of_target = |what: &str| var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    let is_static = of_target("FEATURE").split(',').any(|feature| feature == "crt-static");
    if of_target("OS") != "linux" || of_target("ENV") != "gnu" || is_static {
        return; // the unwinder is linked in anyway, or is another library
    }
    println!("cargo::rustc-link-arg-bins=-no-pie");
    if cc_has("libgcc_eh.a") {
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
}

/// Whether the C compiler, which links for rustc, knows this library: it answers with a path, or with the bare name.
fn cc_has(library: &str) -> bool {
    let answer = Command::new("cc").arg(format!("-print-file-name={library}")).output();
    answer
        .is_ok_and(|answer| Path::new(String::from_utf8_lossy(&answer.stdout).trim()).is_absolute())
}
