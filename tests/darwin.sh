#!/usr/bin/env bash
# Type-checks the program for macOS on Linux. `tests/darwin.sh link` also links it.
#
# No Linux distribution has the standard library of macOS, but Debian has a current compiler with
# the library's sources, for its browsers: rustc-web and rust-web-src. Its metadata is built from
# them. A linker for macOS is `ziglang` of PyPI. Nothing is run; docs/macos.md says what this shows.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${DARWIN_TARGET:-aarch64-apple-darwin}

say() { echo "$1" >&2; }

has_sources() { [ -e /usr/lib/rustlib/src/rust/library/Cargo.lock ] && [ -x /usr/bin/rustc ]; }
if ! has_sources; then
  sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
  packages=(rustc-web rust-web-src)
  { $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends "${packages[@]}"; } \
    >/dev/null 2>&1 || true
  has_sources || { say "not type-checked for macOS: ${packages[*]} are not to be had"; exit 0; }
fi

# The sources match this compiler only, and need its unstable options. Never for a release.
export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
export CARGO_TARGET_DIR=target/darwin CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_DEV_STRIP=none
options=(--quiet --locked --target "$target" "-Zbuild-std=std,panic_unwind" --lib --bins)

if [ "${1:-}" != link ]; then
  output=$(cargo check "${options[@]}" 2>&1) || { say "$output"; exit 1; }
  [ -z "$output" ] || { say "$output"; exit 1; } # a warning
  echo "type-checked for $target by $("$RUSTC" --version)"
  exit 0
fi

if ! python3 -c 'import ziglang' 2>/dev/null; then
  say "not linked for macOS: ziglang is not installed (python3 -m pip install ziglang)"
  exit 0
fi
tools=$PWD/$CARGO_TARGET_DIR/tools
mkdir -p "$tools/CoreFoundation.framework"
linker=$tools/cc # rustc judges by this name which options a linker takes
# They are in the words of Apple's compiler, with a library of which nothing is used.
cat >"$linker" <<'LINK'
#!/usr/bin/env bash
words=(-F "$(dirname "$0")")
while (($#)); do
  case $1 in
    -arch) shift ;;
    -mmacosx-version-min=* | -liconv) ;;
    *) words+=("$1") ;;
  esac
  shift
done
exec python3 -m ziglang cc -target "$ZIG_TARGET" "${words[@]}"
LINK
chmod +x "$linker"
# What the program uses of this framework: the name of the time zone.
cat >"$tools/CoreFoundation.framework/CoreFoundation.tbd" <<'TBD'
--- !tapi-tbd
tbd-version: 4
targets: [ arm64-macos, x86_64-macos ]
install-name: '/System/Library/Frameworks/CoreFoundation.framework/Versions/A/CoreFoundation'
exports:
  - targets: [ arm64-macos, x86_64-macos ]
    symbols: [ _CFRelease, _CFStringGetBytes, _CFStringGetCStringPtr, _CFStringGetLength,
               _CFTimeZoneCopySystem, _CFTimeZoneGetName, _CFTimeZoneResetSystem ]
...
TBD
export ZIG_TARGET=${target/-apple-darwin/-macos.11.0}
name=${target//-/_}
export "CARGO_TARGET_${name^^}_LINKER=$linker"
cargo build "${options[@]}"
file "$CARGO_TARGET_DIR/$target/debug/pipeline-state" 2>/dev/null || ls -l "$CARGO_TARGET_DIR/$target/debug/pipeline-state"
