"""Ray Train's folder of a run is gone when the command has ended, however it ends."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from distgan.errors import UserError
from distgan.launch.cluster import RayStorage, ray_storage
from distgan.storage.storage import Storage

pytestmark = pytest.mark.timeout(60)


def leave_a_note(notes: RayStorage) -> None:
    """As Ray does: its path, with its file system where there is one."""
    path, filesystem = notes
    if filesystem is None:
        (Path(path) / "session").mkdir(parents=True)
        (Path(path) / "session" / ".validate_storage_marker").touch()
    else:
        filesystem.create_dir(f"{path}/session")
        with filesystem.open_output_stream(f"{path}/session/.validate_storage_marker") as file:
            file.write(b"")


@pytest.mark.parametrize("where", ["disk", "memory"])
@pytest.mark.parametrize("error", [None, UserError("a mistake"), KeyboardInterrupt()])
def test_nothing_is_left(error: BaseException | None, where: str, tmp_path: Path) -> None:
    run = Storage.open(str(tmp_path / "run") if where == "disk" else f"memory://{uuid.uuid4().hex}/run")
    run.write_bytes("summary.json", b"{}")
    run.write_bytes("ray/killed/note", b"of a session that could not end in order")

    def session() -> None:
        with ray_storage(run) as notes:
            leave_a_note(notes)
            assert run.exists("ray/session/.validate_storage_marker")
            if error is not None:
                raise error

    if error is None:
        session()
    else:
        with pytest.raises(type(error)):
            session()
    assert run.list() == ["summary.json"]


def test_storage_that_refuses_hides_no_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Storage, name: str) -> None:
        raise UserError(f"{name}: the store is tired")

    monkeypatch.setattr(Storage, "delete", refuse)
    with pytest.raises(UserError, match="a mistake"), ray_storage(Storage.open(str(tmp_path))):
        raise UserError("a mistake")


def test_a_run_without_notes_ends_as_well(tmp_path: Path) -> None:
    with ray_storage(Storage.open(str(tmp_path))):
        pass
    assert list(tmp_path.iterdir()) == []
