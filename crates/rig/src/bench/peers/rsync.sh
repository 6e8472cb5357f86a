#!/bin/sh
# What many do instead: $1 is the new version's folder, $2 its name.
set -eu
cd /srv/old-way 2>/dev/null || { mkdir -p /srv/old-way/releases; cd /srv/old-way; }
rsync -a --delete "$1/" "releases/$2/"
ln -sfn "releases/$2" current
systemctl restart old-way.service
