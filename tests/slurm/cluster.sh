#!/usr/bin/env bash
# A private, throw-away Slurm cluster on the loopback interface of one machine.
#
#   cluster.sh up     DIR [options]         start (or find running); prints export lines
#   cluster.sh status DIR                   exit 0 = all nodes usable, 1 = partly, 3 = down
#   cluster.sh down   DIR [--purge]         stop everything, by process id
#   cluster.sh crash  DIR NODE [--notify]   SIGKILL one node: its slurmd, its steps, its jobs;
#                                           --notify tells slurmctld at once
#   cluster.sh heal   DIR NODE              start that node's slurmd again
#   cluster.sh env    DIR                   print the export lines again
#   cluster.sh check                        are the needed programs here?
#
# Typical:  eval "$(tests/slurm/cluster.sh up /tmp/slurm)"; sbatch ...; tests/slurm/cluster.sh down /tmp/slurm --purge
#
# Touches nothing outside DIR, except a short folder /tmp/slc.XXXXXX (named in DIR/run) when DIR is too long for the
# names of unix sockets. Installs nothing. Works as root (the usual CI container) and as an ordinary user (who can then
# only run their own jobs). Needs Linux, bash 4, coreutils, awk and flock (util-linux). Written for Slurm 22.05.
#
# Options of up:
#   --nodes N          virtual nodes n1..nN                           (3)
#   --cpus C           CPUs each node pretends to have                (4)
#   --mem MB           memory each node pretends to have          (64000)
#   --gpus SPEC        per node, ';' between nodes, ',' inside, or none
#                      (geforce_rtx_3090:2;rtx_a4000:1,geforce_rtx_2080_ti:1;)
#   --kill-wait S      SIGTERM to SIGKILL                             (5)
#   --grace S          preemption grace of partition "main"          (10)
#   --requeue-wait S   requeued jobs wait this long, at least 5       (5)
#   --array-max N      MaxArraySize                                (1001)
#   --extra FILE       lines appended to slurm.conf
set -u
umask 022

