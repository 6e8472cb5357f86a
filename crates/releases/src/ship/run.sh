#!/bin/sh
# In a unit of its own: does what is planned, line by line, as CodeDeploy's agent runs hooks. $1 names the ship.
set -eu
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ship=$1
folder=/opt/app-ship/$ship
exec 9<"$folder"
flock -s 9
exec >>"$folder/log" 2>&1
cd /
umask 022

tell() { printf '\n%s %s\n' "$ship" "$*"; }

code=0
while [ "$code" = 0 ] && read -r name limit command; do
  tell "begin $name"
  began=$(date +%s%3N)
  # Its words apart. At the limit its group gets SIGTERM, and SIGKILL 5 s later.
  # shellcheck disable=SC2086
  env -i PATH="$PATH" LIFECYCLE_EVENT="$name" DEPLOYMENT_ID="$ship" \
    APPLICATION_NAME=app DEPLOYMENT_GROUP_NAME=ship DEPLOYMENT_GROUP_ID=ship \
    timeout -k 5 "$limit" $command </dev/null 9<&- || code=$?
  tell "end $name $code $(($(date +%s%3N) - began)) $limit"
done <"$folder/plan"
rm -rf "$folder/bundle" "$folder/bundle.tgz"
tell "exit $code"
