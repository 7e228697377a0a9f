#!/usr/bin/env bash
# For a Mac: builds the program, tries it, and prints a report to paste into an issue.
# Five minutes; it changes nothing outside target/ and a temporary directory. docs/macos.md
# shellcheck disable=SC2016 # the cases are for another shell
set -u
cd "$(dirname "$0")/.." || exit 1
[ "$(uname)" = Darwin ] || echo "this is no Mac: the report is of $(uname)" >&2
type cargo >/dev/null 2>&1 || { echo "install Rust first: https://rustup.rs" >&2; exit 1; }

cargo build --locked || exit 1
bin=$PWD/target/debug/pipeline-state
place=$(mktemp -d) || exit 1
trap 'rm -rf "$place"' EXIT
export HOME=$place AUDIT_LOG=$place/audit.log NO_COLOR=1
unset PIPELINE_OWNER_PID PIPELINE_LOCK_TOKEN STATE_FILE
root=$place/root
mkdir "$root"

failed=0
report=$place/report
# A case: its name, the expected exit code, and a line of bash that calls $B.
try() {
  local name=$1 expected=$2 code=0 output
  output=$(cd "$root" && B=$bin bash -c "$3" 2>&1) || code=$?
  if [ "$code" = "$expected" ]; then
    echo "ok      $name"
  else
    failed=$((failed + 1))
    printf 'FAILED  %s: exit %s, not %s\n%s\n' "$name" "$code" "$expected" "$output"
  fi >>"$report"
}

try "a state is made" 0 '$B state init'
try "a commit is acknowledged" 0 '$B set phase=build'
try "it is read back" 0 '[ "$($B get -r .phase)" = build ]'
try "damage is healed" 0 ': >.workflow-state.json; [ "$($B get -r .phase)" = build ]'
try "undo goes back" 0 '$B undo && $B get .phase'
try "status" 0 '$B status'
try "status knows the file system" 0 '! $B lock status --json | grep -q unknown\",'
try "a lock is held while a command runs" 0 '$B lock run a -- "$B" lock check a | grep -q locked'
try "its exit code is passed on" 21 '$B lock run a -- sh -c "exit 21"'
try "a command inherits no pipe" 0 '$B lock run a -- sh -c "ls /dev/fd" >fds; wc -l <fds'
try "a second owner waits in vain" 2 \
  '$B lock run b -- sleep 5 & sleep 1; $B lock run --timeout 1 b -- true'
try "a killed owner frees its lock" 0 \
  'bash -c "$B lock acquire c; kill -9 \$\$" ; $B lock run --timeout 5 c -- true'
try "a waiter is woken, and does not poll" 0 \
  '$B lock run d -- sleep 1 & sleep 0.3; $B lock run --timeout 10 d -- true'
try "a wait for the state ends" 0 \
  '(sleep 1; $B set phase=done) & $B state wait ".phase == \"done\"" --timeout 10'
try "a subshell owns its own lock (bash 3.2)" 0 \
  'eval "$($B shell bash)"; acquire_lock e; (release_lock e) 2>/dev/null; $B lock check e | grep -q locked'
try "zsh can use the functions" 0 'zsh -c "eval \"\$($B shell zsh)\"; acquire_lock f && release_lock f"'
try "a checkpoint is restored" 0 \
  'mkdir config; echo 1 >config/a; touch config/.DS_Store; $B recover checkpoint x; echo 2 >config/a; $B recover restore --latest --yes; [ "$(cat config/a)" = 1 ]'
[ -e "$root/.LOCKS" ] && refused=64 || refused=0 # by whether the volume ignores case
try "names that differ by case" "$refused" '$B lock run G,g -- true'
try "a guard puts back" 3 '$B recover guard h -- sh -c "exit 3"'
try "retries end" 0 '$B recover retry -n 2 --base-delay 0.1 -- true'

{
  echo "## pipeline-state on a Mac"
  "$bin" --version
  sw_vers 2>/dev/null || uname -a
  uname -m
  bash --version | head -1
  echo; echo "### Commands: $failed failed"; cat "$report"
  echo; echo "### Unit tests"
  cargo test --locked --lib 2>&1 | grep -E '^(test result|failures|    |---- )' | tail -40
  echo; echo "### Speed of a commit"
  (cd "$root" && time for n in 1 2 3 4 5 6 7 8 9 10; do "$bin" set -q "n:=$n"; done) 2>&1
  echo; echo "### Doctor"
  (cd "$root" && "$bin" doctor --json)
} | tee "$place/all"
echo
echo "Paste all lines from '## pipeline-state on a Mac' into an issue; failures are welcome."
