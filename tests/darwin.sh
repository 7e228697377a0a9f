#!/usr/bin/env bash
# Type-checks the program for macOS on Linux, and links it where a linker for that is installed.
#
# The standard library of another system comes with no Linux distribution, but its sources do:
# Debian packages a current compiler with them for its browsers (rustc-web, rust-web-src). The
# library's metadata is built from these. A linker for macOS is `ziglang` of PyPI.
#
# Nothing is run: there is no Mac. What a check shows and what it does not: docs/macos.md.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${DARWIN_TARGET:-aarch64-apple-darwin}
rustc=/usr/bin/rustc
sources=/usr/lib/rustlib/src/rust/library/Cargo.lock # of this compiler

skip() {
  echo "not type-checked for macOS: $1" >&2
  exit 0
}

found_sources() { [ -x "$rustc" ] && [ -e "$("$rustc" --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" ]; }
if ! found_sources; then
  sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
  type -P apt-get >/dev/null || skip "rustc-web and rust-web-src are packages of Debian"
  { $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends rustc-web rust-web-src; } \
    >/dev/null 2>&1 || skip "rustc-web and rust-web-src are not to be had here"
  found_sources || skip "rust-web-src has no sources of the standard library"
fi

export RUSTC=$rustc CARGO_TARGET_DIR=target/darwin
export RUSTC_BOOTSTRAP=1             # for -Zbuild-std; never in a release
export CARGO_PROFILE_DEV_DEBUG=0
options=(--quiet --locked --target "$target" -Zbuild-std=std,panic_unwind)
RUSTFLAGS="-D warnings" cargo check "${options[@]}" --lib --bins
echo "type-checked for $target with $("$rustc" --version)"

[ "${1:-}" = link ] || exit 0
python3 -c 'import ziglang' 2>/dev/null || skip_link=1
if [ "${skip_link:-}" ]; then
  echo "not linked for macOS: ziglang is not installed (python3 -m pip install ziglang)" >&2
  exit 0
fi
