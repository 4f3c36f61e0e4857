"""Checkpoints of a game: whole or not there, with the references and whatever else plays."""

import shutil
from pathlib import Path
from typing import Any

from torch import nn
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

from equilign.files import sync_folder
from equilign.trainers.references import References

_PARTIAL = ".partial"


class CheckpointingTrainer(Trainer):
    """`transformers.Trainer` whose checkpoints a kill cannot tear.

    Each is written aside and renamed, so that a kill leaves the previous one as the newest.
    """

    method: str
    references: References
    folder: Path

    def save_game_state(self, folder: Path) -> None:
        """Write what plays beside the model, the optimiser and the references; main process."""

    def load_game_state(self, folder: Path) -> None:
        """Read what `save_game_state` wrote; every process."""

    def last_checkpoint(self) -> str | None:
        """The newest whole checkpoint of this run."""
        folder = self.checkpoints()
        if not folder.exists():
            return None
        found = get_last_checkpoint(str(folder))  # type: ignore[no-untyped-call]
        return None if found is None else str(found)

    def checkpoints(self) -> Path:
        """Folder of this method's checkpoints."""
        return self.folder / "checkpoints" / self.method

    def _get_output_dir(self, trial: Any) -> str:  # noqa: ANN401 - transformers' own type
        return str(self.checkpoints() / _PARTIAL)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:  # noqa: ANN401
        partial = self.checkpoints() / _PARTIAL
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.is_world_process_zero():
            shutil.rmtree(partial, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        self.references.save(partial / name / "references", write=self.is_world_process_zero())
        if self.is_world_process_zero():
            self.save_game_state(partial / name / "game")
            final = self.checkpoints() / name
            if final.exists():
                shutil.rmtree(final)
            (partial / name).rename(final)
            shutil.rmtree(partial, ignore_errors=True)
            sync_folder(self.checkpoints())
            self._rotate()
        self.accelerator.wait_for_everyone()

    def _rotate(self) -> None:
        limit = self.args.save_total_limit
        if limit:
            found = self.checkpoints().glob(f"{PREFIX_CHECKPOINT_DIR}-*")
            for old in sorted(found, key=lambda p: int(p.name.split("-")[1]))[:-limit]:
                shutil.rmtree(old, ignore_errors=True)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.references.load(Path(resume_from_checkpoint) / "references")
        self.load_game_state(Path(resume_from_checkpoint) / "game")
