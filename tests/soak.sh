#!/usr/bin/env bash
# The promises on real file systems: minutes to hours, as root. `tests/soak.sh --help` says what it does.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)

usage() {
  cat <<'HELP'
Usage: sudo tests/soak.sh [OPTIONS] [PART…]

Breaks pipeline-state on real file systems (loop-mounted ext4 and XFS images, tmpfs) and looks whether it keeps its
promises: what was acknowledged is there, the next command succeeds, nothing is left over.

Parts (all of them if none is named):
  storms   kill -9 at random moments: writers that share a root, owners of locks, restores
  cuts     power cuts: a command is killed before each of its calls that changes something (and before its exit, when
           it has acknowledged), the file system is shut down by ioctl FS_IOC_GOINGDOWN, once with its journal flushed
           and once with the journal dropped, and mounted again. Before any other call nothing is different from
           before the next of these.
  full     0 to 16 free blocks, and 0 to 16 free inodes
  fsync    each fsync fails with EIO, once and from then on, and the power is cut after the command's answer

Options:
  --kills N       kill -9 storms on each file system [default: 10000]
  --fs LIST       of ext4,xfs,tmpfs [default: all three]
  --stride N      only every Nth power cut [default: 1]
  --seed N        for the moments of the kills [default: from the clock]
  --binary FILE   [default: target/release/pipeline-state, which is built if it is not there]
  --keep DIR      where the roots of violations are copied to [default: a new directory in /tmp]

Needs: root, strace, jq, perl, util-linux, mkfs.ext4 (e2fsprogs), mkfs.xfs (xfsprogs). Mounts are removed at the end.
Exit code: 0 without violations, 1 with, 5 if something is missing.
HELP
}

kills=10000 systems=ext4,xfs,tmpfs stride=1 seed=$((10#$(date +%N))) binary='' keep='' parts=()
while (($#)); do
  case $1 in
    --kills) kills=$2; shift ;;
    --fs) systems=$2; shift ;;
    --stride) stride=$2; shift ;;
    --seed) seed=$2; shift ;;
    --binary) binary=$2; shift ;;
    --keep) keep=$2; shift ;;
    -h | --help) usage; exit 0 ;;
    storms | cuts | full | fsync) parts+=("$1") ;;
    *) usage >&2; exit 64 ;;
  esac
  shift
