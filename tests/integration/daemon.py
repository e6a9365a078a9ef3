"""A docker daemon of the tests' own: private socket and data, started and stopped by them and seen by nobody else."""

import os
import signal
import subprocess
import time
from pathlib import Path

FLAGS = ("--iptables=false", "--ip6tables=false", "--bridge=none", "--ip-forward=false")


class Daemon:
    """One daemon after another over the same data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = f"unix://{folder}/sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start dockerd and wait until it answers."""
        (self.folder / "pid").unlink(missing_ok=True)
        self._forget_containerd()
        places = ("--data-root", self.folder / "data", "--exec-root", self.folder / "exec")
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["dockerd", *FLAGS, *places, "-H", self.host, "--pidfile", self.folder / "pid"],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.docker("version", check=False).returncode == 0:
                return
            time.sleep(0.2)
        raise AssertionError((self.folder / "log").read_text()[-2000:])

    def _forget_containerd(self) -> None:
        """Wait for the containerd of a killed dockerd to follow it; a new dockerd would take it for alive."""
        known = self.folder / "exec" / "containerd" / "containerd.pid"
        if not known.exists():
            return
        status = Path("/proc") / known.read_text() / "status"
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and status.exists() and "State:\tZ" not in status.read_text():
            time.sleep(0.1)
        known.unlink(missing_ok=True)

    def end(self, number: signal.Signals) -> None:
        """End dockerd with a signal."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None

    def stop(self) -> None:
        """Stop dockerd, and with it containerd and whatever containers run."""
        names = self.containers()
        if names:
            self.docker("rm", "--force", *names)
        self.end(signal.SIGTERM)
        # A daemon that was killed leaves its mount of this folder onto itself behind.
        data = f" {self.folder}/data "
        while data in Path("/proc/mounts").read_text():
            subprocess.run(["umount", data.strip()], check=True)

    def docker(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the client against this daemon."""
        environment = {**os.environ, "DOCKER_HOST": self.host}
        return subprocess.run(["docker", *words], env=environment, check=check, capture_output=True, text=True)

    def containers(self, *words: str) -> list[str]:
        """List containers, running or not."""
        return self.docker("ps", "--all", "--quiet", *words).stdout.split()

    def wait_for_containers(self, count: int) -> list[str]:
        """Wait until this many containers run; returns their ids."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            running = self.docker("ps", "--quiet").stdout.split()
            if len(running) >= count:
                return running
            time.sleep(0.2)
        message = f"there were never {count} containers"
        raise AssertionError(message)
