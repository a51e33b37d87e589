# SPDX-License-Identifier: Apache-2.0
"""The whole vocabulary of errors: what a user did wrong, in one line that names the value, the place and the remedy."""


class UnigenError(Exception):
    """A mistake outside this code (input, files, environment). The command line prints it as one line and exits with 2."""

    is_mistake: bool = True
    """A person has to mend it: started again, the same would happen. Else the command line exits with 1."""


class ConfigError(UnigenError):
    """A configuration that cannot work: an unknown key, a wrong type, an impossible combination."""


class DataError(UnigenError):
    """Data that cannot be read, or too many bad samples."""


class DataWorkerError(DataError):
    """A process that reads data died or hangs, for want of memory or of a file system: started again, the run may go on."""

    is_mistake = False


class CheckpointError(UnigenError):
    """A model folder that is missing, incomplete or of another shape than asked for."""


class UnsavedError(CheckpointError):
    """A run ended without its last checkpoint on the disk, which had no room or refused: it goes on from an earlier one when it
    is started again, and then the disk may have room."""

    is_mistake = False


class TrainingError(UnigenError):
    """A run that cannot go on, such as one whose loss stopped being a number."""


class EvaluationError(UnigenError):
    """A benchmark or an annotation that is incomplete, belongs to another run or whose judge cannot be trusted."""


class RewardError(UnigenError):
    """An image that a reward cannot score."""


class RewardServerError(RewardError):
    """A server of rewards that stays away: no image can be scored now, later any may."""

    is_mistake = False


class RanksApartError(UnigenError):
    """One process of several met what the others did not, so that they cannot go on together; the same command goes on with what
    is done."""

    is_mistake = False
