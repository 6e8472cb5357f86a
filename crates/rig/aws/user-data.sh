#!/bin/sh
# What a host of Amazon Linux 2023 needs before its first deployment: room in the kernel's queue, open files, CodeDeploy's
# agent. The user, the units and the socket come with the first bundle, and from nowhere else.
# cloud-init runs it once, as root; /var/log/cloud-init-output.log has what it said. A second run changes nothing. With
# arguments it takes only those steps: `user-data.sh queue files settings`.
set -eu
umask 022

main() {
  [ $# -gt 0 ] || set -- queue files settings agent
  for step; do "$step"; done
}

# app.socket asks for a queue of 4096 clients, and the kernel cuts it to this when the first bundle makes the socket.
queue() {
  put /etc/sysctl.d/app.conf 'net.core.somaxconn=4096'
  sysctl -q -p /etc/sysctl.d/app.conf
}

# The release's unit asks for 65536 open files. systemd gives what the kernel allows, and says nothing where that is less.
files() {
  if [ "$(sysctl -n fs.nr_open)" -lt 65536 ]; then
    put /etc/sysctl.d/app-files.conf 'fs.nr_open=65536'
    sysctl -q -p /etc/sysctl.d/app-files.conf
  fi
}

# As the agent's package has it, but for IMDSv1, which these hosts do not answer. Five archives are enough: the releases that a
# host goes back to are in /opt/app.
settings() {
  put /etc/codedeploy-agent/conf/codedeployagent.yml "---
:log_aws_wire: false
:log_dir: '/var/log/aws/codedeploy-agent/'
:pid_dir: '/opt/codedeploy-agent/state/.pid/'
:program_name: codedeploy-agent
:root_dir: '/opt/codedeploy-agent/deployment-root'
:verbose: false
:wait_between_runs: 1
:proxy_uri:
:max_revisions: 5
:disable_imds_v1: true"
}

# The settings are there before the agent starts, and again in case that its package brought its own.
agent() {
  rpm -q --quiet codedeploy-agent || install_agent
  before=$changes
  settings
  systemctl enable --quiet --now codedeploy-agent
  [ "$changes" = "$before" ] || systemctl restart codedeploy-agent
}

# `latest` is agent 1.8, whose source the stand-in of our tests is held against; `latestv2` would be its rewrite. Amazon
# publishes no signature of the installer, nor of the package that it fetches: what vouches for both is TLS, to Amazon's own
# bucket of this region.
install_agent() {
  dnf -q -y install ruby
  region=$(metadata placement/region)
  domain=$(metadata services/domain)
  folder=$(mktemp -d)
  curl -fsS --retry 5 --proto =https -o "$folder/install" "https://aws-codedeploy-$region.s3.$region.$domain/latest/install"
  AWS_REGION=$region AWS_DOMAIN=$domain ruby "$folder/install" auto
  rm -r "$folder"
}

# IMDSv2: each question needs a token.
metadata() {
  token=$(curl -fsS --retry 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
  curl -fsS --retry 5 -H "X-aws-ec2-metadata-token: $token" "http://169.254.169.254/latest/meta-data/$1"
}

# put FILE TEXT: the file has this text and one line feed, at once or not at all; one that has it already is left alone.
put() {
  if [ "$(cat "$1" 2>/dev/null)" != "$2" ]; then
    mkdir -p "${1%/*}"
    printf '%s\n' "$2" >"$1.new"
    mv "$1.new" "$1"
    changes=$((changes + 1))
  fi
}

changes=0
main "$@"
