#!/bin/sh
# On a host, as root: takes a bundle from standard input, has systemd run what is to be done, and tells what that says.
# $1 names the ship, $2 is the SHA-256 of the archive (empty where there is none), $3 what is to be done, $4 the script that does it.
# Every line of ours begins with the ship's name.
set -eu
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
ship=$1
base=/opt/app-ship
folder=$base/$ship

tell() { printf '\n%s %s\n' "$ship" "$*"; }

# Whoever is at work in a folder holds it; what nobody holds was left by a connection that was lost.
# shellcheck disable=SC2174 # /opt itself is for all.
mkdir -p -m 0700 "$base"
umask 077
exec 8<"$base"
flock 8
for left in "$base"/*/; do
  [ ! -d "$left" ] || flock -n "$left" rm -rf "$left" || true
done
mkdir "$folder"
exec 9<"$folder"
flock -s 9
exec 8<&-

# Nothing of it is unpacked, let alone run, before it is known to be what was sent.
unpack() {
  cat >"$folder/bundle.tgz" || return 1
  if ! echo "$1  $folder/bundle.tgz" | sha256sum --status --check; then
    tell damaged
    return 1
  fi
  mkdir "$folder/bundle"
  tar -xzp --no-same-owner -f "$folder/bundle.tgz" -C "$folder/bundle" || return 1
  tell copied
}
if [ -n "$2" ] && ! unpack "$2"; then
  rm -rf "$folder"
  exit 1
fi

# Not below this connection: what has begun goes on to its end without it, and nobody's output is a pipe that may break.
printf '%s' "$3" >"$folder/plan"
printf '%s' "$4" >"$folder/run"
: >"$folder/log"
systemd-run --quiet --collect --wait --unit="$ship" --description="app: $ship" /bin/sh "$folder/run" "$ship" </dev/null &
unit=$!
tail -s 0.1 -n +1 -f --pid="$unit" "$folder/log"
wait "$unit"
rm -rf "$folder"
