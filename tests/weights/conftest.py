"""What several tests of weights need."""

from __future__ import annotations

from pathlib import Path

import pytest

from rts_batch.config import RTS50, StaConfig
from rts_batch.weights.layout import network_layout
from rts_batch.weights.untrained import untrained_state
from tests.support.checkpoint_files import RTS_OPTIONS, STA_OPTIONS, save_official


@pytest.fixture(scope="session")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both official checkpoints, in either layout, of random values."""
    folder = tmp_path_factory.mktemp("official")
    rts, sta = untrained_state(network_layout(RTS50), 1), untrained_state(network_layout(StaConfig()), 2)
    save_official(folder / "rts50.pth", rts, options=RTS_OPTIONS)
    save_official(folder / "sta.pth.tar", sta, options=STA_OPTIONS, net_type="STANet", legacy=True)
    return folder
