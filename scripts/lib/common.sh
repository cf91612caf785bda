# Sourced by the commands in scripts/. What all of them need.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$ROOT" || exit 1

# One place for everything that is built, inside the clone or not.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${KELVIN_TARGET:-target}}

if [ -t 1 ]; then BOLD=$'\e[1m' RED=$'\e[31m' PLAIN=$'\e[0m'; else BOLD='' RED='' PLAIN=''; fi

say() { printf '%s==>%s %s\n' "$BOLD" "$PLAIN" "$*"; }

# die WHAT [REMEDY...]
die() {
  printf '%serror:%s %s\n' "$RED" "$PLAIN" "$1" >&2
  shift
  local line
  for line in "$@"; do printf '       %s\n' "$line" >&2; done
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command in a process group of its own, so that a signal to us is answered
# at once, and takes along whatever the command has started.
RUNNING=
run() {
  local status=0
  set -m
  "$@" </dev/null &
  RUNNING=$!
  set +m
  wait "$RUNNING" || status=$?
  RUNNING=
  return "$status"
}

stop_running() {
  if [ -n "$RUNNING" ]; then
    kill -TERM -- "-$RUNNING" 2>/dev/null || true
    wait "$RUNNING" 2>/dev/null || true
    RUNNING=
  fi
}

trap 'stop_running; exit 130' INT
trap 'stop_running; exit 143' TERM HUP
