# shellcheck shell=bash disable=SC2015,SC2017,SC2034,SC2154 # what is not set here is set in soak.sh
# Power cuts before each call that changes something, with the journal flushed (1) and dropped (2).

# The calls of a command that change something, as `NAME NTH`; each thread counts its own, and this is the first's.
changing_calls() {
  awk -v root="$1" '
    !match($0, /^[a-z0-9_]+\(/) { next }
    { name = substr($0, 1, RLENGTH - 1); nth[name]++ }
    index($0, "\"" root) { begun = 1 }
    !begun { next }
    name ~ /^(write|pwrite64|copy_file_range|sendfile|ftruncate|fallocate|fsync|fdatasync|rename|renameat|renameat2|link|linkat|symlinkat|unlink|unlinkat|mkdir|mkdirat|fchmod|fchmodat|fchmodat2|utimensat|exit_group)$/ || /O_CREAT/ { print name, nth[name] }
  ' "$2"
}

cuts() {
  [ "$1" = tmpfs ] && return 1 # it has nothing that a power cut leaves
  make_disk "$1"
  local command call nth how number=0 place code found root=$disk/root acknowledged=0
  for command in "${commands[@]}"; do
    begin "$command"
    words "$command"
    cd "$disk" && sync -f . || exit 1
    new_root
    strace -o "$answers/trace" -e trace=%file,%desc,exit_group "$binary" "${words[@]}" >/dev/null 2>&1
    changing_calls "$root" "$answers/trace" >"$answers/calls"
    [ -s "$answers/calls" ] || { echo "no calls of $command" >&2; exit 1; }
    while read -r call nth; do
      for how in 1 2; do
        number=$((number + 1))
        ((number % stride)) && continue
        new_root
        strace -qq -o /dev/null -e "trace=$call" -e "inject=$call:signal=SIGKILL:when=$nth" \
          "$binary" "${words[@]}" >"$answers/out" 2>"$answers/err"
        code=$?
        [ $code = 137 ] || violation "it was not killed ($code): $command before $call #$nth"
        cd / && power_cut "$how" && cd "$root" || { violation "the root is gone: $command"; continue; }
        place="$command, power cut (journal $([ $how = 1 ] && echo flushed || echo dropped)) before $call #$nth"
        found=$(seen "$command")
        if [ -s "$answers/out" ]; then
          acknowledged=$((acknowledged + 1))
          case $command:$found in
            *:new | acquire:old) ;; # a lock ends with its owner
            *) violation "acknowledged and lost ($found): $place" ;;
          esac
        fi
        case $found in old | new) ;; *) violation "$found: $place" ;; esac
        next_command "$command" "$place"
        cases=$((cases + 1))
      done
    done <"$answers/calls"
  done
  remark="$acknowledged of them behind an acknowledgement"
}

# The start once more, on the disk whatever happens, in $disk/root, which becomes the working directory.
new_root() {
  cd "$disk" && rm -rf root && cp -a start root && cd root || exit 1
  export AUDIT_LOG=$PWD/audit.log
  # A lock that was taken before the last power cut would be a dead owner's.
  if [ "$command" = release ]; then
    "$binary" lock acquire deploy 0 --owner-pid $$ --print-token >"$answers/token" || exit 1
  fi
  sync -f .
}
