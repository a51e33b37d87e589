# SPDX-License-Identifier: Apache-2.0
"""GenEval's decision under the name that benchmarks import it by; annotation takes it from `unigen.rewards` too."""

from unigen.rewards.geneval_rules import RELATIONS, Thresholds, Verdict, judge, relative_position

__all__ = ["RELATIONS", "Thresholds", "Verdict", "judge", "relative_position"]
