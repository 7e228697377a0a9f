# shellcheck shell=bash disable=SC2015,SC2017,SC2034,SC2154 # what is not set here is set in soak.sh
# Each fsync fails with EIO, which is what a dying disk says, once and from then on. The injected call is not made, so what
# it should have put on the disk is not there after a power cut: who is told "done" all the same has lost something.

fsync() {
  [ "$1" = tmpfs ] && return 1
  make_disk "$1"
  local command nth lasting how code count place found root=$disk/root
  for command in "${commands[@]}"; do
    begin "$command"
    words "$command"
    cd "$disk" && sync -f . || exit 1
    new_root
    strace -f -o "$answers/trace" -e trace=fsync,fdatasync "$binary" "${words[@]}" >/dev/null 2>&1
    count=$(grep -Ec 'f(data)?sync\(' "$answers/trace")
    for ((nth = 1; nth <= count; nth++)); do
      for lasting in '' +; do
        for how in 0 2; do
          new_root
          strace -f -qq -o /dev/null -e trace=fsync,fdatasync -e "inject=fsync,fdatasync:error=EIO:when=$nth$lasting" \
            "$binary" "${words[@]}" >"$answers/out" 2>"$answers/err"
          code=$?
          place="$command, EIO from fsync #$nth$lasting, exit code $code$([ $how = 2 ] && echo ', then a power cut')"
          case $code in 0 | 1) ;; *) violation "a wrong code: $place: $(<"$answers/err")" ;; esac
          ((code)) && [ "$(grep -c '^error: .*\]$' "$answers/err")" != 1 ] && violation "not one sentence: $place: $(<"$answers/err")"
          ((how)) && { cd / && power_cut 2 && cd "$root" || exit 1; }
          found=$(seen "$command")
          case $code:$how:$command:$found in
            *:*:*:new) ;;
            0:2:acquire:old) ;; # a lock ends with its owner
            1:*:*:old) ;;
            0:*:*:old) violation "told that it was done: $place" ;;
            *) violation "$found: $place" ;;
          esac
          next_command "$command" "$place"
          cases=$((cases + 1))
        done
      done
    done
  done
}
