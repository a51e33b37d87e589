# SPDX-License-Identifier: Apache-2.0
"""What a user's reward function is written against costs nothing to import."""

import subprocess
import sys


def test_it_is_at_hand_without_the_libraries_behind_rewards() -> None:
    code = (
        "import sys; from unigen.rewards import Judged; print(sorted({'torch', 'PIL', 'numpy'} & sys.modules.keys()))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