PACKAGES="munge slurm-wlm-basic-plugins slurmctld slurmd slurm-client"
PROG=${0##*/}
say()  { printf '%s: %s\n' "$PROG" "$*" >&2; }
die()  { say "$*"; exit 2; }
usage() { sed -n '2,/^set -u/p' "$0" | sed -e '/^set -u/d' -e 's/^# \{0,1\}//'; }

find_tools() {
    PATH=$PATH:/usr/sbin:/usr/local/sbin:/sbin
    local t missing=()
    for t in munged munge slurmctld slurmd sbatch squeue scontrol scancel sinfo flock awk; do
        command -v "$t" >/dev/null 2>&1 || missing+=("$t")
    done
    if ((${#missing[@]})); then
        say "missing: ${missing[*]}"
        say "Debian/Ubuntu: apt-get install -y --no-install-recommends $PACKAGES"
        return 1
    fi
}

# A process is ours when its environment carries SLC_DIR=<this DIR> (daemons
# inherit it) - pid files alone could be stale.  slurmstepd overwrites its own
# environment, so steps are found by their socket under RUN/spool, and jobs by
# their environment or by being descended from a step.
env_has() { grep -qzxF -- "$2" "/proc/$1/environ" 2>/dev/null; }   # pid NAME=VALUE
alive() { # pidfile -> prints pid when that process is ours and running
    local p; p=$(cat "$1" 2>/dev/null) || return 1
    [[ $p =~ ^[0-9]+$ ]] && [ -d "/proc/$p" ] && env_has "$p" "SLC_DIR=$DIR" && echo "$p"
}
with_env() { grep -lzxF -- "$1" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3; }
ancestors() { # ourselves and our parents: never to be killed
    local p=$$
    while [ "${p:-0}" -gt 1 ]; do echo "$p"; p=$(awk '/^PPid:/{print $2}' "/proc/$p/status" 2>/dev/null); done
}
tree() { # the pids on stdin and all their descendants
    local roots; roots=$(tr '\n' ' ')
    cat /proc/[0-9]*/status 2>/dev/null | awk -v roots="$roots" '
        /^Pid:/{pid=$2} /^PPid:/{kids[$2]=kids[$2] " " pid}
        END{n=split(roots,q," "); for(i=1;i<=n;i++){if(q[i] in seen)continue; seen[q[i]]; print q[i]
            m=split(kids[q[i]],k," "); for(j=1;j<=m;j++)q[++n]=k[j]}}'
}
step_pids() { # slurmstepd processes; $1 = node or empty
    local sock p
    sock=$(awk -v d="$RUN/spool/${1:+$1/}" 'index($NF,d)==1{printf "socket:[%s]\n",$7}' /proc/net/unix)
    [ -n "$sock" ] || return 0
    for p in $(grep -lx slurmstepd /proc/[0-9]*/comm 2>/dev/null | cut -d/ -f3); do
        readlink "/proc/$p"/fd/* 2>/dev/null | grep -qxF -f <(echo "$sock") && echo "$p"
    done
}
job_pids() { # processes that belong to jobs of this cluster; $1 = node or empty
    local p
    { for p in $(with_env "SLURM_CONF=$RUN/slurm.conf"); do
          grep -qz '^SLURM_JOB_ID=' "/proc/$p/environ" 2>/dev/null || continue
          [ -z "${1:-}" ] || env_has "$p" "SLURMD_NODENAME=$1" || continue
          echo "$p"
      done; step_pids "${1:-}"; } | tree | sort -u | grep -vxF -f <(ancestors)
}
gone() { # wait up to $1 tenths of a second for the pids to vanish
    local n=$1 p left; shift
    while ((n-- > 0)); do
        left=; for p in "$@"; do
            [ -d "/proc/$p" ] && ! grep -q '^State:.*Z' "/proc/$p/status" 2>/dev/null && left=1
        done
        [ -z "$left" ] && return 0; sleep 0.1
    done; return 1
}
stop_pids() { # TERM, then KILL
    (($#)) || return 0
    kill -TERM "$@" 2>/dev/null; gone 50 "$@" && return 0
    kill -KILL "$@" 2>/dev/null; gone 20 "$@"
}

used_ports() { # listening or bound TCP ports, decimal
    awk 'FNR>1{n=split($2,a,":"); print a[n]}' /proc/net/tcp /proc/net/tcp6 2>/dev/null |
        sort -u | while read -r h; do echo $((16#$h)); done
}
pick_ports() { # $1 consecutive free ports below the ephemeral range
    local need=$1 used base i ok try
    used=" $(used_ports | tr '\n' ' ') "
    for try in {1..200}; do
        base=$((20000 + (RANDOM * 32768 + RANDOM) % 10000)); ok=1
        for ((i = 0; i < need; i++)); do [[ $used == *" $((base + i)) "* ]] && { ok=; break; }; done
        [ -n "$ok" ] && { echo "$base"; return 0; }
    done
    return 1
}

set_dir() {
    [ -n "${1:-}" ] || die "DIR is missing ($PROG --help)"
    DIR=$(realpath -m -- "$1")
    [[ $DIR =~ ^[A-Za-z0-9._/+-]+$ ]] || die "slurm.conf cannot hold this path (spaces?): $DIR"
    case $DIR in /|/etc|/usr|/var|/home|/root|/tmp) die "give a directory of its own, not $DIR";; esac
    RUN=
    [ -f "$DIR/run" ] && RUN=$(cat "$DIR/run")
}
make_dir() {
    mkdir -p "$DIR" || die "cannot make $DIR"
    if [ -z "$RUN" ] || [ ! -d "$RUN" ]; then
        # longest socket: RUN/spool/<node>/<node>_<jobid>.<step>  (limit 107)
        if ((${#DIR} > 50)); then RUN=$(mktemp -d /tmp/slc.XXXXXX) || die mktemp; chmod 755 "$RUN"; else RUN=$DIR; fi
        echo "$RUN" >"$DIR/run"
    fi
    mkdir -p "$RUN"/{state,spool,log,dev,scratch} "$DIR"
    mkdir -p -m 700 "$RUN/munge"; mkdir -p -m 755 "$RUN/msock"
    chmod 1777 "$RUN/scratch" 2>/dev/null
    [ -s "$RUN/munge/key" ] || { (umask 077; head -c 256 /dev/urandom >"$RUN/munge/key"); }
}

write_conf() { # $1 = first port
    local base=$1 me host i n gpus spec item type count first fake list g r
    me=$(id -un); host=$(uname -n); host=${host%%.*}
    # Slurm binds its sockets to the address of this machine's own name when told
    # not to bind to every address.  Only where that name means loopback (most
    # VMs; not docker, not most cloud runners) can the ports be kept on it.
    local comm=; case $(timeout 3 getent ahostsv4 "$host" 2>/dev/null | awk 'NR==1{print $1}') in
        127.*) comm=NoCtldInAddrAny,NoInAddrAny;;
        *) say "note: '$host' is not 127.x, so Slurm's ports listen on every address of this machine (munge still" \
               "refuses strangers); '127.0.0.1 $host' first in /etc/hosts would keep them on loopback";;
    esac
    cat >"$RUN/slurm.conf" <<EOF
# written by $PROG; private to $DIR
ClusterName=streamsal
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$base
SlurmUser=$me
SlurmdUser=$me
AuthType=auth/munge
AuthInfo=socket=$RUN/msock/s,cred_expire=$REQUEUE
CredType=cred/munge
${comm:+CommunicationParameters=$comm}
StateSaveLocation=$RUN/state
SlurmdSpoolDir=$RUN/spool/%n
SlurmctldPidFile=$RUN/slurmctld.pid
SlurmdPidFile=$RUN/slurmd.%n.pid
SlurmctldLogFile=$RUN/log/slurmctld.log
SlurmdLogFile=$RUN/log/slurmd.%n.log
SlurmctldDebug=info
SlurmdDebug=info
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
JobCompType=jobcomp/filetxt
JobCompLoc=$RUN/log/jobcomp.txt
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,bf_min_age_reserve=0
ReturnToService=2
SlurmctldTimeout=10
SlurmdTimeout=10
InactiveLimit=0
KillWait=$KILLWAIT
UnkillableStepTimeout=30
MinJobAge=86400
MaxArraySize=$ARRAYMAX
MaxJobCount=20000
JobRequeue=1
MailProg=/bin/true
TaskProlog=$RUN/task_prolog.sh
DefMemPerCPU=200
EOF
    [ "$me" = root ] && echo "Epilog=$RUN/epilog.sh" >>"$RUN/slurm.conf"
    gpus=; : >"$RUN/gres.conf"
    if [ "$GPUS" != none ]; then
        gpus=$GPUS; echo AutoDetect=off >>"$RUN/gres.conf"; echo GresTypes=gpu >>"$RUN/slurm.conf"
    fi
    for ((i = 1; i <= NODES; i++)); do
        n=n$i; g=; first=0
        spec=$(cut -d';' -f"$i" <<<"$gpus;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;")
        IFS=, read -ra list <<<"$spec"
        for item in "${list[@]:-}"; do
            [ -n "$item" ] || continue
            type=${item%%:*}; count=${item##*:}
            [[ $count =~ ^[0-9]+$ ]] || die "bad GPU spec '$item' (type:count)"
            # slurmd drops a gpu line without File=; every File must be a
            # character device with a name of its own: links to /dev/null serve.
            for ((fake = first; fake < first + count; fake++)); do ln -sfn /dev/null "$RUN/dev/$n-gpu$fake"; done
            r=$first-$((first + count - 1)); ((count == 1)) && r=$first
            echo "NodeName=$n Name=gpu Type=$type File=$RUN/dev/$n-gpu[$r]" >>"$RUN/gres.conf"
            g+=${g:+,}gpu:$type:$count; first=$((first + count))
        done
        mkdir -p "$RUN/spool/$n"
        echo "NodeName=$n NodeHostname=$host NodeAddr=127.0.0.1 Port=$((base + i)) CPUs=$CPUS RealMemory=$MEM" \
             "State=UNKNOWN${g:+ Gres=$g}" >>"$RUN/slurm.conf"
    done
    cat >>"$RUN/slurm.conf" <<EOF
PartitionName=main Nodes=ALL Default=YES DefaultTime=60 PriorityTier=1 PreemptMode=REQUEUE GraceTime=$GRACE
PartitionName=urgent Nodes=ALL Default=NO DefaultTime=60 PriorityTier=10 PreemptMode=OFF
EOF
    [ -n "$EXTRA" ] && cat -- "$EXTRA" >>"$RUN/slurm.conf"
    # Slurm >= 23.11 wants to be told when there is no cgroup to use
    local v; v=$(slurmctld -V | awk '{print $2}')
    if awk -v v="$v" 'BEGIN{split(v,a,"."); exit !(a[1]+0>23 || (a[1]+0==23 && a[2]+0>=11))}'; then
        echo "CgroupPlugin=disabled" >"$RUN/cgroup.conf"
    fi
    # a node-local scratch folder per job, gone when the job is (as many sites do)
    cat >"$RUN/task_prolog.sh" <<EOF
#!/bin/sh
d=$RUN/scratch/\$SLURMD_NODENAME/\$SLURM_JOB_ID
mkdir -p "\$d" && echo "export TMPDIR=\$d"
EOF
    cat >"$RUN/epilog.sh" <<EOF
#!/bin/sh
[ -n "\$SLURM_JOB_ID" ] && rm -rf "$RUN/scratch/\$SLURMD_NODENAME/\$SLURM_JOB_ID"
exit 0
EOF
    chmod 755 "$RUN/task_prolog.sh" "$RUN/epilog.sh"
}

# Daemons keep their inherited descriptors; close all but 0-2 so that a caller
# who reads our stdout through a pipe sees its end, and detach 0-2.
daemon() { # NAME=VALUE... -- command
    ( local e=(); while [ "$1" != -- ]; do e+=("$1"); shift; done; shift
      local fd; for fd in /proc/self/fd/*; do fd=${fd##*/}; ((fd > 2)) && eval "exec $fd>&-" 2>/dev/null; done
      cd / && exec env -u SLURM_CONF -u SLURM_JOB_ID -u SLURM_JOBID "SLC_DIR=$DIR" "SLURM_CONF=$RUN/slurm.conf" \
          "${e[@]}" "$@" </dev/null >>"$RUN/log/start.log" 2>&1 )
}
munge_works() { munge -n -S "$RUN/msock/s" >/dev/null 2>&1; }
start_munge() {
    if alive "$RUN/msock/pid" >/dev/null && munge_works; then return 0; fi
    rm -f "$RUN/msock/s" "$RUN/msock/s.lock" "$RUN/msock/pid"
    daemon -- munged --force --key-file="$RUN/munge/key" --socket="$RUN/msock/s" --pid-file="$RUN/msock/pid" \
        --log-file="$RUN/munge/log" --seed-file="$RUN/munge/seed" --num-threads=4
    local i; for i in {1..50}; do munge_works && return 0; sleep 0.1; done
    say "munged did not start:"; tail -n 5 "$RUN/munge/log" "$RUN/log/start.log" >&2; return 1
}
ctld_up() { SLURM_CONF=$RUN/slurm.conf timeout 5 scontrol ping 2>/dev/null | grep -q 'is UP'; }
start_ctld() {
    if alive "$RUN/slurmctld.pid" >/dev/null && ctld_up; then return 0; fi
    rm -f "$RUN/slurmctld.pid"
    daemon -- slurmctld -f "$RUN/slurm.conf"
    local i t=$((SECONDS + 25)); for i in {1..60}; do
        ((SECONDS > t)) && break
        alive "$RUN/slurmctld.pid" >/dev/null && ctld_up && return 0
        grep -q -i -E 'fatal|Address already in use' <(tail -n 5 "$RUN/log/slurmctld.log" 2>/dev/null) &&
            ! alive "$RUN/slurmctld.pid" >/dev/null && ((i > 10)) && break
        sleep 0.1
    done
    say "slurmctld did not start:"; tail -n 5 "$RUN/log/slurmctld.log" "$RUN/log/start.log" >&2; return 1
}
start_node() {
    alive "$RUN/slurmd.$1.pid" >/dev/null && return 0
    rm -f "$RUN/slurmd.$1.pid"
    daemon "SLC_NODE=$1" -- slurmd -f "$RUN/slurm.conf" -N "$1"
    local i; for i in {1..50}; do alive "$RUN/slurmd.$1.pid" >/dev/null && return 0; sleep 0.1; done
    say "slurmd of $1 did not start:"; tail -n 5 "$RUN/log/slurmd.$1.log" "$RUN/log/start.log" >&2; return 1
}
nodes_conf() { awk -F'[= ]' '/^NodeName=/{print $2}' "$RUN/slurm.conf" 2>/dev/null; }
usable() { SLURM_CONF=$RUN/slurm.conf timeout 5 sinfo -h -N -p main -o '%N %T' 2>/dev/null |
           awk '$2 ~ /^(idle|mixed|allocated|completing)$/' | wc -l; }
resume_node() { SLURM_CONF=$RUN/slurm.conf scontrol update nodename="$1" state=resume >/dev/null 2>&1; }
env_lines() { printf 'export SLURM_CONF=%s\n' "$RUN/slurm.conf"; }

up() {
    set_dir "${1:-}"; shift
    NODES=3 CPUS=4 MEM=64000 KILLWAIT=5 GRACE=10 REQUEUE=5 ARRAYMAX=1001 EXTRA=
    GPUS='geforce_rtx_3090:2;rtx_a4000:1,geforce_rtx_2080_ti:1;'
    while (($#)); do
        case $1 in
            --nodes) NODES=$2;; --cpus) CPUS=$2;; --mem) MEM=$2;; --gpus) GPUS=$2;; --kill-wait) KILLWAIT=$2;;
            --grace) GRACE=$2;; --requeue-wait) REQUEUE=$2;; --array-max) ARRAYMAX=$2;; --extra) EXTRA=$2;;
            *) die "unknown option $1";;
        esac; shift 2 || die "an option lacks its value"
    done
    local v; for v in NODES CPUS MEM KILLWAIT GRACE REQUEUE ARRAYMAX; do
        [[ ${!v} =~ ^[0-9]+$ ]] || die "$v must be a number"
    done
    ((NODES >= 1 && NODES <= 32)) || die "1 to 32 nodes"
    ((REQUEUE >= 5)) || die "slurm takes no requeue wait (cred_expire) under 5 s"
    [ -z "$EXTRA" ] || EXTRA=$(realpath -e -- "$EXTRA") || die "no file $EXTRA"
    find_tools || exit 4
    [ -d /proc/self ] || die "needs /proc"
    mkdir -p "$DIR" && exec 9>"$DIR/.lock" && flock -w 120 9 || die "another $PROG holds $DIR"
    [ -f "$DIR/run" ] && RUN=$(cat "$DIR/run")
    make_dir
    local n try base ok
    for try in 1 2 3; do
        # a conf whose controller still runs is kept, so that up is idempotent
        if ! { [ -f "$RUN/slurm.conf" ] && alive "$RUN/slurmctld.pid" >/dev/null; }; then
            stop_all                                  # left-overs of a cluster that lost its controller
            base=$(pick_ports $((NODES + 1))) || die "no free ports"
            rm -rf "${RUN:?}"/state "$RUN/spool"; mkdir -p "$RUN/state" "$RUN/spool"
            write_conf "$base"
        fi
        ok=1; start_munge || exit 1
        if start_ctld; then
            for n in $(nodes_conf); do start_node "$n" || ok=; done
            [ -n "$ok" ] && break
        fi
        say "attempt $try failed, trying other ports"
        stop_all
    done
    [ -n "$ok" ] || exit 1
    local want i t=$((SECONDS + 40)); want=$(nodes_conf | wc -l)
    for i in {1..200}; do
        ((SECONDS > t)) && break
        [ "$(usable)" -ge "$want" ] && break
        ((i % 20)) || for n in $(nodes_conf); do resume_node "$n"; done
        sleep 0.1
    done
    if [ "$(usable)" -lt "$want" ]; then
        say "not every node came up (does '$(uname -n)' resolve? a name server that does not answer also looks so):"
        SLURM_CONF=$RUN/slurm.conf timeout 20 sinfo -R -N >&2; tail -n 3 "$RUN"/log/slurmctld.log >&2; exit 1
    fi
    say "$(slurmctld -V): $want node(s) up under $DIR"
    env_lines
}

