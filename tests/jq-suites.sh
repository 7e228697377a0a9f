#!/usr/bin/env bash
# jq's own test suites against `state get`: DIR holds its *.test files, which are no part of this project.
#   tests/jq-suites.sh ~/src/jq/tests
set -euo pipefail
JQ_SUITES=$(realpath "${1:?the directory of the .test files}")
export JQ_SUITES
cd "$(dirname "$0")/.."
exec "${CARGO:-cargo}" test --test suite the_suites_of_jq -- --nocapture
