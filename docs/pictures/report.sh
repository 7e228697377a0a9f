#!/usr/bin/env bash
# Makes docs/pictures/report.png: the report of a recorded demo, in light colours.
#
#     docs/pictures/report.sh [BINARY]      # default: target/debug/pipeline-state
#
# Everything in it happened: three scripts want one lock, one gives up, a guarded command fails, an
# operator breaks a lock. With KEEP=DIR the root and the page stay there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "${1:-"$here/../../target/debug/pipeline-state"}")
root=${KEEP:-$(mktemp -d)}
mkdir -p "$root/bin" "$root/project"
[ -n "${KEEP:-}" ] || trap 'rm -rf "$root"' EXIT
ln -sf "$binary" "$root/bin/pipeline-state"
export PATH=$root/bin:$PATH AUDIT_LOG=$root/audit.log
cd "$root/project"

script() { # NAME: a script of this name from standard input
  { echo '#!/bin/bash' && cat; } >"$root/bin/$1"
  chmod +x "$root/bin/$1"
}
script build.sh <<'END'
pipeline-state state phase build -q --reason 'nightly run'
pipeline-state lock acquire artifacts -q
sleep 0.4
pipeline-state state complete lint -q
sleep 0.5
pipeline-state lock acquire deploy -q
pipeline-state state complete unit -q --reason 'all unit tests pass'
sleep 1
pipeline-state lock release deploy -q
pipeline-state state phase test -q
sleep 0.3
END
script test.sh <<'END'
sleep 1
pipeline-state lock acquire deploy -q
sleep 0.7
pipeline-state state signal TESTED -q
pipeline-state lock release deploy -q
END
script deploy.sh <<'END'
sleep 1.2
pipeline-state lock acquire deploy 0.5 -q || sleep 0.2
pipeline-state lock acquire deploy -q
pipeline-state state phase deploy -q
pipeline-state recover guard migrate -- migrate.sh
sleep 0.3
pipeline-state state complete deploy -q
sleep 60
END
script migrate.sh <<'END'
pipeline-state state set schema:=2 -q --reason 'migrate the schema'
sleep 0.4
exit 3
END
script hotfix.sh <<'END'
pipeline-state lock acquire deploy -q
pipeline-state state phase done -q
pipeline-state lock release deploy -q
END

pipeline-state state init -q
build.sh & build=$!
test.sh & test=$!
deploy.sh & deploy=$!
wait "$build" "$test"
sleep 1.4
hotfix.sh & hotfix=$!
sleep 0.5
pipeline-state lock break deploy --force -q
kill "$deploy"
wait "$hotfix"
pipeline-state report -o "$root/report.html" -q

chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$root/profile" \
  --window-size=1280,560 --screenshot="$root/report.png" "file://$root/report.html" 2>/dev/null
[ -n "${OUT:-}" ] || OUT=$here/report.png
cp "$root/report.png" "$OUT"
