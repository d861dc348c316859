"""A real SLURM on 127.0.0.1, in a folder of its own: one node of two CPUs, with or without accounting.

Jobs of the partition `urgent` preempt those of the default one, which have a minute to leave.
"""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
ACCOUNTING = ("mariadbd", "mariadb-install-db", "mariadb", "slurmdbd", "sacctmgr", "sacct")

_SLURM_CONF = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ctld}
SlurmdPort={slurmd}
AuthType=auth/munge
# A requeued job waits until its old credential has expired, two minutes by default.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,bf_interval=2
MpiDefault=none
ReturnToService=2
KillWait=20
MinJobAge={min_job_age}
{accounting}
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=all Nodes={host} Default=YES MaxTime=60 PriorityTier=1 GraceTime=60 State=UP
PartitionName=urgent Nodes={host} MaxTime=60 PriorityTier=10 PreemptMode=OFF State=UP
"""

_SLURMDBD_CONF = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser={user}
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={sql}
StorageUser=slurm
StoragePass=here
StorageLoc=slurm
"""


def missing_for_slurm() -> str | None:
    """Why no SLURM can be started here; None if one can."""
    if os.geteuid() != 0:
        return "SLURM's daemons are started as root here"
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    absent = [name for name in (*PROGRAMS, *ACCOUNTING) if shutil.which(name, path=path) is None]
    return f"not installed: {', '.join(absent)} (make slurm installs them with apt-get)" if absent else None


@dataclass(frozen=True)
class Cluster:
    """A running SLURM.

    Attributes:
        folder: Its configuration, state and logs.
        environment: What a program needs to talk to it.
    """

    folder: Path
    environment: dict[str, str]

    def ask(self, *command: str, seconds: float = 30) -> str:
        """What one of SLURM's commands prints.

        Raises:
            subprocess.CalledProcessError: It failed.
            subprocess.TimeoutExpired: It took longer.
        """
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=seconds)
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        return done.stdout


@contextmanager
def cluster(folder: Path, accounting: bool, min_job_age: int = 300) -> Generator[Cluster]:
    """Starts a SLURM of which every process ends with the block, also if that fails.

    Args:
        folder: Takes everything it writes. Its path must be short: a socket's name has at most 107 characters.
        accounting: With slurmdbd and a MariaDB behind it.
        min_job_age: Seconds for which the controller remembers a job that has ended.

    Raises:
        TimeoutError: A daemon does not answer; its log is in the message.
    """
    folder.mkdir(parents=True)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH", "SUBMITIT"))},
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        "SLURM_CONF": str(folder / "slurm.conf"),
    }
    here = Cluster(folder, environment)
    names = ("ctld", "slurmd", "dbd", "sql")
    words = dict(zip(names, map(str, _free_ports(len(names))), strict=True)) | {
        "folder": str(folder),
        "host": socket.gethostname().partition(".")[0],
        "user": getpass.getuser(),
        "min_job_age": str(min_job_age),
    }
    account = (
        f"AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=127.0.0.1\n"
        f"AccountingStoragePort={words['dbd']}\nAccountingStoragePass={folder}/munge.socket"
    )
    (folder / "slurm.conf").write_text(_SLURM_CONF.format(**words, accounting=account if accounting else ""))
    with ExitStack() as stack:
        _start_munge(stack, here)
        if accounting:
            _start_accounting(stack, here, words)
        _start(stack, here, "slurmctld", "-D", "-i")
        _until(here, "slurmctld", lambda: "UP" in here.ask("scontrol", "ping"))
        if accounting:  # the controller announces itself
            _until(here, "slurmctld", lambda: "here" in here.ask("sacctmgr", "-nP", "show", "cluster"))
        (folder / "spool").mkdir()
        _start(stack, here, "slurmd", "-D")
        _until(here, "slurmd", lambda: "idle" in here.ask("sinfo", "-h", "-o", "%T"))
        yield here
        with suppress(subprocess.SubprocessError):  # steps that still run would outlive their daemons
            here.ask("scancel", "--user", words["user"])
            _until(here, "slurmctld", lambda: not here.ask("squeue", "-h"))


def _start_munge(stack: ExitStack, here: Cluster) -> None:
    key = here.folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    files = [
        f"--{option}={here.folder}/munge.{option.partition('-')[0]}"
        for option in ("socket", "key-file", "pid-file", "log-file", "seed-file")
    ]
    _start(stack, here, "munged", "--foreground", "--force", *files)
    _until(here, "munged", (here.folder / "munge.socket").exists)


def _start_accounting(stack: ExitStack, here: Cluster, words: dict[str, str]) -> None:
    data, socket_file = here.folder / "sql", here.folder / "sql.socket"
    install = ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db"]
    subprocess.run(install, env=here.environment, check=True, capture_output=True, timeout=120)
    _start(stack, here, "mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={socket_file}",
           "--bind-address=127.0.0.1", f"--port={words['sql']}", f"--pid-file={here.folder}/sql.pid")  # fmt: skip
    client = ("mariadb", "--no-defaults", f"--socket={socket_file}", "-e")
    _until(here, "mariadbd", lambda: bool(here.ask(*client, "select 1")))
    here.ask(*client, "create database slurm; grant all on slurm.* to slurm@'%' identified by 'here'")
    conf = here.folder / "slurmdbd.conf"
    conf.write_text(_SLURMDBD_CONF.format(**words))
    conf.chmod(0o600)
    _start(stack, here, "slurmdbd", "-D")
    _until(here, "slurmdbd", lambda: "root" in here.ask("sacctmgr", "-nP", "show", "account"))


def _start(stack: ExitStack, here: Cluster, *command: str) -> None:
    log = stack.enter_context((here.folder / f"{command[0]}.log").open("wb"))
    process = subprocess.Popen(
        command, env=here.environment, cwd=here.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
    )
    stack.callback(_end, process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
            return


def _until(here: Cluster, program: str, holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while True:
        with suppress(subprocess.SubprocessError):
            if holds():
                return
        if time.monotonic() > end:
            log = (here.folder / f"{program}.log").read_text(errors="replace")
            raise TimeoutError(f"{program} does not answer after {seconds:.0f} s. Its log:\n{log[-3000:]}")
        time.sleep(0.2)


def _free_ports(count: int) -> Sequence[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
