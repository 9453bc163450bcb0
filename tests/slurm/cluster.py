"""A real SLURM cluster on this machine: slurmctld, and two nodes with a GPU each.

Several `slurmd` run on one host without systemd and cgroups; the GPUs are null devices.
What SLURM does with jobs (queueing, limits, node failures, what it sets in a job's
environment) is real. Memory limits are not enforced. To try things out, as root:

    python tests/slurm/cluster.py /tmp/casesim-slurm
"""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO

NODES = ("node1", "node2")
CPUS = 8
MEMORY_MB = 40000
PORT = 26817
LOCK = Path("/tmp/casesim-slurm.lock")
# Snakemake's job steps strip SLURM_CONF, so that only the default place reaches them.
ETC = Path("/etc/slurm")
CONFIG_FILES = ("slurm.conf", "gres.conf")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol")

CONFIGURATION = """\
ClusterName=casesim
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/munge.socket
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort={port}
SlurmctldPidFile={folder}/run/slurmctld.daemon.pid
SlurmdPidFile={folder}/run/slurmd-%n.daemon.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
# The end of a step ends what it has started, as cgroups do on a real cluster.
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
# The nodes pretend to have more cores than this machine.
SlurmdParameters=config_overrides
ReturnToService=2
# A node that is gone is found out in half a minute, and may come back.
SlurmdTimeout=10
SlurmctldTimeout=10
InactiveLimit=0
KillWait=5
UnkillableStepTimeout=30
CompleteWait=0
# squeue must remember jobs that have ended: there is no accounting.
MinJobAge=3600
# Refuse what can never run, instead of leaving it in the queue.
EnforcePartLimits=ALL
JobRequeue=1
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=5,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
PriorityType=priority/basic
GresTypes=gpu
AccountingStorageType=accounting_storage/none
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=1-0 DefaultTime=60 DefMemPerCPU=256
"""


def why_not() -> str:
    """Why no cluster can be started here; empty when it can."""
    missing = [name for name in PROGRAMS if program(name) is None]
    if missing:
        return (
            f"SLURM is not installed ({', '.join(missing)} missing); on Debian: "
            "apt-get install slurmctld slurmd slurm-client munge"
        )
    if os.geteuid() != 0:
        return "the test cluster's daemons need root"
    foreign = [
        name
        for name in CONFIG_FILES
        if os.path.lexists(ETC / name) and not (ETC / name).is_symlink()
    ]
    return f"{ETC / foreign[0]} belongs to a SLURM of this host" if foreign else ""


