# shellcheck shell=bash disable=SC2015,SC2017,SC2034,SC2154 # what is not set here is set in soak.sh
# Disks with 0 to 16 free blocks, and with 0 to 16 free inodes.

full() {
  local what left command
  case $1 in
    ext4) size=32M make_disk ext4 -b 4096 -N 512 ;;
    xfs) make_disk xfs ;;
    tmpfs) make_disk tmpfs -o size=16m,nr_inodes=512 ;;
  esac
  local most=0 least=99 codes=''
  for command in "${commands[@]}"; do
    begin "$command"
    words "$command"
    for what in blocks inodes; do
      [ "$1:$what" = xfs:inodes ] && continue # it makes inodes of blocks
      for ((left = 0; left <= 16; left++)); do
        new_root
        fill "$what" "$left"
        try_on_full_disk "$command" "$left free $what"
        cases=$((cases + 1))
      done
    done
  done
  remark="$(sort "$answers/codes" | uniq -c | awk '{printf "%s%d ended with %s", (NR > 1 ? ", " : ""), $1, $2}')"
  rm -f "$answers/codes"
}

free() { stat -f -c "$([ "$1" = blocks ] && echo %a || echo %d)" "$disk"; }

# Leaves this many blocks or inodes.
fill() {
  local now number=0 at=0
  mkdir -p "$disk/filler"
  sync -f "$disk"
  while now=$(free "$1"); ((now > $2)); do
    if [ "$1" = inodes ]; then
      for ((; now > $2; now--)); do
        number=$((number + 1))
        : >"$disk/filler/$number" || break 2
      done
    elif [ "$system" = tmpfs ]; then
      head -c $(((now - $2) * 4096)) /dev/zero >>"$disk/filler/file" || break
    else
      # Half of what is too much at a time, since describing it takes blocks as well.
      fallocate -o $((at * 4096)) -l $(((now - $2 + 1) / 2 * 4096)) "$disk/filler/file" 2>/dev/null || break
      at=$((at + (now - $2 + 1) / 2))
    fi
  done
}

try_on_full_disk() {
  local command=$1 place code found
  "$binary" "${words[@]}" >"$answers/out" 2>"$answers/err"
  code=$?
  place="$command with $2, exit code $code"
  echo $code >>"$answers/codes"
  case $code in 0 | 7) ;; *) violation "a wrong code: $place: $(<"$answers/err")" ;; esac
  ((code)) && [ "$(grep -c '^error: .*\]$' "$answers/err")" != 1 ] && violation "not one sentence: $place: $(<"$answers/err")"
  found=$(seen "$command")
  case $code:$found in
    0:new | 7:old) ;;
    7:new) grep -q 'decided' "$answers/err" || violation "refused and done: $place: $(<"$answers/err")" ;;
    *) violation "$found: $place: $(<"$answers/err")" ;;
  esac
  rm -rf "$disk/filler"
  case $command in
    acquire | release) "$binary" lock release deploy -q --owner-pid $$ 2>/dev/null ;;
  esac
  next_command "$command" "$place"
}
