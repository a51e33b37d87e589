# SPDX-License-Identifier: Apache-2.0
"""Scores of images. `Judged` is what a reward function of one's own is given, see `unigen.config.policy.RewardConfig`."""

from unigen.rewards.judged import Judged

__all__ = ["Judged"]
