# SPDX-License-Identifier: Apache-2.0
"""The processes of one evaluation; see `unigen.data.ranks`."""

from unigen.data.ranks import Ranks

__all__ = ["Ranks"]