done
((${#parts[@]})) || parts=(storms cuts full fsync)
IFS=, read -ra systems <<<"$systems"

missing=()
[ "$(id -u)" = 0 ] || missing+=("root (try sudo)")
for tool in strace jq perl losetup unshare mkfs.ext4 mkfs.xfs; do
  command -v "$tool" >/dev/null || missing+=("$tool")
done
if ((${#missing[@]})); then
  printf 'missing: %s\n' "${missing[@]}" >&2
  echo 'hint: apt-get install strace jq perl-base util-linux e2fsprogs xfsprogs' >&2
  exit 5
fi
if [ -z "$binary" ]; then
  binary=${CARGO_TARGET_DIR:-$here/../target}/release/pipeline-state
  [ -x "$binary" ] || (cd "$here/.." && cargo build --release) || exit 5
fi
binary=$(realpath "$binary") || exit 5
unset PIPELINE_ROOT STATE_FILE LOCK_TIMEOUT PIPELINE_OWNER_PID PIPELINE_LOCK_TOKEN PIPELINE_LOCK_EXIT DEBUG PIPELINE_FORMAT

# ---- mounts ----

# In a mount namespace of its own nothing that is mounted here is left behind, and a boot id may be put over the kernel's.
if [ -z "${PIPELINE_STATE_SOAK:-}" ]; then
  PIPELINE_STATE_SOAK=alone exec unshare --mount "$0" --kills "$kills" --fs "$(IFS=,; echo "${systems[*]}")" --stride "$stride" \
    --seed "$seed" --binary "$binary" ${keep:+--keep "$keep"} "${parts[@]}"
fi

work=$(mktemp -d /tmp/pipeline-state-soak.XXXXXX)
disk=$work/disk
mkdir "$disk" "$work/ram"
mount -t tmpfs none "$work/ram" || exit 5 # answers are kept here, whatever happens to the disk
cp /proc/sys/kernel/random/boot_id "$work/ram/boot_id"
mount --bind "$work/ram/boot_id" /proc/sys/kernel/random/boot_id || exit 5

clean_up() {
  trap - EXIT INT TERM
  local children
  mapfile -t children < <(jobs -p)
  ((${#children[@]})) && kill -9 "${children[@]}" 2>/dev/null
  wait 2>/dev/null
  cd /
  mountpoint -q "$disk" && umount -l "$disk"
  umount /proc/sys/kernel/random/boot_id
  umount -l "$work/ram" # the shell itself may have files open there
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# A new file system at $disk. Words behind its name go to mkfs, or for tmpfs to mount.
make_disk() {
  local kind=$1; shift
  mountpoint -q "$disk" && { umount "$disk" || exit 1; }
  system=$kind
  rm -f "$work/image"
  case $kind in
    tmpfs) mount -t tmpfs "$@" none "$disk" || exit 1; return ;;
    ext4) truncate -s "${size:-256M}" "$work/image"; mkfs.ext4 -q -F -m 0 "$@" "$work/image" || exit 1 ;;
    xfs) truncate -s "${size:-512M}" "$work/image"; mkfs.xfs -q -f "$@" "$work/image" || exit 1 ;;
  esac
  plug_in
}
plug_in() { mount -o loop "$work/image" "$disk"; }

# The power fails, and the machine boots again: 1 the journal is flushed before, 2 it is dropped.
power_cut() {
  # shellcheck disable=SC2016
  perl -e 'my $how = pack "L", $ARGV[1]; open my $disk, "<", $ARGV[0] or die "$!\n"; ioctl $disk, 0x8004587d, $how or die "$!\n"' \
    "$disk" "$1" || exit 1
  umount "$disk" && plug_in || exit 1
  cat /proc/sys/kernel/random/uuid >"$work/ram/boot_id"
}

# ---- what is counted ----

cases=0 violations=0 remark=''
[ -n "$keep" ] || keep=$(mktemp -d /tmp/pipeline-state-violations.XXXXXX)
mkdir -p "$keep"

# A promise was broken: what, and the root in which it was.
violation() {
  echo "VIOLATION ($system): $1" # not to standard error, where workers have nobody who reads it
  echo x >>"$work/ram/violations"
  local number
  number=$(wc -l <"$work/ram/violations")
  cp -a "${2:-.}" "$keep/$number" 2>/dev/null
  echo "$1" >"$keep/$number.txt"
}

state() { "$binary" state "$@"; }

# The live file, asked by somebody else.
live() { jq -c "$1" .workflow-state.json; }

# What holds of every root in which a writer succeeded.
settled() {
  local left
  left=$(find . -name '*.tmp' -not -path './.locks/*' -o -name '.pipeline-state-*' -not -path './.locks/*' -o -name .in-progress)
  [ -z "$left" ] || violation "left over after $1: $left"
  state validate >/dev/null 2>"$answers/validate" || violation "not valid after $1: $(<"$answers/validate")"
  cmp -s .workflow-state.json .state-backups/mirror.json || violation "the mirror differs after $1"
}
answers=$work/ram

for part in storms cuts full fsync; do
  # shellcheck source=/dev/null
  . "$here/soak/$part.sh"
done
# shellcheck source=/dev/null
. "$here/soak/commands.sh"

printf 'seed %s, %s\n' "$seed" "$("$binary" --version)"
touch "$work/ram/violations"
for part in "${parts[@]}"; do
  for system in "${systems[@]}"; do
    began=$SECONDS cases=0 before=$(wc -l <"$work/ram/violations")
    "$part" "$system" 2>>"$work/ram/stderr" || continue
    cd / || exit 1
    printf '%-7s %-6s %6d cases, %3d violations, %4d s%s\n' "$part" "$system" "$cases" \
      $(($(wc -l <"$work/ram/violations") - before)) $((SECONDS - began)) "${remark:+; $remark}"
    remark=''
  done
done
violations=$(wc -l <"$work/ram/violations")
if ((violations)); then
  echo "$violations violations; their roots are in $keep"
  exit 1
fi
rmdir "$keep" 2>/dev/null
echo 'no violations'