def program(name: str) -> str | None:
    """A daemon's or a command's path; daemons are often not in a user's PATH."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def run(*command: str, seconds: float = 30) -> str:
    """Output of a SLURM command; raises `CalledProcessError` when it fails."""
    path = program(command[0])
    assert path is not None
    return subprocess.run(
        [path, *command[1:]],
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=seconds,
    ).stdout


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll until the condition holds, or raise `TimeoutError`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.1)


@dataclass(frozen=True)
class Job:
    """One job as slurmctld knows it, ended or not; times in epoch seconds.

    `task` is the plugin's name of a rule and its wildcards, or of a group.
    """

    id: int
    state: str
    task: str
    node: str
    start: float
    end: float
    minutes: int
    memory_mb: int
    cpus: int
    gpus: int

    @property
    def living(self) -> bool:
        return self.state in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING")


@dataclass
class Cluster:
    """The daemons, and where their files are."""

    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _lock: IO[str] | None = None

    def start(self) -> None:
        """Start everything, and wait for idle nodes."""
        for name in ("run", "log", "etc", "state", "dev", "munge"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "munge").chmod(0o700)
        # One cluster on a host at a time: the place of its configuration is fixed.
        self._lock = LOCK.open("a+")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._end_left_over()
        self._configure()
        self._start_munge()
        self.start_controller(fresh=True)
        for node in NODES:
            self.start_node(node)
        self.wait_for_nodes()

    def stop(self) -> None:
        """Cancel all jobs and end the daemons."""
        try:
            jobs = run("squeue", "-h", "-o", "%A", "-t", "PD,R,CG,CF,S").split()
            if jobs:
                run("scancel", *jobs)
                until(lambda: not self.living_jobs(), 30, "jobs to end")
        except (subprocess.SubprocessError, TimeoutError):
            pass
        for name in reversed(list(self.processes)):
            process = self.processes.pop(name)
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for name in CONFIG_FILES:
            if os.path.lexists(ETC / name):
                (ETC / name).unlink()
        if self._lock:
            self._lock.close()

    def _end_left_over(self) -> None:
        """End the daemons of a session that was killed; their ids are in the lock."""
        assert self._lock is not None
        self._lock.seek(0)
        for pid in map(int, self._lock.read().split()):
            if name_of(pid) in ("munged", "slurmctld", "slurmd"):
                os.kill(pid, signal.SIGKILL)
        self._lock.truncate(0)

    def _configure(self) -> None:
        host = socket.gethostname().split(".")[0]
        try:
            socket.gethostbyname(host)
        except OSError:
            # srun must be called back under this name.
            with Path("/etc/hosts").open("a") as hosts:
                hosts.write(f"127.0.0.1 {host}\n")
        nodes, gres = [], []
        for number, node in enumerate(NODES, start=1):
            device = self.folder / f"dev/{node}-gpu0"
            if not device.exists():
                try:
                    os.mknod(device, 0o20666, os.makedev(1, 3))
                except OSError:
                    device.touch()
            gres.append(f"NodeName={node} Name=gpu File={device}\n")
            nodes.append(
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 "
                f"Port={PORT + number} CPUs={CPUS} RealMemory={MEMORY_MB} Gres=gpu:1 "
                "State=UNKNOWN"
            )
        text = CONFIGURATION.format(
            host=host, folder=self.folder, port=PORT, nodes="\n".join(nodes)
        )
        (self.folder / "etc/slurm.conf").write_text(text)
        (self.folder / "etc/gres.conf").write_text("".join(gres))
        ETC.mkdir(exist_ok=True)
        for name in CONFIG_FILES:
            if os.path.lexists(ETC / name):
                (ETC / name).unlink()
            (ETC / name).symlink_to(self.folder / "etc" / name)

    def _launch(self, name: str, *command: str) -> None:
        path = program(command[0])
        assert path is not None
        with (self.folder / f"log/{name}.out").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [path, *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        assert self._lock is not None
        self._lock.write(f"{self.processes[name].pid}\n")
        self._lock.flush()

    def _start_munge(self) -> None:
        munge = self.folder / "munge"
        key = munge / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        self._launch(
            "munged",
            *("munged", "--foreground", "--force", "--num-threads=4"),
            *(f"--key-file={key}", f"--socket={munge}/munge.socket"),
            *(f"--log-file={self.folder}/log/munged.log",),
            *(f"--pid-file={munge}/munged.pid", f"--seed-file={munge}/seed"),
        )
        until((munge / "munge.socket").exists, 20, "munged")

    def start_controller(self, fresh: bool = False) -> None:
        """Start slurmctld; unless `fresh`, with the jobs that the last one knew."""
        self._launch("slurmctld", "slurmctld", "-D", *(["-c", "-i"] if fresh else []))

        def answers() -> bool:
            try:
                return "UP" in run("scontrol", "ping")
            except subprocess.SubprocessError:
                return False

        until(answers, 30, "slurmctld")

    def kill_controller(self) -> None:
        process = self.processes.pop("slurmctld")
        process.kill()
        process.wait()

    def start_node(self, node: str) -> None:
        (self.folder / f"spool-{node}").mkdir(exist_ok=True)
        self._launch(node, "slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """Kill a node's slurmd: its job steps live on."""
        process = self.processes.pop(node)
        process.kill()
        process.wait()

    def end_processes(self, node: str) -> None:
        """End what a killed slurmd has left on its node, as a reboot would."""
        for pid in self.processes_of(node):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def processes_of(self, node: str) -> list[int]:
        """Processes of job steps on a node, and the step daemons above them."""
        found = set()
        for pid in [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]:
            if job_environment(pid).get("SLURMD_NODENAME") != node:
                continue
            found.add(pid)
            parent = parent_of(pid)
            if parent and name_of(parent).startswith("slurmstepd"):
                found.add(parent)
        return sorted(found)

    def wait_for_nodes(self) -> None:
        """Wait until every node takes jobs."""

        def ready() -> bool:
            states = run("sinfo", "-h", "-N", "-o", "%T").split()
            return sum(s in ("idle", "mixed", "allocated") for s in states) == len(
                NODES
            )

        until(ready, 60, "idle nodes")

    def living_jobs(self) -> list[str]:
        return run("squeue", "-h", "-o", "%A %T", "-t", "PD,R,CG,CF,S").splitlines()

    def jobs(self, folder: Path) -> list[Job]:
        """The jobs that were submitted from a folder, in the order of their ids."""
        jobs = []
        for line in run("scontrol", "-o", "show", "jobs").splitlines():
            values = dict(word.split("=", 1) for word in line.split() if "=" in word)
            if values.get("WorkDir") != str(folder.resolve()):
                continue
            gpus = values.get("TresPerJob", "gres:gpu:0").rpartition(":")[2]
            jobs.append(
                Job(
                    id=int(values["JobId"]),
                    state=values["JobState"],
                    task=values.get("Comment", "").removeprefix("rule_"),
                    node=values["NodeList"],
                    start=seconds_of(values["StartTime"]),
                    end=seconds_of(values["EndTime"]),
                    minutes=minutes_of(values["TimeLimit"]),
                    memory_mb=megabytes_of(values["MinMemoryNode"]),
                    cpus=int(values["NumCPUs"]),
                    gpus=int(gpus),
                )
            )
        return sorted(jobs, key=lambda job: job.id)


def seconds_of(time_stamp: str) -> float:
    if time_stamp == "Unknown":
        return float("nan")
    return datetime.fromisoformat(time_stamp).timestamp()


def minutes_of(limit: str) -> int:
    """Minutes of SLURM's [days-]hours:minutes:seconds."""
    days, _, clock = limit.rpartition("-")
    hours, minutes, _ = map(int, clock.split(":"))
    return (24 * int(days or 0) + hours) * 60 + minutes


def megabytes_of(memory: str) -> int:
    factor = 1024 if memory.endswith("G") else 1
    return int(float(memory[:-1]) * factor)


def job_environment(pid: int) -> dict[str, str]:
    """A process's environment at its start; empty when it cannot be read."""
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (
        entry.split("=", 1) for entry in content.decode(errors="replace").split("\0")
    )
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def main() -> int:
    """Keep a cluster for trying things out, until interrupted."""
    if reason := why_not():
        print(reason, file=sys.stderr)
        return 1
    cluster = Cluster(Path(sys.argv[1]))
    cluster.start()
    try:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        print("The cluster is up; Ctrl-C ends it.", flush=True)
        signal.pause()
    finally:
        cluster.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
