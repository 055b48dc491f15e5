"""Settings and the folders they stand for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from control_plane.config import MAX_SOCKET_PATH_BYTES, Settings, prepare_home
from control_plane.errors import ConflictError


def test_home_is_made_for_its_owner_alone_and_again(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    prepare_home(settings)
    settings.logs_dir.chmod(0o755)
    prepare_home(settings)
    for folder in (settings.root, settings.logs_dir, settings.run_dir):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_sockets_of_a_deep_home_have_short_paths(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / ("deep" * 30))
    assert not settings.run_dir.is_relative_to(settings.root)
    assert len(os.fsencode(settings.run_dir / ("x" * 24))) <= MAX_SOCKET_PATH_BYTES


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to somebody else")
def test_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    settings.root.mkdir()
    os.chown(settings.root, 12345, 12345)
    with pytest.raises(ConflictError, match="not a folder of this user"):
        prepare_home(settings)
    os.chown(settings.root, 0, 0)


def test_children_see_the_same_settings(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, web_port=1234, handlers=("mine:Handler",), disk_floor=0.25)
    environment = settings.child_environment()
    ours = {name: value for name, value in environment.items() if name.startswith("SIGNALBOX_")}
    assert ours["SIGNALBOX_WEB_PORT"] == "1234"
    assert ours["SIGNALBOX_HANDLERS"] == '["mine:Handler"]'
    assert ours["SIGNALBOX_DISK_FLOOR"] == "0.25"
