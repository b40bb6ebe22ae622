#!/bin/bash
# A real Slurm of one node, this machine, to try scripts/sweep.sbatch on: Debian or Ubuntu, as root,
# no systemd needed.
#   scripts/slurm-localhost.sh        install what is missing, start what is not running
#   scripts/slurm-localhost.sh stop   stop all of it
set -euo pipefail

state=/var/lib/slurm-localhost
conf=/etc/slurm/slurm.conf
mark="# written by slurm-localhost.sh"
host=$(hostname -s)

running() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }  # by its pid file

die() { echo "slurm-localhost.sh: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "run it as root"
if [ -e $conf ] && ! grep -q "^$mark" $conf; then
    die "$conf is not of this script: this machine has a Slurm already"
fi

if [ "${1:-}" = stop ]; then
    for pid in $state/slurmd.pid $state/slurmctld.pid /run/munge/munged.pid; do
        if running $pid; then kill "$(cat $pid)"; fi
    done
    exit
fi
[ $# = 0 ] || die "unknown argument $1; known: stop"

if [ "$(command -v slurmctld slurmd munged srun | wc -l)" -lt 4 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends slurm-wlm munge
fi

mkdir -p $state/ctld $state/slurmd
cat > $conf <<END
$mark
ClusterName=localhost
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.log
StateSaveLocation=$state/ctld
SlurmdSpoolDir=$state/slurmd
# a requeued job waits this many seconds; two minutes by default
AuthInfo=cred_expire=10
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc)
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=20
# its jobs preempt those of main
PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=2 PreemptMode=OFF
END

if ! running /run/munge/munged.pid; then
    install -d -o munge -g munge -m 755 /run/munge
    install -d -o munge -g munge -m 700 /etc/munge /var/lib/munge /var/log/munge
    [ -s /etc/munge/munge.key ] || runuser -u munge -- mungekey --create
    runuser -u munge -- munged
fi
running $state/slurmctld.pid || slurmctld
running $state/slurmd.pid || slurmd
scontrol reconfigure 2>/dev/null || true

for _ in $(seq 30); do
    if sinfo --noheader --format %t 2>/dev/null | grep -qxE 'idle|mix|alloc|comp'; then
        sinfo
        exit
    fi
    sleep 1
done
die "the node does not come up; see $state/slurmctld.log and $state/slurmd.log"
