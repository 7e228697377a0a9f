# shellcheck shell=bash disable=SC2015,SC2017,SC2034,SC2154 # what is not set here is set in soak.sh
# kill -9 at random moments. Four writers and four owners of locks share a root each; two restorers have one of their own.

storms() {
  make_disk "$1"
  local each=$((kills / 10)) number
  mkdir -p "$answers/storm" && rm -f "$answers/storm/"*
  cd "$disk" && mkdir writers lockers || exit 1
  (cd writers && state init -q && state set -q n:=0) || exit 1
  local pids=()
  for number in 1 2 3 4; do
    storm writer "$number" writers $((each * 3 / 2)) & pids+=($!)
  done
  for number in 5 6 7 8; do
    storm locker "$number" lockers $((each / 2)) & pids+=($!)
  done
  for number in 9 10; do
    mkdir "restorer$number"
    storm restorer "$number" "restorer$number" "$each" & pids+=($!)
  done
  wait "${pids[@]}"
  cases=$(awk '{sum += $1} END {print sum + 0}' "$answers"/storm/*.killed)
  local calm
  calm=$(awk '{sum += $2} END {print sum + 0}' "$answers"/storm/*.killed)
  remark="kills in the middle of a command; $calm commands were not killed"
  ((cases >= each * 10)) || violation "a worker ended early: $cases of $((each * 10)) kills"
  writers_agree
  lockers_agree
}

# A worker, whose standard error is that of its commands.
storm() {
  cd "$disk/$3" || exit 1
  export AUDIT_LOG=$PWD/audit.log
  RANDOM=$(((seed + $2 * 7919) % 32768))
  out=$answers/storm/$2.out killed=0 calm=0 span=4000
  exec {never}<> <(:) 2>/dev/null # the shell tells of everyone who is killed
  "$1" "$2" "$4"
  echo "$killed $calm" >"$answers/storm/$2.killed"
}

# Runs a command, and mostly kills it before it can end. Sets code and acknowledged. The moments are drawn from a span that
# follows how long the commands take, so that all of them are met, fast machine or slow.
perhaps_killed() {
  : >"$out" # it may be killed before it can
  "$binary" "$@" >"$out" 2>"$out.err" &
  local pid=$! spared=$((RANDOM % 8 == 0))
  if ((!spared)); then
    read -rt "0.$(printf %06d $((RANDOM * span / 32768)))" -u "$never"
    kill -9 $pid
  fi
  wait $pid
  code=$?
  if [ $code = 137 ]; then
    killed=$((killed + 1)) span=$((span < 400000 ? span + span / 32 : span))
  else
    calm=$((calm + 1)) span=$((spared || span < 500 ? span : span - span / 16))
  fi
  acknowledged=; [ -s "$out" ] && acknowledged=yes
}

writer() {
  local tried=0 last=0 made=0 updates=0 kind value
  while ((killed < $2)); do
    tried=$((tried + 1)) kind=$((RANDOM % 3))
    case $kind in
      0) perhaps_killed state set "w$1:=$tried" --lock-timeout 60 ;;
      1) perhaps_killed state set "w$1:=$tried" "by=writer-$1" --reason "storm-$1" --lock-timeout 60 ;;
      2) perhaps_killed state update ".w$1 = $tried | .n += 1" --lock-timeout 60 ;;
    esac
    [ "$code" = 0 ] || [ "$code" = 137 ] || violation "a writer ends with $code: $(<"$out.err")"
    value=$(state get ".w$1 // 0" 2>"$out.err") || { violation "a bad read: $(<"$out.err")"; continue; }
    [ "$value" = "$tried" ] || [ "$value" = "$last" ] || violation "w$1 is $value, and was $last before $tried"
    [ -z "$acknowledged" ] || [ "$value" = "$tried" ] || violation "$tried was acknowledged, and w$1 is $value"
    if [ "$value" = "$tried" ]; then
      made=$((made + 1)) last=$tried
      ((kind == 2)) && updates=$((updates + 1))
    fi
  done
  echo "$made $updates" >"$answers/storm/$1.done"
}

writers_agree() {
  cd "$disk/writers" || exit 1
  export AUDIT_LOG=$PWD/audit.log
  local made updates
  read -r made updates < <(awk '{made += $1; updates += $2} END {print made, updates}' "$answers"/storm/*.done)
  [ "$(live .metadata.revision)" = $((made + 2)) ] || violation "revision $(live .metadata.revision) after $made commits"
  [ "$(live .n)" = "$updates" ] || violation "n is $(live .n) after $updates updates"
  state set -q z:=1 || violation 'the last writer fails'
  settled 'the storm of writers'
}

locker() {
  local lock token me=$BASHPID
  while ((killed < $2)); do
    lock=l$((RANDOM % 2))
    if ((RANDOM % 10 == 0)); then
      # An owner that dies with the lock.
      # shellcheck disable=SC2016
      bash -c '"$0" lock acquire "$1" 60 -q --owner-pid $$ && mkdir "$1.held" && rmdir "$1.held"; kill -9 $$' "$binary" "$lock" 2>"$out.err"
      grep -q ^error "$out.err" && violation "an owner that was to die: $(<"$out.err")"
    fi
    perhaps_killed lock acquire "$lock" 60 --print-token --owner-pid "$me"
    if [ $code = 0 ]; then
      token=$(<"$out")
      mkdir "$lock.held" 2>/dev/null || violation "$lock is held twice"
      echo "$token" >>"$lock.tokens"
      rmdir "$lock.held"
    elif [ $code != 137 ]; then
      violation "an acquire ends with $code: $(<"$out.err")"
    fi
    while :; do
      perhaps_killed lock release "$lock" --owner-pid "$me"
      case $code in
        0 | 1) break ;;
        137) ;;
        *) violation "a release ends with $code: $(<"$out.err")"; break ;;
      esac
    done
  done
}

lockers_agree() {
  cd "$disk/lockers" || exit 1
  export AUDIT_LOG=$PWD/audit.log
  local tokens
  for tokens in *.tokens; do
    sort -nuc "$tokens" || violation "the tokens in $tokens do not increase"
  done
  "$binary" lock clean -q
  [ "$("$binary" lock list json)" = '[]' ] || violation "locks are left: $("$binary" lock list json)"
  [ -z "$(find .locks -name '*.tmp')" ] || violation "left over: $(find .locks -name '*.tmp')"
}

restorer() {
  local round=0 found
  state init -q && mkdir config || exit 1
  while ((killed < $2)); do
    round=$((round + 1))
    state set -q "v:=$round" && echo $round >config/v || violation 'a set fails'
    while perhaps_killed recover checkpoint good; [ $code != 0 ]; do
      [ $code = 137 ] || violation "a checkpoint ends with $code: $(<"$out.err")"
      ((code == 137)) || break
    done
    "$binary" recover verify >/dev/null 2>"$out.err" || violation "a damaged checkpoint: $(<"$out.err")"
    state set -q "v:=-$round" && echo "-$round" >config/v || violation 'a set fails'
    perhaps_killed recover restore --latest good
    [ $code = 0 ] || [ $code = 137 ] || violation "a restore ends with $code: $(<"$out.err")"
    found=$(state get .v 2>"$out.err") || violation "a bad read: $(<"$out.err")"
    found+=" $(<config/v)"
    case $found in
      "$round $round") ;;
      "-$round -$round") [ -z "$acknowledged" ] || violation "acknowledged and not restored: $found" ;;
      *) violation "a mix: $found" ;;
    esac
    perhaps_killed recover cleanup 0 --keep 2
    ((round % 50)) || { state set -q z:=$round || violation 'a set fails'; settled 'a storm of restores'; }
  done
  state set -q z:=0 || violation 'a set fails'
  settled 'a storm of restores'
}
