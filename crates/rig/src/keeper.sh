# Keeps one host: $1 is its name, $2 the folder of the system that it sees, standard input the life line. When it ends, for whatever reason, everything ends:
# the processes with their pid namespace, the mounts with their mount namespace, and last the control groups.
set -eu
name=$1
groups=
for hierarchy in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup/memory /sys/fs/cgroup; do
  [ -e "$hierarchy/cgroup.procs" ] || continue
  mkdir "$hierarchy/$name"
  echo $$ >"$hierarchy/$name/cgroup.procs"
  groups="$groups $hierarchy"
done

unshare --mount --propagation private --pid --fork --kill-child --mount-proc -- sh -eu -c '
  mkdir -p /run/systemd/nspawn
  mount -t tmpfs tmpfs /run/systemd/nspawn
  cd /run/systemd/nspawn
  mkdir upper work root
  mount -t overlay overlay -o lowerdir=$2,upperdir=upper,workdir=work root
  # A machine lends its system, not its state: nothing that it enabled, no product, no logs.
  cd root
  tr -d - </proc/sys/kernel/random/uuid >etc/machine-id
  echo "$1" >etc/hostname
  rm -rf etc/systemd/system/*.wants etc/systemd/system/*.requires etc/systemd/system/app* \
    opt/app opt/codedeploy-agent etc/app var/lib/app usr/local/bin/releasectl var/log/journal
  mkdir -p var/log/journal
  ln -sf /lib/systemd/system/multi-user.target etc/systemd/system/default.target
  for unit in getty.target console-getty.service systemd-udevd.service systemd-udevd-kernel.socket \
    systemd-udevd-control.socket systemd-udev-trigger.service; do
    ln -sf /dev/null etc/systemd/system/$unit
  done
  cd ..
  while :; do
    code=0
    systemd-nspawn --quiet -D root -M "$1" --register=no --keep-unit --private-network --boot </dev/null >console 2>&1 ||
      code=$?
    echo "ended $code"
  done &
  cat >/dev/null
' sh "$name" "$2" || true

for hierarchy in $groups; do
  echo $$ >"$hierarchy/cgroup.procs"
  find "$hierarchy/$name" -depth -type d -exec rmdir {} \;
done