stop_all() {
    local p=() x
    for x in "$RUN"/slurmd.*.pid; do x=$(alive "$x") && p+=("$x"); done
    stop_pids ${p[@]+"${p[@]}"}
    mapfile -t p < <(job_pids); stop_pids ${p[@]+"${p[@]}"}
    x=$(alive "$RUN/slurmctld.pid") && stop_pids "$x"
    x=$(alive "$RUN/msock/pid") && stop_pids "$x"
    mapfile -t p < <(with_env "SLC_DIR=$DIR" | grep -vxF -f <(ancestors)); stop_pids ${p[@]+"${p[@]}"}   # slurmscriptd
    rm -f "$RUN"/slurmd.*.pid "$RUN/slurmctld.pid" "$RUN"/msock/{s,s.lock,pid}
}
down() {
    set_dir "${1:-}"
    [ -n "$RUN" ] || { say "nothing under $DIR"; exit 0; }
    find_tools || exit 4
    exec 9>"$DIR/.lock"; flock -w 120 9 || die "another $PROG holds $DIR"
    if ctld_up; then
        export SLURM_CONF=$RUN/slurm.conf
        local j; mapfile -t j < <(squeue -h -o %A 2>/dev/null | sort -u)
        if ((${#j[@]})); then
            scancel "${j[@]}" 2>/dev/null
            local i; for i in {1..30}; do [ -z "$(squeue -h -t R,CG,S 2>/dev/null)" ] && break; sleep 0.1; done
        fi
    fi
    stop_all
    say "stopped"
    if [ "${2:-}" = --purge ]; then
        [ "$RUN" != "$DIR" ] && rm -rf "$RUN"
        rm -rf "$DIR"/{state,spool,log,dev,scratch,munge,msock,run,.lock}
        rm -f "$DIR"/{slurm,gres,cgroup}.conf "$DIR"/{task_prolog,epilog}.sh
        rmdir "$DIR" 2>/dev/null; true
    fi
}
status() {
    set_dir "${1:-}"
    [ -n "$RUN" ] && [ -f "$RUN/slurm.conf" ] || { echo "down: nothing under $DIR"; exit 3; }
    find_tools || exit 4
    local n p bad=
    p=$(alive "$RUN/msock/pid") && echo "munged      pid $p" || { echo "munged      down"; bad=1; }
    p=$(alive "$RUN/slurmctld.pid") && echo "slurmctld   pid $p" || { echo "slurmctld   down"; bad=3; }
    for n in $(nodes_conf); do
        p=$(alive "$RUN/slurmd.$n.pid") && echo "slurmd $n   pid $p" || { echo "slurmd $n   down"; bad=${bad:-1}; }
    done
    [ "${bad:-0}" = 3 ] && exit 3
    export SLURM_CONF=$RUN/slurm.conf
    sinfo -N -p main -o '%8N %12T %6c %8m %G'; squeue -r
    [ "$(usable)" -ge "$(nodes_conf | wc -l)" ] || bad=1
    env_lines; exit "${bad:-0}"
}
crash() {
    set_dir "${1:-}"; [ -n "$RUN" ] || die "not up"; local n=${2:-} p
    nodes_conf | grep -qxF -- "$n" || die "no node '$n'"
    # as in a power cut nobody may report anything: slurmd and the steps die before the jobs
    mapfile -t p < <(with_env "SLC_NODE=$n" | while read -r x; do env_has "$x" "SLC_DIR=$DIR" && echo "$x"; done
                     step_pids "$n"; job_pids "$n")
    ((${#p[@]})) && kill -KILL "${p[@]}" 2>/dev/null
    rm -f "$RUN/slurmd.$n.pid"
    if [ "${3:-}" = --notify ]; then
        SLURM_CONF=$RUN/slurm.conf scontrol update nodename="$n" state=down reason=crash
        say "$n crashed and set down: its jobs are requeued (or NODE_FAIL) now"
    else
        say "$n crashed; slurmctld notices in about half a minute (SlurmdTimeout 10 s)"
    fi
}
heal() {
    set_dir "${1:-}"; [ -n "$RUN" ] || die "not up"; find_tools || exit 4
    nodes_conf | grep -qxF -- "${2:-}" || die "no node '${2:-}'"
    alive "$RUN/slurmd.$2.pid" >/dev/null || rm -rf "${RUN:?}/spool/$2"/*  # left-overs make relaunches fail
    start_node "$2" || exit 1
    local i t=$((SECONDS + 20)); for i in {1..50}; do
        ((SECONDS > t)) && break
        SLURM_CONF=$RUN/slurm.conf timeout 5 sinfo -h -N -p main -n "$2" -o %T |
            grep -qE '^(idle|mixed|allocated)$' && return 0
        resume_node "$2"; sleep 0.2
    done; say "$2 runs but is not idle"; return 1
}

case ${1:-} in
    up|down|status|crash|heal) verb=$1; shift; "$verb" "$@";;
    env) set_dir "${2:-}"; [ -n "$RUN" ] || die "not up"; env_lines;;
    check) find_tools && say "all programs found: $(slurmctld -V), $(munged --version)";;
    -h|--help|help) usage;;
    *) usage >&2; exit 2;;
esac
