# SPDX-License-Identifier: Apache-2.0
"""`zeroshot_question.py` under the name that the released README gives it."""

from zeroshot_question import command

if __name__ == "__main__":
    command()
