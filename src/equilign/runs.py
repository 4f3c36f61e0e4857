"""Run directories: what a run writes, and who may write into it."""

import os
import platform
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from equilign.errors import RunDirectoryError
from equilign.files import write_atomically, write_json

_PACKAGES = ("equilign", "torch", "transformers", "accelerate", "peft", "datasets", "numpy")


@dataclass(frozen=True)
class RunDirectory:
    """A folder with one run in it.

    Attributes:
        path: holds ``config.yaml``, ``environment.json``, ``metrics.jsonl``, ``rounds/``,
            ``checkpoints/``, ``report.html``.
    """

    path: Path

    @property
    def config_file(self) -> Path:
        """Resolved options; its presence makes a folder a run."""
        return self.path / "config.yaml"

    def open(self, config: dict[str, Any], *, resume: bool, need_mb: float = 0.0) -> None:
        """Claim the folder for a run with ``config``, or go on with the run that it holds.

        Args:
            config: resolved options (plain values) that decide the result.
            resume: whether to go on.
            need_mb: free disk space wanted, in MB.

        Raises:
            RunDirectoryError: it holds another run or other files, cannot be written, or has
                too little space; nothing in it was changed.
        """
        held = self.check(config, resume=resume)
        self._prepare(need_mb)
        if held is None:
            write_json(self.path / "environment.json", environment())
            write_atomically(self.config_file, yaml.safe_dump(config, sort_keys=False))

    def check(self, config: dict[str, Any], *, resume: bool) -> dict[str, Any] | None:
        """Whether `open` would be refused; nothing is written.

        Returns:
            The options of the run that is there; None if there is none.

        Raises:
            RunDirectoryError: it holds another run or other files.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunDirectoryError(f"{self.path} is a file; choose another --output-dir")
        held = self._held_config()
        if held is not None:
            self._check_same(held, config, resume)
        elif self.path.exists() and any(self.path.iterdir()) and not self._only_ours():
            raise RunDirectoryError(
                f"{self.path} is not empty and holds no run of equilign; "
                "choose another --output-dir"
            )
        return held

    def _held_config(self) -> dict[str, Any] | None:
        if not self.config_file.is_file():
            return None
        try:
            held = yaml.safe_load(self.config_file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise RunDirectoryError(f"cannot read {self.config_file}: {error}") from error
        if not isinstance(held, dict):
            raise RunDirectoryError(f"{self.config_file} is not the configuration of a run")
        return held

    def _only_ours(self) -> bool:
        # What a kill before config.yaml was written can leave behind.
        return all(
            p.name in {"environment.json", ".environment.json.tmp", ".config.yaml.tmp"}
            for p in self.path.iterdir()
        )

    def _check_same(self, held: dict[str, Any], config: dict[str, Any], resume: bool) -> None:
        keys = sorted(set(held) | set(config))
        other = [k for k in keys if held.get(k) != config.get(k)]
        if not resume:
            cure = "Add --resume to go on with it, or choose another --output-dir."
            raise RunDirectoryError(f"{self.path} already holds a run. {cure}")
        if other:
            difference = "; ".join(
                f"{k}: {held.get(k)!r} there, {config.get(k)!r} now" for k in other
            )
            raise RunDirectoryError(
                f"{self.path} holds a run with other options ({difference}). "
                "Give the same options to resume it, or choose another --output-dir."
            )

    def _prepare(self, need_mb: float) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.path).free / 1e6
        except OSError as error:
            raise RunDirectoryError(
                f"cannot write {self.path}: {error.strerror}; choose another --output-dir"
            ) from error
        if not os.access(self.path, os.W_OK):
            raise RunDirectoryError(f"no permission to write {self.path}; choose another one")
        if free < need_mb:
            raise RunDirectoryError(
                f"{self.path} has {free:.0f} MB of free disk space and this run needs about "
                f"{need_mb:.0f} MB; free some space, or choose another --output-dir"
            )


def environment() -> dict[str, Any]:
    """Versions, machine, and the git commit of the working directory, if it is in a repository."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cpu_count": os.cpu_count(),
        "packages": versions,
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    try:
        out = subprocess.run(
            [git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return out.stdout.strip() if out.returncode == 0 else None


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB (10^6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
